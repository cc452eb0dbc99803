"""Trials on a Ray cluster, with the same results as :func:`~fewlabels.compare.run.run_sequentially`."""

import logging
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from fewlabels._internal.environment import available_cores, versions
from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_bytes
from fewlabels.compare.cells import Experiment
from fewlabels.compare.plan import Trial
from fewlabels.data.source import ArraySource, digest
from fewlabels.training.callbacks import Observer
from fewlabels.training.interrupts import stop_request


def _software() -> dict[str, str]:
    """Versions of the packages and a digest of the source of fewlabels, as of the import of this module."""
    source = b"".join(file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py")))
    return {**versions(), "the source of fewlabels": digest(source)}


SOFTWARE = _software()
"""Software that has to be the same on every machine, because results depend on it."""
Files = dict[str, bytes]
"""Contents of files by their path relative to an experiment's folder."""
MAX_RETRIES = 3
"""Retries of a task whose worker died. Not tuned."""
USER_WEIGHTS = "own.safetensors"
"""File name of the user's weights in a worker's folder."""


@dataclass(frozen=True)
class Pretraining:
    """A Ray task that pretrains a backbone, on which trials of the same pair depend."""

    method: str
    pair: int

    def describe(self, pairs: int) -> str:
        """A line for the user, as :meth:`Trial.describe`."""
        return f"pretraining with {self.method}, pair {self.pair + 1} of {pairs}"


Task = Trial | Pretraining


def run_on_ray(experiment: Experiment, trials: Sequence[Trial]) -> dict[Trial, np.ndarray]:
    """Predictions of all trials, with one Ray task for each pretraining and each trial.

    Tasks run on the cluster that ``RAY_ADDRESS`` names, else on the cores of this machine. A task is retried if its
    worker dies.

    Raises:
        InputError: if a trial raises it, the cluster does not respond, or a worker dies in every retry.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; results received before are saved.
    """
    # Many trainings at a time use the cores best with one thread each. OMP_NUM_THREADS overrides this.
    threads = experiment.threads(torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1)
    # is_done() takes the measurements of speeds.json on this machine.
    remaining = [trial for trial in trials if not experiment.is_done(trial)]
    if remaining:
        resources = {"CPU": threads, **({"GPU": 1} if experiment.device.type == "cuda" else {})}
        work = Path(tempfile.gettempdir(), f"fewlabels-{uuid4().hex}")
        try:
            with cluster(threads):
                _run_tasks(experiment, remaining, len(trials), resources, work.name)
        finally:
            for folder in work.parent.glob(f"{work.name}-*"):  # of workers on this machine that were killed
                shutil.rmtree(folder, ignore_errors=True)
    return {trial: experiment.predictions(trial) for trial in trials}


@contextmanager
def cluster(threads: int) -> Iterator[None]:
    """Connect to Ray inside the block: to the caller's connection, ``RAY_ADDRESS``, or a new local cluster.

    Args:
        threads: CPUs that a local cluster has at least.

    Raises:
        InputError: if the cluster does not respond.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            _check_address(address)
            ray.init(address, **quiet)
        except (OSError, RayError):
            raise InputError(
                f"RAY_ADDRESS {address}: no Ray cluster answers there. Start one with: ray start --head "
                "(if it asks for a token, set RAY_AUTH_MODE=token)"
            ) from None
    else:
        ray.init("local", num_cpus=max(threads, available_cores()), include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Open a connection to the address, because Ray itself would retry for minutes.

    Raises:
        OSError: if there is no connection within ten seconds.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            return


def _run_tasks(
    experiment: Experiment, trials: Sequence[Trial], total: int, resources: dict[str, int], work: str
) -> None:
    """Run trials and the pretrainings that they need, and write their output files when they arrive.

    Args:
        experiment: whose folder the files are written to.
        trials: to run.
        total: number of all trials, those done before included.
        resources: of a task, by Ray's names.
        work: prefix of the workers' folders.
    """
    observer, pairs = experiment.observer("compare"), experiment.settings.pairs
    observer.say(f"Ray: {_num_slots(resources)} at a time")
    running = _submit(experiment, trials, resources, work)
    done = total - len(trials)
    try:
        with stop_request() as request:
            while running:
                for reference in ray.wait(list(running), timeout=1)[0]:
                    task = running.pop(reference)
                    for name, content in _fetch_files(reference, task.describe(pairs)).items():
                        write_bytes(experiment.folder / name, content)
                    done += isinstance(task, Trial)
                    count = f"{done} of {total}: " if isinstance(task, Trial) else ""
                    observer.say(count + task.describe(pairs))
                if request.received:
                    raise KeyboardInterrupt
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _num_slots(resources: dict[str, int]) -> int:
    """Number of tasks that can run at a time.

    Raises:
        InputError: if no machine can run one; Ray itself would wait forever.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(min(int(machine.get(name, 0) // number) for name, number in resources.items()) for machine in machines)
    if not slots:
        wanted = " and ".join(f"{number} {name}" for name, number in resources.items())
        raise InputError(
            f"--engine ray: no machine of the cluster has {wanted} for a training. Add one, or start anew."
        )
    return slots


def _submit(experiment: Experiment, trials: Sequence[Trial], resources: dict[str, int], work: str) -> dict[Any, Task]:
    """Submit trials and the pretrainings that they need; returns the tasks by Ray's reference to their result."""
    run_remote = ray.remote(_run_task).options(
        num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), max_retries=MAX_RETRIES, retry_exceptions=False
    )
    # Ray sends the images once to each machine. Test labels and the console are not sent.
    test = ArraySource(experiment.test.images, None, experiment.test.class_names, experiment.test.name)
    remote_experiment = ray.put(replace(experiment, test=test, observer=Observer, folder=Path(work)))
    shared = ray.put(_shared_files(experiment))
    running: dict[Any, Task] = {}
    backbones: dict[Pretraining, Any] = {}
    for trial in trials:
        dependencies = []
        method = experiment.settings.pretraining_of(trial.candidate)
        if method is not None:
            pretraining = Pretraining(method, trial.pair)
            if pretraining not in backbones:
                files = _output_files(experiment, pretraining)
                if all(file.is_file() for file in files):
                    backbones[pretraining] = ray.put(_read_files(experiment.folder, files))
                else:
                    backbones[pretraining] = run_remote.remote(remote_experiment, SOFTWARE, pretraining, shared)
                    running[backbones[pretraining]] = pretraining
            dependencies = [backbones[pretraining]]
        running[run_remote.remote(remote_experiment, SOFTWARE, trial, shared, *dependencies)] = trial
    return running


def _shared_files(experiment: Experiment) -> Files:
    """Files that every task needs: the measured speeds and the user's weights."""
    files = _read_files(experiment.folder, [experiment.speeds_file])
    if experiment.settings.weights:
        files[USER_WEIGHTS] = experiment.initial_weights("own", 0).read_bytes()
    return files


def _run_task(experiment: Experiment, expected: dict[str, str], task: Task, *given: Files | str) -> Files | str:
    """Run a task in a worker.

    Args:
        experiment: without test labels; its folder is the prefix of the worker's folder.
        expected: the software of the machine that submitted the task.
        task: to run.
        given: files that the task needs, or the error of a pretraining that it depends on.

    Returns:
        The output files; or the message of an :class:`InputError`, which Ray would wrap into a traceback.
    """
    # All retries have the same name, so that a retry on the same machine resumes from the checkpoints.
    task_id = ray.get_runtime_context().get_task_id()
    folder = Path(tempfile.gettempdir(), f"{experiment.folder}-{task_id}")
    own = str(folder / USER_WEIGHTS) if experiment.settings.weights else None
    experiment = replace(experiment, folder=folder, settings=replace(experiment.settings, weights=own))
    try:
        _refuse_other_software(expected)
        for files in given:
            if isinstance(files, str):
                return files
            for name, content in files.items():
                write_bytes(folder / name, content)
        if isinstance(task, Trial):
            experiment.predictions(task)
        else:
            experiment.initial_weights(task.method, task.pair)
        return _read_files(folder, _output_files(experiment, task))
    except InputError as error:
        return str(error)
    except KeyboardInterrupt:
        os._exit(1)  # SIGTERM, before the machine shuts down: Ray retries the task of a dead worker elsewhere
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_other_software(expected: dict[str, str]) -> None:
    """Raise an InputError if this machine has other versions than expected."""
    for name, version in SOFTWARE.items():
        if version != expected[name]:
            raise InputError(
                f"worker {platform.node()}: {name} {version}, not {expected[name]}. "
                "Install the same versions on every machine."
            )


def _output_files(experiment: Experiment, task: Task) -> list[Path]:
    """Files of a finished task that are sent back."""
    if isinstance(task, Trial):
        return experiment.output_files(task)
    folder = experiment.pretraining_folder(task.method, task.pair)
    return [folder / "state.json", folder / "backbone.safetensors"]


def _read_files(folder: Path, files: Sequence[Path]) -> Files:
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _fetch_files(reference: Any, task_name: str) -> Files:
    """Output files of a finished task.

    Raises:
        InputError: if the task raised one, or its worker died in every retry.
    """
    try:
        result: Files | str = ray.get(reference)
    except RayTaskError:
        raise  # a bug of this package; the traceback shows where
    except RayError as error:
        raise InputError(
            f"{task_name}: its worker died {MAX_RETRIES + 1} times ({type(error).__name__}). "
            "Finished trials are saved. Check whether the machines have enough memory."
        ) from None
    if isinstance(result, str):
        raise InputError(result)
    return result
