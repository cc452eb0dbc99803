import json

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels._internal.tensors import read_weights
from fewlabels.backbones.weights import load_classifier
from fewlabels.tutorial.run import result
from fewlabels.tutorial.summary import ExperimentSummary, claims, summarise


def test_article_run_writes_every_figure_and_table_as_a_file(tiny_run):
    folder = tiny_run.folder
    for picture in ("train_grid", "test_grid", "loss_curves", "umap"):
        with Image.open(folder / f"{picture}.png") as image:
            assert np.asarray(image.convert("L")).std() > 20, f"{picture} looks empty"
    for file in ("report.html", "umap.html", "result.json", "classification_reports.txt", "simclr_against_simsiam.md"):
        assert (folder / file).stat().st_size > 100
    assert "Ankle boot" in (folder / "umap.html").read_text()
    assert "precision" in (folder / "classification_reports.txt").read_text()


def test_article_run_has_a_row_for_every_experiment_and_seed(tiny_run):
    rows = json.loads((tiny_run.folder / "result.json").read_text())["rows"]
    seeds = {}
    for row in rows:
        seeds.setdefault(row["arm"], []).append(row["seed"])
        assert 0 <= row["macro_f1"] <= 1
        assert (tiny_run.folder / "weights" / f"{row['arm']}-seed{row['seed']}.safetensors").is_file()
    assert seeds.pop("supervised-60000") == [0]
    assert len(seeds) == 5
    assert all(of_experiment == [0, 1] for of_experiment in seeds.values())


def test_article_run_reads_finished_experiments_from_their_files(tiny_run):
    written = {path: path.stat().st_mtime_ns for path in tiny_run.folder.glob("arms/*.json")}
    first = json.loads((tiny_run.folder / "result.json").read_text())
    again = result(tiny_run, "fewlabels article", quick=True)
    assert {path: path.stat().st_mtime_ns for path in tiny_run.folder.glob("arms/*.json")} == written
    assert again["rows"] == first["rows"]


def test_saved_classifier_of_a_whole_run_has_the_pretrained_weights(tiny_run):
    """It compares the files of a run, and so covers all steps between pretraining and saving."""
    simsiam = read_weights(tiny_run.pretraining("simsiam") / "epoch-2" / "backbone.safetensors")[0]
    intended = load_classifier(tiny_run.folder / "weights" / "frozen-as-intended-seed0.safetensors")
    printed = load_classifier(tiny_run.folder / "weights" / "frozen-as-printed-seed0.safetensors")
    for name, parameter in intended.backbone.named_parameters():
        assert torch.equal(parameter, simsiam[name])
        if name.endswith("weight") and parameter.ndim == 4:
            assert not torch.equal(printed.backbone.get_parameter(name), simsiam[name])


def summary(name: str, macro_f1: float, **other) -> ExperimentSummary:
    values = {"labels": 1000, "epochs": 100, "pretrain_epochs": 0, "spread": None, "seeds": 1, "seconds": 1.0}
    return ExperimentSummary(name=name, title=name, macro_f1=macro_f1, **{**values, **other})


@pytest.mark.parametrize(("few", "holds"), [(0.60, True), (0.80, False)])
def test_claims_hold_or_not_by_the_scores(few, holds):
    summaries = [
        summary("supervised-60000", 0.90, labels=60_000),
        summary("supervised-1000", few),
        summary("frozen-as-printed", 0.70),
        summary("frozen-as-intended", 0.79),
    ]
    drop, printed, intended = claims(summaries, quick=False)
    assert ("The claim holds." in drop) is holds  # a third, or a ninth, of 0.90
    assert ("The claim holds." in printed) is holds  # 0.70 over 0.60 is +16.7%
    assert ("The claim holds." in intended) is holds
    assert f"{100 * (0.90 - few):.1f} points" in drop
    assert all("Too few epochs" in sentence for sentence in claims(summaries, quick=True))


def test_summarise_computes_mean_and_standard_deviation_over_seeds():
    row = {"title": "t", "labels": 1, "epochs": 1, "pretrain_epochs": 0, "seconds": 2.0}
    rows = [{**row, "arm": "a", "macro_f1": f} for f in (0.1, 0.2, 0.3)] + [{**row, "arm": "b", "macro_f1": 0.5}]
    a, b = summarise(rows)
    assert a.macro_f1 == pytest.approx(0.2)
    assert a.spread == pytest.approx(0.1)
    assert a.seeds == 3
    assert a.macro_f1_text == "0.2000 ± 0.1000"
    assert b.spread is None
    assert b.macro_f1_text == "0.5000"
