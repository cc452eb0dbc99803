"""A comparison's report: one self-contained HTML file, from the JSON files that ``compare`` writes."""

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from fewlabels._internal.files import write_bytes
from fewlabels.report import charts
from fewlabels.report.colours import class_colour
from fewlabels.report.page import page, refusing_damage

BASELINE = "supervised"
"""The candidate that all others are compared with."""
GALLERY_PREVIEW = 24
"""Images of a gallery that are visible before a click. Not tuned."""
MAX_READABLE_CLASSES = 24
"""Classes up to which the cells of the confusion matrix have room for numbers."""
SHADES = 9
"""Shades of the confusion matrix; the style sheet has a class for each."""
COORDINATE_STEPS = 10_000
"""Coordinates of the map are integers, in steps of one part in so many."""
COORDINATES = ("x", "y", "x3", "y3", "z3")
"""Keys of the map's coordinates in ``panels.json``: two of the flat map, three of the 3-D map."""
POINT_LISTS = (*COORDINATES, "label", "prediction", "confidence", "split", "name")
"""Keys of the lists in ``panels.json`` that have one entry for each point."""

DESCRIPTIONS = {
    "pixels": "logistic regression on raw pixels",
    "supervised": "a network trained on the labels alone",
    "fit": "fewlabels fit: the best of several models, an ensemble and self-training",
    "probe": "logistic regression on frozen features",
    "finetune": "a pretrained network, fine-tuned on the labels",
}
"""Descriptions of candidates, by kind."""
INIT_DESCRIPTIONS = {"untrained": "of a random network", "own": "from your own weights"}
CURVES = {
    "loss": ("Loss", "The loss of pretraining. It compares epochs of one method, not methods."),
    "rankme": ("RankMe", "Effective rank of the features. It falls towards 1 if they collapse."),
    "uniformity": ("Uniformity", "Near −4 features are spread evenly. At 0 all images have the same features."),
}
"""Title and explanation of each pretraining curve, by its key in ``result.json``."""


def write_compare_report(folder: Path) -> Path:
    """Write ``report.html`` from the ``result.json`` of a comparison and, if it exists, its ``panels.json``.

    Args:
        folder: of the comparison.

    Returns:
        The path of the report.

    Raises:
        InputError: if ``result.json`` is missing, one of the files is damaged, or the folder cannot be written.
    """
    result_file, panels_file = folder / "result.json", folder / "panels.json"
    advice = {
        "missing": "Name the folder of a finished comparison.",
        "again": "Run the comparison again; finished trials are reused.",
    }
    with refusing_damage(result_file, **advice):
        result = json.loads(result_file.read_text())
        context = _result_context(result)
    context["panels"] = None
    if panels_file.is_file():
        with refusing_damage(panels_file, **advice):
            context["panels"] = _panels_context(json.loads(panels_file.read_text()), result["class_names"])
    report = folder / "report.html"
    scripts = ("scatter.js", "compare.js")
    write_bytes(report, page("compare.html.j2", context, ("compare.css",), scripts))
    return report


# Scores and curves, from result.json


class Row(NamedTuple):
    """A candidate in the table of scores."""

    name: str
    description: str
    mark: str
    """``primary``, ``baseline`` or empty."""
    score: str
    second_score: str
    """Without test images that have near-duplicates; empty if there are none."""
    difference: str = ""
    interval: str = ""
    p: str = ""
    verdict: str = ""
    plot: Markup = Markup()


