"""Where a pretraining keeps what, in its folder."""

import json
from pathlib import Path
from typing import Any

from fewlabels.engine.tuning import Choice
from fewlabels.errors import InputError


def checkpoints_folder(folder: Path) -> Path:
    """The checkpoints that a run goes on from."""
    return folder / "checkpoints"


def engine_file(folder: Path) -> Path:
    """How its steps are computed: a start that goes on computes them so again."""
    return folder / "engine.json"


def choice_file(folder: Path) -> Path:
    """What ``--method auto`` tried, and what it chose."""
    return folder / "choice.json"


def verdicts_file(folder: Path) -> Path:
    """What the guard has found and the run has gone on after, or back."""
    return folder / "verdicts.json"


def kept_folder(folder: Path, epochs: int) -> Path:
    """Its weights after so many epochs, if it was asked to keep them."""
    return folder / f"epoch-{epochs}"


def holds_run(folder: Path) -> bool:
    """Whether a pretraining was begun here and has something to go on from."""
    begun = (folder / "backbone.safetensors").exists() or choice_file(folder).exists()
    return begun or any(checkpoints_folder(folder).glob("*step-*"))


def set_aside(folder: Path, name: str) -> None:
    """Move a run's checkpoints and kept weights into a folder of its own inside, so that another can begin here."""
    for place in [checkpoints_folder(folder), engine_file(folder), *folder.glob("epoch-*")]:
        if place.exists():
            (folder / name).mkdir(exist_ok=True)
            place.rename(folder / name / place.name)


def read_choice(folder: Path) -> Choice:
    """Threads, memory format, prefetching and compilation of the run.

    Raises:
        InputError: if the file is damaged.
    """
    file = engine_file(folder)
    try:
        return Choice(**json.loads(file.read_text()))
    except (ValueError, TypeError):
        raise InputError(f"{file}: damaged. Start anew in another folder with --out.") from None


def final_state(folder: Path) -> dict[str, Any]:
    """Loss curve, seconds and the guard's readings of a finished run."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


def kept_state(folder: Path, epochs: int) -> dict[str, Any]:
    """As :func:`final_state`, up to there."""
    return final_state(kept_folder(folder, epochs))
