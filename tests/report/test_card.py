"""The model card, read by a Markdown parser, and as ``fit`` writes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from fewlabels._internal.files import write_json
from fewlabels.report.card import write_card

CLASSES = ["boot", "bag", "shirt"]
HOSTILE = [
    "a | b",
    "`code` ``",
    "two\nlines\r\n\n# and a heading",
    "<script>alert(1)</script>",
    "<!-- comment",
    "[link](http://example.invalid) ![image](x)",
    "**bold** _soft_ ~~gone~~",
    "&lt;&#124; \\| \\\\",
    "end\\",
    "\x00\u202e\udc80",
    "accuracy",
]


def result(names: list[str] = CLASSES, **changed: Any) -> dict[str, Any]:
    """Content of the ``result.json`` of a fit."""
    scores = np.linspace(0.9, 0.4, len(names)).round(3).tolist()
    rows = {
        name: {"precision": 0.5, "recall": 0.25, "f1-score": score, "support": 1200.0}
        for name, score in zip(names, scores, strict=True)
    }
    made = {
        "name": "fit",
        "command": "fewlabels fit photos --labels 40",
        "date": "2026-11-26T04:39:05+00:00",
        "versions": {"python": "3.11.7", "fewlabels": "0.1.0", "torch": "2.14.1"},
        "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 23.5},
        "labels": 40,
        "draw": "balanced",
        "seed": 7,
        "config": {"strategy": "auto", "budget": 600.0, "backbone": "small", "init_from": None},
        "strategy": "ensemble",
        "data": "photos",
        "images": 4321,
        "class_names": names,
        "left_out": {},
        "pseudo_labels": {},
        "candidates": {
            "supervised": {"macro_f1": 0.71, "standard_error": 0.0123},
            "ensemble": {"macro_f1": 0.7654, "standard_error": 0.0},
        },
        "messages": ["ensemble: chosen by macro-F1 on held-out labels"],
        "estimate": {"macro_f1": 0.76, "low": 0.7123, "high": 0.8049},
        "macro_f1": 0.8181,
        "seconds": 590.4,
        "accuracy": 0.8282,
        "tested_on": 3600,
        "calibration_error": 0.0212,
        "per_class": {**rows, "accuracy": 0.8282, "macro avg": {}, "weighted avg": {}},
    }  # fmt: skip
    return {**made, **changed}


@pytest.fixture
def card(tmp_path: Path):
    """A function that writes a card and returns its text."""

    def write(*args, **changed) -> str:
        write_json(tmp_path / "result.json", result(*args, **changed))
        return write_card(tmp_path).read_text(encoding="utf-8")

    return write


def parsed(text: str) -> dict[str, list[str]]:
    """Texts of headings, table cells and items, and the kinds of all tokens, by the parser of markdown-it."""
    found: dict[str, list[str]] = {"headings": [], "cells": [], "items": [], "kinds": []}
    inside = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        found["kinds"].append(token.type)
        if token.nesting == 1:
            inside.append(token.tag)
        elif token.nesting == -1:
            inside.pop()
        elif token.type == "inline":
            found["kinds"] += [child.type for child in token.children or []]
            shown = "".join(child.content for child in token.children or [])
            kind = "headings" if inside[-1] in ("h1", "h2") else "cells" if inside[-1] in ("td", "th") else "items"
            found[kind].append(shown)
    return found


def test_write_card_contains_the_results_of_the_fit(card):
    page = parsed(card())
    assert page["headings"] == [
        "Model card: photos",
        "Data",
        "How it was trained",
        "How good it is",
        "Limits",
        "How to use it",
        "Made with",
    ]
    items = "\n".join(page["items"])
    assert "Images: 4,321, from photos." in items
    assert "40, drawn at random with seed 7" in items
    assert "boot, bag, shirt." in items
    assert "macro-F1 0.760, 95% interval 0.712 to 0.805." in items
    assert "Tested once by this run, on 3,600 images that were set aside: macro-F1 0.818, accuracy 0.828." in items
    assert "off by 0.021 on average" in items
    assert "590 s, of a budget of 600 s" in items
    assert "strategy ensemble, backbone small, seed 7" in items
    cells = page["cells"]
    assert cells[:3] == ["candidate", "macro-F1", "standard error of the difference to the best"]
    assert cells[3:9] == ["ensemble", "0.765", "0.000", "supervised", "0.710", "0.012"]
    assert cells[14:] == [
        *("shirt", "0.500", "0.250", "0.400", "1,200"),  # the lowest F1 first
        *("bag", "0.500", "0.250", "0.650", "1,200"),
        *("boot", "0.500", "0.250", "0.900", "1,200"),
    ]


def test_write_card_lists_what_was_not_tested(card):
    messages = ["no image is labelled 'bag': it is never predicted", "supervised: macro-F1 0.7 on 9 held-out labels"]
    text = card(macro_f1=None, estimate=None, messages=messages, left_out={"a.png": "not an image"}, candidates={})
    limits = text[text.index("## Limits") : text.index("## How to use it")]
    assert "Nothing was tested" in limits
    assert "no image is labelled 'bag': it is never predicted" in limits
    assert "held-out" not in limits
    assert "Files that were left out (1) are" in limits
    assert "Expected: unknown" in text
    assert "file a.png: not an image" in text
    assert "Tested once" not in text
    assert "|" not in text.replace("\\|", "")


def test_write_card_escapes_markdown_in_names(card):
    left_out = {name: name for name in HOSTILE[:-1]}
    text = card(HOSTILE, data=HOSTILE[0], left_out=left_out, command="fewlabels fit 'a\n```\n# b' --labels 3")
    plain_names = [f"class {number}" for number in range(len(HOSTILE) - 1)]
    plain_text = card([*plain_names, "accuracy"], data="photos", left_out={name: name for name in plain_names})
    page, expected = parsed(text), parsed(plain_text)
    assert [kind for kind in page["kinds"] if kind not in ("text", "text_special")] == [
        kind for kind in expected["kinds"] if kind not in ("text", "text_special")
    ]
    assert len(page["headings"]) == 7
    shown = [" ".join(name.split()).replace("\x00", "\ufffd") for name in HOSTILE]
    shown = [name.replace("\u202e", "\ufffd").replace("\udc80", "\ufffd") for name in shown]
    names = page["cells"][14::5]
    assert sorted(names) == sorted(shown)
    assert page["cells"][-4:] == ["", "", "", ""]  # of the class "accuracy", which has no row in scikit-learn's report
    assert f"file {shown[3]}: {shown[3]}" in page["items"]


def test_write_card_shortens_long_lists_of_classes_and_files(card):
    names = [f"class {number}" for number in range(60)]
    text = card(names, left_out={f"{number}.png": "not an image" for number in range(12)})
    page = parsed(text)
    assert page["cells"][9] == "class, the 50 lowest F1"
    assert len(page["cells"][14:]) == 50 * 5
    assert page["cells"][14] == "class 59"
    assert "class 49 and 10 more." in text
    assert text.count(": not an image") == 10
    assert "could not be read: 12, the first of them:" in text


def test_fit_writes_a_card(run_cli, fmnist, tmp_path: Path):
    few = fmnist.train.first_k(30)
    for row, (image, label) in enumerate(zip(few.images[:, 0], few.labels, strict=True)):
        folder = tmp_path / "photos" / f"<{label % 2}>|"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row}.png")
    command = ("fit", tmp_path / "photos", "--strategy", "supervised", "--budget", "1s", "--logger", "none")
    ran = run_cli(*command, "--out", tmp_path / "fit")
    assert ran.code == 0, ran.err
    page = parsed((tmp_path / "fit" / "MODEL_CARD.md").read_text())
    found = json.loads((tmp_path / "fit" / "result.json").read_text())
    items = "\n".join(page["items"])
    assert "Classes: <0>|, <1>|." in items
    assert f"macro-F1 {found['estimate']['macro_f1']:.3f}, 95% interval" in items
    assert "Nothing was tested." in items
