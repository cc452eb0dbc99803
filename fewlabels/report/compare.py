"""A comparison's report: one self-contained HTML file, from the two JSON files that ``compare`` leaves."""

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
FIRST = 24
"""Images of a gallery that are open from the start."""
DENSE = 24
"""Classes, from which on a confusion matrix has no room for numbers."""
SHADES = 9
GRID = 10_000
"""Steps from 0 to 1 in which places are written."""
PLACES = ("x", "y", "x3", "y3", "z3")
LISTS = (*PLACES, "label", "prediction", "confidence", "split", "name")

WORDS = {
    "pixels": "logistic regression on raw pixels",
    "supervised": "a network trained on the labels alone",
    "fit": "all that fewlabels fit does: experts, pooled; self-training if there is time",
    "probe": "logistic regression on frozen features",
    "finetune": "pretrained, then trained on the labels",
}
STARTS = {"untrained": "of a random network", "own": "from your own weights"}
CURVES = {
    "loss": ("Loss", "What pretraining minimises. It compares epochs of one method, not methods."),
    "rankme": ("RankMe", "How many directions the features use. It falls towards 1 if they collapse."),
    "uniformity": ("Uniformity", "Near −4: features are spread evenly. At 0 all images look the same."),
}


def write_compare_report(folder: Path) -> Path:
    """Write ``report.html`` into a comparison's folder, from its ``result.json`` and, if it is there, ``panels.json``.

    Raises:
        InputError: if ``result.json`` is missing, one of both is damaged, or the folder cannot be written.
    """
    figures, pictures = folder / "result.json", folder / "panels.json"
    again = {
        "missing": "Name the folder of a finished comparison.",
        "again": "Run the comparison again; what is done is kept.",
    }
    with refusing_damage(figures, **again):
        result = json.loads(figures.read_text())
        context = _figures(result)
    context["panels"] = None
    if pictures.is_file():
        with refusing_damage(pictures, **again):
            context["panels"] = _panels(json.loads(pictures.read_text()), result["class_names"])
    report = folder / "report.html"
    scripts = ("scatter.js", "compare.js")
    write_bytes(report, page("compare.html.j2", context, ("compare.css",), scripts))
    return report


# The figures


class Row(NamedTuple):
    """An arm in the table."""

    arm: str
    words: str
    mark: str
    """``asked``, ``baseline`` or nothing."""
    score: str
    without_twins: str
    difference: str = ""
    interval: str = ""
    p: str = ""
    verdict: str = ""
    plot: Markup = Markup()


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    numbers = sorted({row["labels"] for row in result["arms"]})
    claims = {(claim["arm"], claim["labels"]): claim for claim in result["differences"]}
    asked = {number: claims[result["asked"], number] for number in numbers}
    scores = {(row["arm"], row["labels"]): row["macro_f1"] for row in result["arms"]}
    scale = _scale_of(claims, scores)
    return {
        "headline": [(text, "labels" in text) for text in re.split(r"(?<=\.) (?=[A-Z])", result["verdict"])],
        "tone": _tone([claim["verdict"] for claim in asked.values()]),
        "axis": charts.axis(scale),
        "groups": [(number, _rows(result, number, claims, scores, scale)) for number in numbers],
        "has_second": any(row["mean_without_twins"] is not None for row in result["arms"]),
        "hero": _hero({key: claim for key, claim in claims.items() if key[0] == result["asked"]}, scores),
        "efficiency": _efficiency(result, numbers) if len(numbers) > 1 else None,
        "methods": _methods(result["pretrainings"]),
        "probe": _probe(result["probe"]),
        "facts": _facts(result),
        "measured": [(str(heading), str(text)) for heading, text in result["measured"]],
        "settings": [(name, _setting(name, value)) for name, value in result["settings"].items()],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "pairs": result["settings"]["pairs"],
        "audit": result["audit"]["line"],
        **{key: result[key] for key in ("name", "command", "date", "asked", "machine", "images", "class_names")},
        "duration": _duration(result["seconds"]),
    }


def _tone(verdicts: Sequence[str]) -> str:
    """The colour of the headline: that of all verdicts, if they agree."""
    return _kind(verdicts[0]) if len(set(verdicts)) == 1 else "unsure"


def _kind(verdict: str) -> str:
    """Class in the style sheet."""
    return verdict if verdict in ("helps", "hurts") else "unsure"


def _by_pair(arm: str, number: int, scores: dict[tuple[str, int], list[float]]) -> list[float]:
    """Points that an arm is ahead of the baseline in each pair."""
    return [100 * (a - b) for a, b in zip(scores[arm, number], scores[BASELINE, number], strict=True)]


