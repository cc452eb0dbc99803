"""How the trainings of a comparison went, and what decided them, for its report."""

import json
import math
from collections.abc import Iterable
from typing import Any

from fewlabels.compare.cells import Bench
from fewlabels.data.source import fingerprint
from fewlabels.fit.arms import FineTune, Supervised
from fewlabels.ssl.collapse import judged
from fewlabels.ssl.methods import METHODS


def pretrainings(bench: Bench) -> dict[str, Any]:
    """Curves and the guard's verdicts of every pretraining that is kept; and of the first, the probe's curve."""
    rows: list[dict[str, Any]] = []
    probe = None
    for method in bench.settings.methods:
        for pair in range(bench.settings.pairs):
            file = bench.pretraining_folder(method, pair) / "state.json"
            if not file.is_file():
                continue
            state = json.loads(file.read_text())
            readings, loss = state["guard"]["readings"], state["curve"]
            probed = [of for of in state["by_epoch"] if not math.isnan(_probed(of))]  # nothing could be held out
            steps = [reading["step"] for reading in readings]
            about = {"name": f"{method}, pair {pair + 1}", "method": method, "pair": pair}
            about |= {"epochs": state["decided"]["epochs"], "seconds": round(state["seconds"], 1)}
            curves = {"loss": {"steps": loss["steps"], "values": _short(loss["values"])}}
            for name, figure in (("rankme", "rank"), ("uniformity", "uniformity")):
                curves[name] = {"steps": steps, "values": _short(reading[figure] for reading in readings)}
            about |= {"verdicts": state["guard"]["verdicts"], "judged": judged(readings)}
            rows.append({**about, **curves})
            if probe is None and probed:
                probe = {"epochs": [of["epoch"] for of in probed], "values": _short(map(_probed, probed))}
    return {"pretrainings": rows, "probe": probe}


def how_measured(bench: Bench) -> list[tuple[str, str]]:
    """What decided the figures, as headings and words."""
    settings, paces = bench.settings, bench.paces()
    rows = [("images", f"{fingerprint(bench.train)}; tested on {fingerprint(bench.test)}")]
    rows += [("backbone", settings.backbone), ("precision", bench.precision)]
    rows += [("threads", f"{bench.threads()} a training")]
    for method in settings.methods:
        seconds = settings.seconds("pretrain")
        rows.append((method, f"{bench.epochs(method)} epochs (planned: {seconds:.0f} s); {METHODS[method].settings}"))
    rows.append(("views of pretraining", str(bench.pretrain_views)))
    for arm, planned in ((Supervised, bench.seconds_of("supervised")), (FineTune, bench.seconds_of("finetune"))):
        steps = min(arm.at_most, int(planned / paces[arm.name]))
        rows.append(
            (arm.name, f"{steps:,} steps (at most: {planned:.0f} s, {arm.at_most:,}); {arm.labels}; {arm.settings}")
        )
    rows.append(("fit", f"planned: {bench.seconds_of('fit'):.0f} s, its folds included"))
    rows.append(("views of the labels", "; ".join(map(str, bench.fit_views))))
    return rows


def _probed(point: dict[str, float]) -> float:
    return point["knn_cv_macro_f1"]


def _short(values: Iterable[float]) -> list[float]:
    """Five digits are enough for a curve."""
    return [float(f"{value:.5g}") for value in values]