def _result_context(result: dict[str, Any]) -> dict[str, Any]:
    """Variables of the template, from ``result.json``."""
    numbers = sorted({row["labels"] for row in result["scores"]})
    claims = {(claim["arm"], claim["labels"]): claim for claim in result["differences"]}
    primary = {(result["primary"], number): claims[result["primary"], number] for number in numbers}
    scores = {(row["arm"], row["labels"]): row["macro_f1"] for row in result["scores"]}
    scale = _scale_of(claims, scores)
    return {
        "headline": [(text, "labels" in text) for text in re.split(r"(?<=\.) (?=[A-Z])", result["verdict"])],
        "tone": _tone([claim["verdict"] for claim in primary.values()]),
        "axis": charts.axis(scale),
        "groups": [(number, _rows(result, number, claims, scores, scale)) for number in numbers],
        "has_second_score": any(row["mean_without_near_duplicates"] is not None for row in result["scores"]),
        "hero": _hero(primary, scores),
        "efficiency": _efficiency(result, numbers) if len(numbers) > 1 else None,
        "methods": _methods(result["pretrainings"]),
        "probe": _probe(result["probe"]),
        "facts": _facts(result),
        "measured": [(str(heading), str(text)) for heading, text in result["measured"]],
        "settings": [(name, _setting(name, value)) for name, value in result["settings"].items()],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "pairs": result["settings"]["pairs"],
        "audit": result["audit"]["line"],
        **{key: result[key] for key in ("name", "command", "date", "primary", "machine", "images", "class_names")},
        "duration": _duration(result["seconds"]),
    }


def _tone(verdicts: Sequence[str]) -> str:
    """CSS class of the headline: that of all verdicts if they agree, else ``unsure``."""
    return _css_class(verdicts[0]) if len(set(verdicts)) == 1 else "unsure"


def _css_class(verdict: str) -> str:
    """CSS class of a verdict."""
    return verdict if verdict in ("helps", "hurts") else "unsure"


def _differences_by_pair(name: str, number: int, scores: dict[tuple[str, int], list[float]]) -> list[float]:
    """A candidate's difference to the baseline in each pair, in points."""
    return [100 * (a - b) for a, b in zip(scores[name, number], scores[BASELINE, number], strict=True)]


def _points(claim: dict[str, Any]) -> tuple[float, float, float]:
    """Mean difference and both ends of its interval, in points."""
    return 100 * claim["difference"], 100 * claim["low"], 100 * claim["high"]


def _scale_of(claims: dict[tuple[str, int], Any], scores: dict[tuple[str, int], list[float]]) -> charts.Scale:
    """A scale that contains 0, and the intervals and pairs of all claims."""
    by_pair = [each for name, number in claims for each in _differences_by_pair(name, number, scores)]
    return charts.Scale.over([0.0, *by_pair, *(each for claim in claims.values() for each in _points(claim))])


def _plot(claim: dict[str, Any], scores: dict[tuple[str, int], list[float]], scale: charts.Scale) -> Markup:
    """The chart of a difference."""
    mean, low, high = _points(claim)
    description = f"{_signed(mean)} points, 95% {_signed(low)} to {_signed(high)}"
    pairs = _differences_by_pair(claim["arm"], claim["labels"], scores)
    return charts.interval(scale, (mean, low, high), pairs, _css_class(claim["verdict"]), description)


def _rows(result: dict[str, Any], number: int, claims: Any, scores: Any, scale: charts.Scale) -> list[Row]:
    """Rows of all candidates with a number of labels, the best first."""
    rows = []
    for row in sorted(result["scores"], key=lambda row: -row["mean"]):
        if row["labels"] != number:
            continue
        name, second = row["arm"], row["mean_without_near_duplicates"]
        score = f"{row['mean']:.4f}" + (f" ± {row['spread']:.4f}" if row["spread"] is not None else "")
        mark = "primary" if name == result["primary"] else "baseline" if name == BASELINE else ""
        table_row = Row(name, _description(name), mark, score, f"{second:.4f}" if second is not None else "")
        claim = claims.get((name, number))
        if claim is not None:
            mean, low, high = map(_signed, _points(claim))
            p = "<0.001" if claim["p_adjusted"] < 0.001 else f"{claim['p_adjusted']:.3f}"
            plot = _plot(claim, scores, scale)
            table_row = Row(*table_row[:5], mean, f"{low} to {high}", p, claim["verdict"], plot)
        rows.append(table_row)
    return rows


