"""The model card: what a model was trained on, how good it is, and what was not tested."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fewlabels._internal.files import write_bytes
from fewlabels.report.page import templates

CARD_NAME = "MODEL_CARD.md"
"""File name of the card."""
MAX_CLASSES = 50
"""Classes in the table, those with the lowest F1 first."""
MAX_FILES = 10
"""Unreadable files in the list."""
CANDIDATES = {
    "supervised": "a randomly initialised network, trained on the labels alone",
    "probe": "a linear head on a frozen pretrained backbone",
    "finetune": "a pretrained network, fine-tuned on the labels",
    "kernel": "a network distilled from kernel ridge regression on gradient and patch features",
    "label-spreading": "a network distilled from label spreading along nearest neighbours",
    "ensemble": "a network distilled from an ensemble of the candidates below",
    "self-training": "a network distilled from a self-trained network and an ensemble",
}
"""Descriptions of the candidates of a fit, by name."""
NEVER_PREDICTED = "it is never predicted"
"""End of a message of ``fit`` about a class without labels."""
AVERAGES = ("accuracy", "micro avg", "macro avg", "weighted avg")
"""Rows of scikit-learn's classification report that are averages. A class with such a name has no row of its own."""


def write_card(folder: Path) -> Path:
    """Write ``MODEL_CARD.md`` into the folder of a finished fit, from its ``result.json`` alone.

    Raises:
        InputError: if the folder cannot be written.
    """
    result = json.loads((folder / "result.json").read_text())
    environment = templates(finalize=plain, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters.update(count="{:,}".format, figure="{:.3f}".format)
    text = environment.get_template("card.md.j2").render(
        **{key: value for key, value in result.items() if key != "candidates"},
        what=CANDIDATES.get(result["strategy"], result["strategy"]),
        candidates=sorted(result["candidates"].items(), key=lambda item: -item[1]["macro_f1"]),
        classes=_classes(result),
        shown=MAX_CLASSES,
        never_predicted=[line for line in result["messages"] if line.endswith(NEVER_PREDICTED)],
        files=list(result["left_out"].items())[:MAX_FILES],
        command_line=Markup(one_line(result["command"])),
    )
    card = folder / CARD_NAME
    write_bytes(card, text.encode())
    return card


def one_line(text: str) -> str:
    """The text in one line; characters that cannot be printed are replaced."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


def plain(value: object) -> str:
    r"""A value as Markdown source that displays the value unchanged, in one line; a ``Markup`` is returned as it is.

    >>> print(plain("a|b <i>_c_"))
    a\|b \<i\>\_c\_
    """
    if isinstance(value, Markup):
        return value
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#&~$" else letter for letter in one_line(str(value)))


def _classes(result: dict[str, Any]) -> list[tuple[str, dict[str, float] | None]]:
    """Class names with precision, recall, F1 and support, the lowest F1 first; None for a class named as an average."""
    if result["macro_f1"] is None:
        return []
    rows = [(name, None if name in AVERAGES else result["per_class"][name]) for name in result["class_names"]]
    return sorted(rows, key=lambda row: row[1]["f1-score"] if row[1] else 2.0)[:MAX_CLASSES]
