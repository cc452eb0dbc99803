"""What ``check`` has found, as one self-contained HTML file, from the JSON file that it leaves."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels._internal.files import write_bytes
from fewlabels.report.page import page, refusing_damage

FIRST = 24
"""Findings of a kind, and classes, that are open from the start."""
MOST = 60
"""Findings of a kind; the others are in the JSON file alone."""
SIZES = 8
"""Kinds of images, of the commonest sizes, formats and so on."""


class Words(NamedTuple):
    """What is said of a kind of findings."""

    kinds: tuple[str, ...]
    """As the JSON file has them."""
    id: str
    title: str
    lead: str


SECTIONS = (
    Words(
        ("corrupt", "channels"),
        "unreadable",
        "Files that cannot be used",
        "They hold no whole image, or one with other channels than the rest. Training goes without them.",
    ),
    Words(
        ("constant",),
        "constant",
        "Images without a content",
        "All their pixels are alike: nothing can be learned from them.",
    ),
    Words(
        ("conflict",),
        "conflicts",
        "Copies with different labels",
        "The same pixels under several classes: at most one label can be right.",
    ),
    Words(
        ("leak",),
        "leaks",
        "Test images among those for training",
        "What a network gets right there, it may have learned by heart: the test would look better than it is.",
    ),
    Words(
        ("doubtful label",),
        "doubts",
        "Labels worth a second look",
        "A classifier that has learned from the other labels alone contradicts these, the most doubtful first. "
        "A suggestion, not a correction.",
    ),
    Words(
        ("duplicate",),
        "duplicates",
        "Images that are there more than once",
        "The same pixels, whatever the name and the format. The second of each pair is the one to keep.",
    ),
    Words(
        ("near-duplicate",),
        "near",
        "Near-duplicates",
        "One picture, saved again, made lighter, resized or shifted by a pixel. Keep them on one side of a test.",
    ),
    Words(
        ("foreign",),
        "foreign",
        "Images unlike all others",
        "Screenshots and drawings that slipped in, or rare but right: nothing is left out for it.",
    ),
)


def write_check_report(folder: Path) -> Path:
    """Write ``check.html`` into a folder, from its ``check.json``.

    Raises:
        InputError: if that is missing or damaged, or the folder cannot be written.
    """
    file = folder / "check.json"
    with refusing_damage(file, "Name the folder of a check.", "Check the images again."):
        context = _context(json.loads(file.read_text()))
        report = page("check.html.j2", context, ("compare.css", "check.css"))
    write_bytes(folder / "check.html", report)
    return folder / "check.html"


def _context(result: dict[str, Any]) -> dict[str, Any]:
    findings, thumbs = result["findings"], result["thumbs"]
    sections = []
    for words in SECTIONS:
        of_kind = [finding for finding in findings if finding["kind"] in words.kinds]
        if of_kind:
            shown = [{**each, "thumbs": _pictures(each, thumbs)} for each in of_kind[:MOST]]
            sections.append({"words": words, "number": len(of_kind), "shown": shown})
    wrong = {finding["image"] for finding in findings} - {""}
    most = max(result["classes"].values(), default=0)
    about_classes = [each for each in findings if each["kind"] in ("few labels", "imbalance")]
    scarce = {finding["label"] for finding in about_classes}
    return {
        "result": result,
        "headline": f"{len(wrong):,} of {result['counts']['images']:,} images need a look" if wrong else "All is well",
        "sections": sections,
        "classes": [
            (name, number, f"{100 * number / max(most, 1):.2f}%", name in scarce)
            for name, number in result["classes"].items()
        ],
        "about_classes": about_classes,
        "kinds": [
            (title, list(result[key].items())[:SIZES], len(result[key]) - SIZES)
            for title, key in (("Size", "sizes"), ("Format", "formats"), ("Channels", "channels"), ("Bits", "bits"))
        ],
        "facts": _facts(result["counts"], len(result["classes"])),
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "first": FIRST,
    }


def _pictures(finding: dict[str, Any], thumbs: dict[str, str]) -> list[str]:
    """Addresses of the image and of what it is a copy of, where there are thumbnails."""
    names = [name for name in (finding["image"], finding["other"]) if name in thumbs]
    return ["data:image/webp;base64," + thumbs[name] for name in names]


def _facts(counts: dict[str, int], classes: int) -> list[tuple[str, str]]:
    """Figures for a hurried reader."""
    facts = [
        (f"{counts['images']:,}", "images"),
        (f"{counts['labelled']:,}", "with a label"),
        (f"{classes:,}", "class" if classes == 1 else "classes"),
        (f"{counts['test']:,}", "for the test"),
        (f"{counts['left_out']:,}", "that a clean table goes without"),
    ]
    return [fact for fact in facts if fact[0] != "0"]