def _points(claim: dict[str, Any]) -> tuple[float, float, float]:
    return 100 * claim["difference"], 100 * claim["low"], 100 * claim["high"]


def _scale_of(claims: dict[tuple[str, int], Any], scores: dict[tuple[str, int], list[float]]) -> charts.Scale:
    """Wide enough for the intervals and pairs of all claims, and for 0."""
    of_pairs = [each for arm, number in claims for each in _by_pair(arm, number, scores)]
    return charts.Scale.over([0.0, *of_pairs, *(each for claim in claims.values() for each in _points(claim))])


def _plot(claim: dict[str, Any], scores: dict[tuple[str, int], list[float]], scale: charts.Scale) -> Markup:
    middle, low, high = _points(claim)
    spoken = f"{_signed(middle)} points, 95% {_signed(low)} to {_signed(high)}"
    pairs = _by_pair(claim["arm"], claim["labels"], scores)
    return charts.interval(scale, (middle, low, high), pairs, _kind(claim["verdict"]), spoken)


def _rows(result: dict[str, Any], number: int, claims: Any, scores: Any, scale: charts.Scale) -> list[Row]:
    """The arms with so many labels, the best first."""
    rows = []
    for row in sorted(result["arms"], key=lambda row: -row["mean"]):
        if row["labels"] != number:
            continue
        arm, second = row["arm"], row["mean_without_twins"]
        score = f"{row['mean']:.4f}" + (f" ± {row['spread']:.4f}" if row["spread"] is not None else "")
        mark = "asked" if arm == result["asked"] else "baseline" if arm == BASELINE else ""
        shown = Row(arm, _words(arm), mark, score, f"{second:.4f}" if second is not None else "")
        claim = claims.get((arm, number))
        if claim is not None:
            middle, low, high = map(_signed, _points(claim))
            p = "<0.001" if claim["p_adjusted"] < 0.001 else f"{claim['p_adjusted']:.3f}"
            plot = _plot(claim, scores, scale)
            shown = Row(*shown[:5], middle, f"{low} to {high}", p, claim["verdict"], plot)
        rows.append(shown)
    return rows


def _words(arm: str) -> str:
    """What an arm does; nothing of one that is not known.

    >>> _words("untrained-probe")
    'logistic regression on frozen features of a random network'
    """
    start, _, kind = arm.rpartition("-")
    words = WORDS.get(kind, "")
    if start == "own" and kind == "finetune":
        return "trained on the labels, from your own weights"
    return f"{words} {STARTS[start]}" if words and start in STARTS else words


