"""Learning curves of the pretrainings and settings of all trainings, for a comparison's report."""

import json
import math
from collections.abc import Iterable
from typing import Any

from fewlabels.compare.cells import Experiment
from fewlabels.compare.plan import Kind
from fewlabels.data.source import fingerprint
from fewlabels.fit.config import FitConfig
from fewlabels.ssl.collapse import evaluate_history
from fewlabels.ssl.methods import METHODS


def pretrainings(experiment: Experiment) -> dict[str, Any]:
    """Curves and collapse verdicts of every saved pretraining, and the probe curve of the first one, as JSON."""
    rows: list[dict[str, Any]] = []
    probe = None
    for method in experiment.settings.methods:
        for pair in range(experiment.settings.pairs):
            file = experiment.pretraining_folder(method, pair) / "state.json"
            if not file.is_file():
                continue
            state = json.loads(file.read_text())
            history, loss = state["guard"]["readings"], state["curve"]
            # The score is nan where no label could be held out.
            probed = [point for point in state["by_epoch"] if not math.isnan(_probe_score(point))]
            steps = [metrics["step"] for metrics in history]
            about = {"name": f"{method}, pair {pair + 1}", "method": method, "pair": pair}
            about |= {"epochs": state["decided"]["epochs"], "seconds": round(state["seconds"], 1)}
            curves = {"loss": {"steps": loss["steps"], "values": _rounded(loss["values"])}}
            for name, metric in (("rankme", "rank"), ("uniformity", "uniformity")):
                curves[name] = {"steps": steps, "values": _rounded(metrics[metric] for metrics in history)}
            about |= {"verdicts": state["guard"]["verdicts"], "monitored": evaluate_history(history)}
            rows.append({**about, **curves})
            if probe is None and probed:
                probe = {
                    "epochs": [point["epoch"] for point in probed],
                    "values": _rounded(map(_probe_score, probed)),
                }
    return {"pretrainings": rows, "probe": probe}


def how_measured(experiment: Experiment) -> list[tuple[str, str]]:
    """Settings that determine the scores, as pairs of a heading and a text."""
    settings, costs, config = experiment.settings, experiment.costs(), FitConfig()
    rows = [("images", f"{fingerprint(experiment.train)}; tested on {fingerprint(experiment.test)}")]
    rows += [("backbone", settings.backbone), ("precision", experiment.precision)]
    rows += [("threads", f"{experiment.threads()} per training")]
    for method in settings.methods:
        limit, epochs = settings.seconds("pretrain"), experiment.epochs(method)
        rows.append((method, f"{epochs} epochs (time limit {limit:.0f} s); {METHODS[method].settings}"))
    rows.append(("pretraining views", str(experiment.pretrain_views)))
    trained: tuple[tuple[Kind, Any], ...] = (("supervised", config.supervised), ("finetune", config.finetune))
    for kind, of_kind in trained:
        limit = experiment.time_limit(kind)
        steps = min(of_kind.max_steps, int(limit / costs.supervised_step))
        limits = f"{steps:,} steps (time limit {limit:.0f} s, at most {of_kind.max_steps:,} steps)"
        rows.append((kind, f"{limits}; {of_kind.loss}; {of_kind.optimizer}"))
    rows.append(("fit", f"time limit {experiment.time_limit('fit'):.0f} s, including cross-validation"))
    rows.append(("views of labelled images", "; ".join(map(str, experiment.fit_views))))
    return rows


def _probe_score(point: dict[str, float]) -> float:
    return point["knn_cv_macro_f1"]


def _rounded(values: Iterable[float]) -> list[float]:
    """Values with five significant digits, which are enough for a curve."""
    return [float(f"{value:.5g}") for value in values]