def _description(name: str) -> str:
    """Description of a candidate; empty for an unknown one.

    >>> _description("untrained-probe")
    'logistic regression on frozen features of a random network'
    """
    init, _, kind = name.rpartition("-")
    description = DESCRIPTIONS.get(kind, "")
    if init == "own" and kind == "finetune":
        return "your own weights, fine-tuned on the labels"
    return f"{description} {INIT_DESCRIPTIONS[init]}" if description and init in INIT_DESCRIPTIONS else description


def _hero(claims: dict[tuple[str, int], Any], scores: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    """The chart at the top: the primary candidate's differences, one for each number of labels."""
    scale = _scale_of(claims, scores)
    rows = [(number, _plot(claim, scores, scale)) for (_, number), claim in sorted(claims.items())]
    return {"rows": rows, "axis": charts.axis(scale)}


def _efficiency(result: dict[str, Any], numbers: list[int]) -> Markup:
    """Score by number of labels, with a line for each candidate; the primary one and the baseline are emphasised."""
    curves = []
    for name in dict.fromkeys(row["arm"] for row in result["scores"]):
        rows = sorted((row for row in result["scores"] if row["arm"] == name), key=lambda row: row["labels"])
        kind = "primary" if name == result["primary"] else "baseline" if name == BASELINE else "other"
        spread = [row["spread"] or 0.0 for row in rows]
        x, y = [math.log10(row["labels"]) for row in rows], [row["mean"] for row in rows]
        curves.append(charts.Line(x, y, kind, name, spread if any(spread) else None))
    curves.sort(key=lambda curve: ("other", "baseline", "primary").index(curve.kind))
    ticks = [(math.log10(number), f"{number:,}") for number in numbers]
    return charts.lines(curves, 340, ticks, "labels (logarithmic)", "Macro-F1 of all candidates by number of labels")


def _methods(pretrainings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Curves and collapse verdicts of each pretraining method."""
    methods = []
    for name in dict.fromkeys(run["method"] for run in pretrainings):
        runs = [run for run in pretrainings if run["method"] == name]
        plots = []
        for key, (title, meaning) in CURVES.items():
            curves = [charts.Line(run[key]["steps"], run[key]["values"], "run") for run in runs if run[key]["steps"]]
            if curves:
                description = f"{title} by step, of {len(curves)} pretrainings"
                plots.append((title, meaning, charts.lines(curves, 150, [], "step", description)))
        verdicts = [(run["name"], str(line)) for run in runs for line in run["verdicts"]]
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        method = {"name": name, "runs": len(runs), "epochs": _range([run["epochs"] for run in runs])}
        method |= {"monitored": all(run.get("monitored", True) for run in runs)}  # earlier versions lack the key
        methods.append({**method, "duration": _duration(seconds), "charts": plots, "verdicts": verdicts})
    return methods


def _probe(probe: dict[str, Any] | None) -> Markup | None:
    if probe is None or not probe["epochs"]:
        return None
    curve = charts.Line(probe["epochs"], probe["values"], "run")
    return charts.lines([curve], 150, [], "epoch", "Macro-F1 of a probe by epoch of pretraining")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Key figures with their names, for the top of the report."""
    images, pairs = result["images"], result["settings"]["pairs"]
    labels = sorted(row["labels"] for row in result["scores"])
    return [
        (f"{pairs:,}", "paired run" if pairs == 1 else "paired runs"),
        (_range(labels), "labels"),
        (f"{images['train']:,}", "training images"),
        (f"{images['test']:,}", "test images"),
        (_duration(result["seconds"]), f"on {result['machine']['cores']} cores"),
    ]


def _signed(value: float) -> str:
    """A number with one decimal and a sign.

    >>> _signed(-0.04), _signed(3.14)
    ('0.0', '+3.1')
    """
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def _duration(seconds: float) -> str:
    """A duration as text, in its two largest units.

    >>> _duration(41.2), _duration(281), _duration(7270)
    ('41 s', '4 min 41 s', '2 h 1 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _setting(name: str, value: Any) -> str:
    if name == "budget":
        return _duration(value)
    if isinstance(value, list):
        return ", ".join(_setting("", each) for each in value)
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


# Images, from panels.json


class GalleryImage(NamedTuple):
    """An image of a gallery."""

    image: str
    """The pixels, as a data URL."""
    name: str
    label: str
    prediction: str
    confidence: int


def _panels_context(panels: dict[str, Any], class_names: list[str]) -> dict[str, Any]:
    """Variables of the template, from ``panels.json``."""
    points, count = panels["points"], len(panels["points"]["x"])
    if any(len(points[key]) != count for key in POINT_LISTS):
        raise ValueError("lists of points differ in length")
    thumbnails = _Thumbnails(panels["sprite"])

    def class_name(cls: int) -> str:
        return class_names[cls] if cls >= 0 else "no label"

    def gallery_image(point: int) -> GalleryImage:
        label, prediction = class_name(points["label"][point]), class_name(points["prediction"][point])
        confidence = points["confidence"][point]
        return GalleryImage(thumbnails.data_url(point), points["name"][point], label, prediction, confidence)

    return {
        "title": panels["title"],
        "count": count,
        "data": _script_data(points, panels["sprite"], class_names),
        "sprite": "data:image/webp;base64," + panels["sprite"]["webp"],
        "pixels": max(panels["sprite"]["side_x"], panels["sprite"]["side_y"]) < 64,
        "confusion": _confusion(panels["confusion"], class_names),
        "shown": panels["shown"],
        "mistakes": [gallery_image(point) for point in panels["mistakes"]],
        "label_errors": [
            (gallery_image(row["point"]), class_name(row["given"]), class_name(row["suggested"]), row["confidence"])
            for row in panels["label_errors"]
        ],
        "near_duplicates": [(gallery_image(test), gallery_image(train)) for test, train in panels["near_duplicates"]],
        "preview": GALLERY_PREVIEW,
    }


class _Thumbnails:
    """Single thumbnails, cut out of the sprite."""

    def __init__(self, sprite: dict[str, Any]) -> None:
        self.image = Image.open(io.BytesIO(base64.b64decode(sprite["webp"])))
        self.width, self.height, self.columns = sprite["side_x"], sprite["side_y"], sprite["columns"]

    def data_url(self, point: int) -> str:
        left, top = self.width * (point % self.columns), self.height * (point // self.columns)
        buffer = io.BytesIO()
        self.image.crop((left, top, left + self.width, top + self.height)).save(buffer, "webp", quality=90)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _script_data(points: dict[str, Any], sprite: dict[str, Any], class_names: list[str]) -> Markup:
    """JSON for the page's script, escaped so that no text in it can end the script element."""
    data = {
        "classes": class_names,
        "colours": [class_colour(index) for index in range(len(class_names))],
        "points": {
            **points,
            **{key: [round(COORDINATE_STEPS * value) for value in points[key]] for key in COORDINATES},
        },
        "steps": COORDINATE_STEPS,
        "sprite": {key: sprite[key] for key in ("side_x", "side_y", "columns")},
    }
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _confusion(counts: list[list[int]], class_names: list[str]) -> dict[str, Any]:
    """The confusion matrix with shades, its most frequent mistakes and its totals."""
    if [len(row) for row in counts] != [len(class_names)] * len(class_names):
        raise ValueError("confusion: not a square of all classes")
    rows = []
    for true, row in enumerate(counts):
        total = sum(row)
        shades = [math.ceil(SHADES * math.sqrt(count / total)) if total else 0 for count in row]
        recall = f"{100 * row[true] / total:.0f}%" if total else "–"
        rows.append({"name": class_names[true], "cells": list(zip(row, shades, strict=True)), "recall": recall})
    wrong = [
        (count, class_names[true], class_names[predicted])
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    total, correct = sum(map(sum, counts)), sum(row[true] for true, row in enumerate(counts))
    frequent = sorted(wrong, key=lambda mistake: -mistake[0])[:3]
    dense = len(class_names) > MAX_READABLE_CLASSES
    return {"rows": rows, "frequent": frequent, "total": total, "correct": correct, "dense": dense}