def _hero(claims: dict[tuple[str, int], Any], scores: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    """The answer as a picture: the asked arm's differences, each number of labels by itself."""
    scale = _scale_of(claims, scores)
    rows = [(number, _plot(claim, scores, scale)) for (_, number), claim in sorted(claims.items())]
    return {"rows": rows, "axis": charts.axis(scale)}


def _efficiency(result: dict[str, Any], numbers: list[int]) -> Markup:
    """Score against number of labels, a line for each arm; the two that the question is about stand out."""
    curves = []
    for arm in dict.fromkeys(row["arm"] for row in result["arms"]):
        rows = sorted((row for row in result["arms"] if row["arm"] == arm), key=lambda row: row["labels"])
        kind = "asked" if arm == result["asked"] else "baseline" if arm == BASELINE else "other"
        spread = [row["spread"] or 0.0 for row in rows]
        x, y = [math.log10(row["labels"]) for row in rows], [row["mean"] for row in rows]
        curves.append(charts.Line(x, y, kind, arm, spread if any(spread) else None))
    curves.sort(key=lambda curve: ("other", "baseline", "asked").index(curve.kind))
    places = [(math.log10(number), f"{number:,}") for number in numbers]
    return charts.lines(curves, 340, places, "labels (logarithmic)", "Macro-F1 of every arm against number of labels")


def _methods(pretrainings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each method its curves, and what the guard said."""
    methods = []
    for method in dict.fromkeys(run["method"] for run in pretrainings):
        runs = [run for run in pretrainings if run["method"] == method]
        pictures = []
        for key, (title, meaning) in CURVES.items():
            curves = [charts.Line(run[key]["steps"], run[key]["values"], "run") for run in runs if run[key]["steps"]]
            if curves:
                spoken = f"{title} against step, of {len(curves)} pretrainings"
                pictures.append((title, meaning, charts.lines(curves, 150, [], "step", spoken)))
        verdicts = [(run["name"], str(line)) for run in runs for line in run["verdicts"]]
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        told = {"name": method, "runs": len(runs), "epochs": _range([run["epochs"] for run in runs])}
        told |= {"judged": all(run.get("judged", True) for run in runs)}  # files of earlier versions do not say
        methods.append({**told, "duration": _duration(seconds), "charts": pictures, "verdicts": verdicts})
    return methods


def _probe(probe: dict[str, Any] | None) -> Markup | None:
    if probe is None or not probe["epochs"]:
        return None
    curve = charts.Line(probe["epochs"], probe["values"], "run")
    return charts.lines([curve], 150, [], "epoch", "Macro-F1 of a probe against epoch of pretraining")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Figures for a hurried reader."""
    images, pairs = result["images"], result["settings"]["pairs"]
    labels = sorted(row["labels"] for row in result["arms"])
    return [
        (f"{pairs:,}", "paired run" if pairs == 1 else "paired runs"),
        (_range(labels), "labels"),
        (f"{images['train']:,}", "training images"),
        (f"{images['test']:,}", "test images"),
        (_duration(result["seconds"]), f"on {result['machine']['cores']} cores"),
    ]


def _signed(value: float) -> str:
    """One decimal, with a sign that is as wide as a digit.

    >>> _signed(-0.04), _signed(3.14)
    ('0.0', '+3.1')
    """
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def _duration(seconds: float) -> str:
    """For the reader.

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


# The pictures


class Shown(NamedTuple):
    """An image of a gallery."""

    image: str
    """As an address."""
    name: str
    label: str
    prediction: str
    confidence: int


def _panels(panels: dict[str, Any], class_names: list[str]) -> dict[str, Any]:
    points, count = panels["points"], len(panels["points"]["x"])
    if any(len(points[key]) != count for key in LISTS):
        raise ValueError("lists of points differ in length")
    thumbs = _Thumbs(panels["sprite"])

    def named(cls: int) -> str:
        return class_names[cls] if cls >= 0 else "no label"

    def shown(point: int) -> Shown:
        label, prediction = named(points["label"][point]), named(points["prediction"][point])
        return Shown(thumbs.address(point), points["name"][point], label, prediction, points["confidence"][point])

    return {
        "title": panels["title"],
        "count": count,
        "data": _data(points, panels["sprite"], class_names),
        "sprite": "data:image/webp;base64," + panels["sprite"]["webp"],
        "pixels": max(panels["sprite"]["side_x"], panels["sprite"]["side_y"]) < 64,
        "confusion": _confusion(panels["confusion"], class_names),
        "shown": panels["shown"],
        "mistakes": [shown(point) for point in panels["mistakes"]],
        "label_errors": [
            (shown(row["point"]), named(row["given"]), named(row["suggested"]), row["confidence"])
            for row in panels["label_errors"]
        ],
        "twins": [(shown(test), shown(train)) for test, train in panels["twins"]],
        "first": FIRST,
    }


class _Thumbs:
    """Single images out of the one that holds them all."""

    def __init__(self, sprite: dict[str, Any]) -> None:
        self.image = Image.open(io.BytesIO(base64.b64decode(sprite["webp"])))
        self.width, self.height, self.columns = sprite["side_x"], sprite["side_y"], sprite["columns"]

    def address(self, point: int) -> str:
        left, top = self.width * (point % self.columns), self.height * (point // self.columns)
        buffer = io.BytesIO()
        self.image.crop((left, top, left + self.width, top + self.height)).save(buffer, "webp", quality=90)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _data(points: dict[str, Any], sprite: dict[str, Any], class_names: list[str]) -> Markup:
    """What the page's script draws from; no text in it can end the element that it stands in."""
    data = {
        "classes": class_names,
        "colours": [class_colour(index) for index in range(len(class_names))],
        "points": {**points, **{key: [round(GRID * value) for value in points[key]] for key in PLACES}},
        "grid": GRID,
        "sprite": {key: sprite[key] for key in ("side_x", "side_y", "columns")},
    }
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _confusion(counts: list[list[int]], class_names: list[str]) -> dict[str, Any]:
    """Rows of (count, shade), and the most frequent mistakes."""
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
    total, right = sum(map(sum, counts)), sum(row[true] for true, row in enumerate(counts))
    often = sorted(wrong, key=lambda mistake: -mistake[0])[:3]
    return {"rows": rows, "often": often, "total": total, "right": right, "dense": len(class_names) > DENSE}
