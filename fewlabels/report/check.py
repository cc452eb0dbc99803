"""Report of ``check``: one self-contained HTML file, from the JSON file that ``check`` writes."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels._internal.files import write_bytes
from fewlabels.report.page import page, refusing_damage

PREVIEW = 24
"""Findings of a section, and classes, that are visible before a click. Not tuned."""
MAX_FINDINGS = 60
"""Findings of a section; further ones are in the JSON file only. By file size."""
MAX_ROWS = 8
"""Rows in each list of the most frequent sizes, formats, channels and bit depths."""


class Section(NamedTuple):
    """A section of the report, for one or more kinds of findings."""

    kinds: tuple[str, ...]
    """Kinds as in the JSON file."""
    id: str
    """HTML id."""
    title: str
    lead: str
    """The explanation below the title."""


SECTIONS = (
    Section(
        ("corrupt", "channels"),
        "unreadable",
        "Files that cannot be used",
        "They cannot be decoded, or have other channels than the other images. Training leaves them out.",
    ),
    Section(
        ("constant",),
        "constant",
        "Blank images",
        "All pixels of the image are equal, so that it contains no information.",
    ),
    Section(
        ("conflict",),
        "conflicts",
        "Copies with different labels",
        "Equal pixels with different labels: at most one label can be correct.",
    ),
    Section(
        ("leak",),
        "leaks",
        "Test images among the training images",
        "A network can memorise these images, so that its test score is too high.",
    ),
    Section(
        ("label issue",),
        "label-issues",
        "Possible label issues",
        "A classifier trained on the other labels predicts another class. The most likely issues come first. "
        "Check each one: the classifier may be wrong.",
    ),
    Section(
        ("duplicate",),
        "duplicates",
        "Duplicates",
        "Equal pixels, whatever the file name and format. The second image of each pair is the one to keep.",
    ),
    Section(
        ("near-duplicate",),
        "near-duplicates",
        "Near-duplicates",
        "The same picture compressed again, made lighter, resized or shifted by a pixel. "
        "Put all copies into training or all into the test.",
    ),
    Section(
        ("outlier",),
        "outliers",
        "Outliers",
        "Images unlike all others: screenshots, drawings, or rare but correct images. None is left out.",
    ),
)


def write_check_report(folder: Path) -> Path:
    """Write ``check.html`` from the ``check.json`` of a folder; return the path of the report.

    Raises:
        InputError: if ``check.json`` is missing or damaged, or the folder cannot be written.
    """
    file = folder / "check.json"
    with refusing_damage(file, "Name the folder of a check.", "Check the images again."):
        context = _context(json.loads(file.read_text()))
        report = page("check.html.j2", context, ("compare.css", "check.css"))
    write_bytes(folder / "check.html", report)
    return folder / "check.html"


def _context(result: dict[str, Any]) -> dict[str, Any]:
    """Variables of the template, from ``check.json``."""
    findings, thumbnails = result["findings"], result["thumbs"]
    sections = []
    for section in SECTIONS:
        of_kind = [finding for finding in findings if finding["kind"] in section.kinds]
        if of_kind:
            shown = [{**each, "thumbnails": _thumbnails(each, thumbnails)} for each in of_kind[:MAX_FINDINGS]]
            sections.append({"about": section, "number": len(of_kind), "shown": shown})
    affected = {finding["image"] for finding in findings} - {""}
    total = f"{result['counts']['images']:,} images"
    most = max(result["classes"].values(), default=0)
    about_classes = [each for each in findings if each["kind"] in ("few labels", "imbalance")]
    scarce = {finding["label"] for finding in about_classes}
    return {
        "result": result,
        "headline": f"{len(affected):,} of {total} need attention" if affected else "No problem found in the images",
        "sections": sections,
        "classes": [
            (name, number, f"{100 * number / max(most, 1):.2f}%", name in scarce)
            for name, number in result["classes"].items()
        ],
        "about_classes": about_classes,
        "kinds": [
            (title, list(result[key].items())[:MAX_ROWS], len(result[key]) - MAX_ROWS)
            for title, key in (("Size", "sizes"), ("Format", "formats"), ("Channels", "channels"), ("Bits", "bits"))
        ],
        "facts": _facts(result["counts"], len(result["classes"])),
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "preview": PREVIEW,
    }


def _thumbnails(finding: dict[str, Any], thumbnails: dict[str, str]) -> list[str]:
    """Data URLs of the thumbnails of an image and of the image that it is a copy of, where they exist."""
    names = [name for name in (finding["image"], finding["other"]) if name in thumbnails]
    return ["data:image/webp;base64," + thumbnails[name] for name in names]


def _facts(counts: dict[str, int], classes: int) -> list[tuple[str, str]]:
    """Key figures with their names, for the top of the report."""
    facts = [
        (f"{counts['images']:,}", "images"),
        (f"{counts['labelled']:,}", "labelled"),
        (f"{classes:,}", "class" if classes == 1 else "classes"),
        (f"{counts['test']:,}", "test images"),
        (f"{counts['left_out']:,}", "left out of a clean table"),
    ]
    return [fact for fact in facts if fact[0] != "0"]
