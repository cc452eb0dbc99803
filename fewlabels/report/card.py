"""The card of a model: what it has learned from, how good it is, and what nobody has tested."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fewlabels._internal.files import write_bytes
from fewlabels.report.page import templates

NAME = "MODEL_CARD.md"
SHOWN = 50
"""Classes, at most; of more, those with the lowest figures."""
FILES_SHOWN = 10
WAYS = {
    "supervised": "a network trained from fresh weights on the labels alone",
    "probe": "logistic regression on a pretrained backbone, which is frozen",
    "finetune": "a pretrained backbone, trained on with the labels",
    "kernel": "a network that learned what kernel ridge on gradients, patches and neighbours says of all images",
    "propagate": "a network that learned what labels spread along neighbouring images say of all images",
    "committee": "a network that learned what several ways, together, say of all images",
    "selftrain": "a network that taught itself with the images without a label, or learned from a larger one that did",
}
NEVER_NAMED = "it will never be named"
"""How a line of ``fit`` about a class without a label ends."""
AVERAGES = ("accuracy", "micro avg", "macro avg", "weighted avg")
"""Of scikit-learn's report; a class of such a name has no row of its own there."""


def write_card(folder: Path) -> Path:
    """Write ``MODEL_CARD.md`` into the folder of a finished fit, from its ``result.json`` alone.

    Raises:
        InputError: if the folder cannot be written.
    """
    result = json.loads((folder / "result.json").read_text())
    environment = templates(finalize=plain, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters.update(count="{:,}".format, figure="{:.3f}".format)
    text = environment.get_template("card.md.j2").render(
        **result,
        way=WAYS.get(result["strategy"], result["strategy"]),
        ways=sorted(result["tried"].items(), key=lambda way: -way[1]),
        classes=_classes(result),
        shown=SHOWN,
        never_named=[line for line in result["said"] if line.endswith(NEVER_NAMED)],
        files=list(result["left_out"].items())[:FILES_SHOWN],
        line=Markup(one_line(result["command"])),
    )
    card = folder / NAME
    write_bytes(card, text.encode())
    return card


def one_line(text: str) -> str:
    """Printable text without line breaks."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


def plain(value: object) -> str:
    r"""A value as text that Markdown shows as it is, within a line; what is marked up stays so.

    >>> print(plain("a|b <i>_c_"))
    a\|b \<i\>\_c\_
    """
    if isinstance(value, Markup):
        return value
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#&~$" else letter for letter in one_line(str(value)))


def _classes(result: dict[str, Any]) -> list[tuple[str, dict[str, float] | None]]:
    """Names with scikit-learn's figures, the lowest F1 first; no figures where the name is that of an average."""
    if result["macro_f1"] is None:
        return []
    rows = [(name, None if name in AVERAGES else result["per_class"][name]) for name in result["class_names"]]
    return sorted(rows, key=lambda row: row[1]["f1-score"] if row[1] else 2.0)[:SHOWN]
