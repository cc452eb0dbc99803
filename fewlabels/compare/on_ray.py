"""A comparison on a Ray cluster: what :func:`~fewlabels.compare.run.one_after_the_other` gives, sooner."""

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

from fewlabels._internal.environment import usable_cores, versions
from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_bytes
from fewlabels.compare.cells import Bench
from fewlabels.compare.plan import Cell
from fewlabels.data.source import ArraySource, digest
from fewlabels.training.callbacks import Observer
from fewlabels.training.interrupts import stop_wish


def _software() -> dict[str, str]:
    """What decides the results beside the processor, as it was when this module was imported."""
    source = b"".join(file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py")))
    return {**versions(), "the source of fewlabels": digest(source)}


SOFTWARE = _software()
Files = dict[str, bytes]
"""Contents by path below a bench's folder."""
RETRIES = 3
"""Of a task whose worker dies."""
OWN = "own.safetensors"
"""Where a worker has the user's weights."""


@dataclass(frozen=True)
class Pretraining:
    """A task that cells of the same pair wait for."""

    method: str
    pair: int

    def words(self, pairs: int) -> str:
        """As :meth:`Cell.words`."""
        return f"pretraining with {self.method}, pair {self.pair + 1} of {pairs}"


Task = Cell | Pretraining


def over_ray(bench: Bench, cells: Sequence[Cell]) -> dict[Cell, np.ndarray]:
    """The engine of many machines: a task for each pretraining and each cell, done again if its worker dies.

    They run on the cluster that ``RAY_ADDRESS`` names, or else on this machine's cores.

    Raises:
        InputError: of a cell, or if there is no such cluster, or workers die again and again.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; what has arrived is kept.
    """
    # One thread each, since so many trainings side by side waste none; whoever sets the variable wants it otherwise.
    threads = bench.threads(torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1)
    left = [cell for cell in cells if not bench.is_done(cell)]  # what is measured once is measured here
    if left:
        wants = {"CPU": threads, **({"GPU": 1} if bench.device.type == "cuda" else {})}
        work = Path(tempfile.gettempdir(), f"fewlabels-{uuid4().hex}")
        try:
            with cluster(threads):
                _gather(bench, left, len(cells), wants, work.name)
        finally:
            for folder in work.parent.glob(f"{work.name}-*"):  # of workers here that were stopped
                shutil.rmtree(folder, ignore_errors=True)
    return {cell: bench.predictions(cell) for cell in cells}


@contextmanager
def cluster(threads: int) -> Iterator[None]:
    """Inside the block there is Ray: the caller's own, or one that is left at the end."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            _knock(address)
            ray.init(address, **quiet)
        except (OSError, RayError):
            raise InputError(
                f"RAY_ADDRESS {address}: no Ray cluster answers there. Start one with: ray start --head "
                "(if it asks for a token, set RAY_AUTH_MODE=token)"
            ) from None
    else:
        ray.init("local", num_cpus=max(threads, usable_cores()), include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Where nobody opens, Ray itself would try for minutes.

    Raises:
        OSError: if nobody does.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            return


def _gather(bench: Bench, cells: Sequence[Cell], total: int, wants: dict[str, int], work: str) -> None:
    """Have the cells done, and write what they leave into the bench's folder as it arrives."""
    observer, pairs = bench.observer("compare"), bench.settings.pairs
    observer.say(f"Ray: {_at_once(wants)} at a time")
    running = _submitted(bench, cells, wants, work)
    done = total - len(cells)
    try:
        with stop_wish() as wish:
            while running:
                for reference in ray.wait(list(running), timeout=1)[0]:
                    task = running.pop(reference)
                    for name, content in _received(reference, task.words(pairs)).items():
                        write_bytes(bench.folder / name, content)
                    done += isinstance(task, Cell)
                    counted = f"{done} of {total}: " if isinstance(task, Cell) else ""
                    observer.say(counted + task.words(pairs))
                if wish.asked:
                    raise KeyboardInterrupt
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _at_once(wants: dict[str, int]) -> int:
    """How many tasks the cluster has room for; Ray itself would wait for ever where there is none."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(has.get(name, 0) // number) for name, number in wants.items()) for has in machines)
    if not room:
        wanted = " and ".join(f"{number} {name}" for name, number in wants.items())
        raise InputError(
            f"--engine ray: no machine of the cluster has {wanted} for a training. Add one, or start anew."
        )
    return room


def _submitted(bench: Bench, cells: Sequence[Cell], wants: dict[str, int], work: str) -> dict[Any, Task]:
    """Tasks by the reference to what they will give; ``work`` is what the workers' folders are called."""
    make = ray.remote(_made).options(
        num_cpus=wants["CPU"], num_gpus=wants.get("GPU", 0), max_retries=RETRIES, retry_exceptions=False
    )
    # Images are sent once a machine; labels of the test stay here, and so does the screen.
    test = ArraySource(bench.test.images, None, bench.test.class_names, bench.test.name)
    sent = ray.put(replace(bench, test=test, observer=Observer, folder=Path(work)))
    notes = ray.put(_notes(bench))
    running: dict[Any, Task] = {}
    backbones: dict[Pretraining, Any] = {}
    for cell in cells:
        needs = []
        method = bench.settings.pretraining_of(cell.arm)
        if method is not None:
            first = Pretraining(method, cell.pair)
            if first not in backbones:
                files = _files(bench, first)
                if all(file.is_file() for file in files):
                    backbones[first] = ray.put(_read(bench.folder, files))
                else:
                    backbones[first] = make.remote(sent, SOFTWARE, first, notes)
                    running[backbones[first]] = first
            needs = [backbones[first]]
        running[make.remote(sent, SOFTWARE, cell, notes, *needs)] = cell
    return running


def _notes(bench: Bench) -> Files:
    """What every task needs beside the images."""
    found = _read(bench.folder, [bench.notes_file])
    return found | ({OWN: bench.weights("own", 0).read_bytes()} if bench.settings.weights else {})


def _made(bench: Bench, expected: dict[str, str], task: Task, *given: Files | str) -> Files | str:
    """In a worker: what a task leaves; or the line of a user's mistake, which would else arrive with a traceback."""
    # The same name in each try, so that one on the same machine goes on from the checkpoints of the last.
    task_id = ray.get_runtime_context().get_task_id()
    folder = Path(tempfile.gettempdir(), f"{bench.folder}-{task_id}")
    own = str(folder / OWN) if bench.settings.weights else None
    bench = replace(bench, folder=folder, settings=replace(bench.settings, weights=own))
    try:
        _refuse_other_software(expected)
        for files in given:
            if isinstance(files, str):
                return files
            for name, content in files.items():
                write_bytes(folder / name, content)
        if isinstance(task, Cell):
            bench.predictions(task)
        else:
            bench.weights(task.method, task.pair)
        return _read(folder, _files(bench, task))
    except InputError as error:
        return str(error)
    except KeyboardInterrupt:
        os._exit(1)  # SIGTERM, from who takes the machine away: to die is to be tried elsewhere
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_other_software(expected: dict[str, str]) -> None:
    for name, version in SOFTWARE.items():
        if version != expected[name]:
            raise InputError(
                f"worker {platform.node()}: {name} {version}, not {expected[name]}. "
                "Install the same versions on every machine."
            )


def _files(bench: Bench, task: Task) -> list[Path]:
    """What a task leaves that is wanted."""
    if isinstance(task, Cell):
        return bench.files(task)
    folder = bench.pretraining_folder(task.method, task.pair)
    return [folder / "state.json", folder / "backbone.safetensors"]


def _read(folder: Path, files: Sequence[Path]) -> Files:
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _received(reference: Any, words: str) -> Files:
    """What a task has left.

    Raises:
        InputError: if it was refused, or its worker died in every try.
    """
    try:
        found: Files | str = ray.get(reference)
    except RayTaskError:
        raise  # a mistake of ours, whose traceback tells more
    except RayError as error:
        raise InputError(
            f"{words}: its worker died {RETRIES + 1} times ({type(error).__name__}). What is done is saved; "
            "see whether the machines have memory enough."
        ) from None
    if isinstance(found, str):
        raise InputError(found)
    return found
