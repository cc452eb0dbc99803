"""Files and folders of a pretraining run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewlabels._internal.errors import InputError
from fewlabels.training.tuning import StepExecution


def checkpoints_folder(folder: Path) -> Path:
    """The checkpoints, from which a run resumes."""
    return folder / "checkpoints"


def execution_file(folder: Path) -> Path:
    """The :class:`StepExecution` of the run, which a resumed run uses again."""
    return folder / "engine.json"


def selection_file(folder: Path) -> Path:
    """Trials and result of ``--method auto``."""
    return folder / "choice.json"


def verdicts_file(folder: Path) -> Path:
    """Verdicts of the collapse monitor after which the run continued or restarted."""
    return folder / "verdicts.json"


def epoch_folder(folder: Path, epochs: int) -> Path:
    """Weights after a number of epochs, if it is one of ``keep_epochs``."""
    return folder / f"epoch-{epochs}"


def holds_run(folder: Path) -> bool:
    """True if the folder has a pretraining that can be resumed or is finished."""
    has_result = (folder / "backbone.safetensors").exists() or selection_file(folder).exists()
    return has_result or any(checkpoints_folder(folder).glob("*step-*"))


def set_aside(folder: Path, name: str) -> None:
    """Move the state of a run to ``folder/name``, so that another run can start in the folder."""
    for path in [checkpoints_folder(folder), execution_file(folder), verdicts_file(folder), *folder.glob("epoch-*")]:
        if path.exists():
            (folder / name).mkdir(exist_ok=True)
            path.rename(folder / name / path.name)


@contextmanager
def refusing_damage(file: Path) -> Iterator[None]:
    """Inside the block, report invalid content of a file as an :class:`InputError`."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: damaged. Start anew in another folder with --out.") from None


def refuse_others(holder: str, before: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse to resume what was started with another configuration.

    Args:
        holder: what was started and where, for the message.
        before: the configuration at the start, as read from JSON.
        config: the configuration now.

    Raises:
        InputError: naming the first setting that differs.
    """
    for name, now in json.loads(json.dumps(config)).items():
        if before.get(name) != now:
            raise InputError(
                f"{holder} with {name} {before.get(name)}, not {now}. "
                "Resume with the same options, or choose another folder with --out."
            )


def read_execution(folder: Path) -> StepExecution:
    """Read the :class:`StepExecution` of the run.

    Raises:
        InputError: if the file is damaged.
    """
    file = execution_file(folder)
    with refusing_damage(file):
        return StepExecution(**json.loads(file.read_text()))


def final_state(folder: Path) -> dict[str, Any]:
    """Loss curve, seconds and collapse metrics of a finished run."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


def epoch_state(folder: Path, epochs: int) -> dict[str, Any]:
    """As :func:`final_state`, after a number of epochs."""
    return final_state(epoch_folder(folder, epochs))
