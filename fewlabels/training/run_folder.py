"""Where a pretraining keeps what, in its folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewlabels._internal.errors import InputError
from fewlabels.training.tuning import Choice


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
    """Move all that a run goes on from into a folder of its own inside, so that another can begin here."""
    for place in [checkpoints_folder(folder), engine_file(folder), verdicts_file(folder), *folder.glob("epoch-*")]:
        if place.exists():
            (folder / name).mkdir(exist_ok=True)
            place.rename(folder / name / place.name)


@contextmanager
def refusing_damage(file: Path) -> Iterator[None]:
    """Inside the block, content of a file that is not what was written there is the user's to read of."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: damaged. Start anew in another folder with --out.") from None


def refuse_others(holder: str, before: dict[str, Any], decided: dict[str, Any]) -> None:
    """Refuse to go on with what was begun with other settings; ``before`` has been read back from JSON."""
    for name, now in json.loads(json.dumps(decided)).items():
        if before.get(name) != now:
            raise InputError(
                f"{holder} with {name} {before.get(name)}, not {now}. "
                "Go on with the same options, or choose another folder with --out."
            )


def read_choice(folder: Path) -> Choice:
    """Threads, memory format, prefetching and compilation of the run.

    Raises:
        InputError: if the file is damaged.
    """
    file = engine_file(folder)
    with refusing_damage(file):
        return Choice(**json.loads(file.read_text()))


def final_state(folder: Path) -> dict[str, Any]:
    """Loss curve, seconds and the guard's readings of a finished run."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


def kept_state(folder: Path, epochs: int) -> dict[str, Any]:
    """As :func:`final_state`, up to there."""
    return final_state(kept_folder(folder, epochs))
