"""Write measured figures from ``benchmarks/results`` into README and docs."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.correlations import correlation
from benchmarks.harness import RESULTS
from benchmarks.ratios import article_rows, ratio
from benchmarks.scale import (
    COLOUR,
    FEATURE_BYTES,
    GRAY,
    IMAGES,
    MACHINES,
    WORKERS,
    duration,
    gigabytes,
    least_seconds,
    peak_gib,
    rate,
)
from benchmarks.worth import labels_needed
from fewlabels._internal.files import atomic_write
from fewlabels.compare.plan import CompareSettings
from fewlabels.features.extractor import FeatureConfig
from fewlabels.fit.config import ScheduleConfig
from fewlabels.metrics.paired_tests import sign_flip_p
from fewlabels.tutorial.arms import ArticlePlan
from fewlabels.tutorial.summary import ExperimentSummary, claims, summarise

ROOT = Path(__file__).parent.parent
SPEED_PLOT = ROOT / "docs" / "pretrain_speed.svg"
LABELS_PLOT = ROOT / "docs" / "labels.svg"

LINE_COLOURS = ("#bab0ac", "#f28e2b", "#59a14f", "#4e79a7")
"""Colours of the lines in the plot of labels."""

NOT_MEASURED = "Not measured yet."
"""Content of a block whose result file has no rows."""


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a result file."""
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return found


def machine(name: str) -> str:
    """Return the machine of the last run that added rows to a result file, as text."""
    about = json.loads((RESULTS / f"{name}.json").read_text())["machine"]
    return f"{about['cores']} cores of an {about['cpu']}"


def group_by(found: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return rows by their values in these columns; groups are in the order of their first row."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def has_results(name: str) -> bool:
    """Return True if there is a result file of this name."""
    return (RESULTS / f"{name}.json").is_file()


def table(head: str, align: str, lines: list[list[str]]) -> str:
    """Return a Markdown table; ``align`` has l or r for each column."""
    rule = "|".join({"l": "---", "r": "---:"}[side] for side in align)
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def mean_and_spread(seeds: list[dict[str, Any]], name: str = "macro_f1") -> str:
    """Return mean and standard deviation of a column as text, from rows that differ by the seed."""
    values = [row[name] for row in seeds]
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def article_summaries() -> list[ExperimentSummary]:
    """Return the summaries of the experiments in ``article.json``, in the tutorial's order."""
    titles = {experiment.name: experiment.title for experiment in ArticlePlan().experiments(60_000)}
    summaries = summarise([{**row, "title": titles[row["arm"]]} for row in rows("article")])
    by_name = {summary.name: summary for summary in summaries}
    return [by_name[name] for name in titles]


def article_table() -> str:
    """Return a table with the scores of the tutorial's experiments."""
    return table(
        "experiment | labels | epochs | pretraining epochs | macro-F1",
        "lrrrr",
        [
            [each.title, f"{each.labels:,}", str(each.epochs), str(each.pretrain_epochs), each.macro_f1_text]
            for each in article_summaries()
        ],
    )


def article_claims() -> str:
    """Return the tutorial's claims with the measured scores, as a Markdown list."""
    return "\n".join(f"- {claim}" for claim in claims(article_summaries(), quick=False))


SPEED_TITLES = {
    "ours": "fewlabels pretrain",
    "floor-compiled": "bare step, compiled",
    "floor-compiled-channels-last": "bare step, compiled, channels last",
    "floor-eager": "bare step, eager",
    "floor-eager-channels-last": "bare step, eager, channels last",
    "article": "the tutorial's script",
    "lightly": "lightly's pipeline",
    "ours, rgb-small": "fewlabels pretrain, `rgb-small`",
    "ours, randaugment": "fewlabels pretrain, `randaugment`",
}
"""Title of each pipeline of ``pretrain_speed.json``."""


def speeds() -> list[tuple[str, dict[str, Any]]]:
    """Return title and row of each pipeline with the tutorial's network, the fastest first."""
    of_article = article_rows(rows("pretrain_speed"))
    found = [(title, of_article[what]) for what, title in SPEED_TITLES.items() if what in of_article]
    return sorted(found, key=lambda pair: -pair[1]["images_per_second"])


def speed_table() -> str:
    """Return a table with images per second, and the ratio of our speed to each."""
    by_name = article_rows(rows("pretrain_speed"))
    return table(
        "SimSiam, the tutorial's network, batch 256 | images/s | fewlabels / this pipeline",
        "lrr",
        [[title, f"{row['images_per_second']:,.0f}", f"{ratio(by_name, row['what']):.2f}"] for title, row in speeds()],
    )


def resnet_table() -> str:
    """Return a table with images per second of ResNet-18 on RGB images."""
    found = [row for row in rows("pretrain_speed") if row["backbone"] == "resnet18"]
    return table(
        "SimSiam, ResNet-18, 32x32 RGB, batch 64 | images/s",
        "lr",
        [[SPEED_TITLES[row["what"]], f"{row['images_per_second']:.1f}"] for row in found],
    )


def view_table() -> str:
    """Return a table with milliseconds per view of a batch, by recipe and library."""
    lines = []
    for (recipe,), found in group_by(rows("view_cost"), "recipe").items():
        libraries = {row["library"]: row for row in found}
        shape = [libraries["ours"]["batch"], *libraries["ours"]["shape"]]
        each = [f"{libraries[name]['milliseconds']:.1f}" for name in ("ours", "kornia", "torchvision")]
        lines.append([f"`{recipe}`", "x".join(map(str, shape)), *each])
    return table("recipe | batch | fewlabels, ms | kornia, ms | torchvision v2, ms", "llrrr", lines)


def view_fraction() -> str:
    """Return a sentence with the fraction of a training step that its views take."""
    cost = {row["library"]: row["milliseconds"] for row in rows("view_cost") if row["recipe"] == "gray-small"}
    views = 2 * cost["ours"]
    step = cost["one compiled step of the article's network"]
    return f"The two `gray-small` views take {views / (views + step):.1%} of a training step of the tutorial's network."


def resume_table() -> str:
    """Return a table with seconds to start, to resume, and to save a checkpoint."""
    seconds = {(row["backbone"], row["what"]): row["seconds"] for row in rows("resume_time")}
    lines = [
        [backbone, *(f"{seconds[backbone, what]:.2f}" for what in ("start", "resume", "checkpoint"))]
        for backbone in ("article", "resnet18")
    ]
    head = "backbone | new run until its first step is done, s | resumed run, s | one checkpoint, s"
    return table(head, "lrrr", lines)


def memory_table() -> str:
    """Return a table with peak memory by number of images."""
    lines = [[f"{row['images']:,}", f"{row['data_mib']:,.0f}", f"{row['peak_mib']:,.0f}"] for row in rows("memory")]
    return table("images of 28x28 pixels | file, MiB | peak memory of the run, MiB", "rrr", lines)


def collapse_summary() -> str:
    """Return sentences with the detection rate and the false alarms of the collapse monitor."""
    found = rows("collapse")
    faulty, healthy = ([row for row in found if row["collapsed"] == fault] for fault in (True, False))
    in_time = [row for row in faulty if row["found"] and row["epoch_found"] <= 1]
    correct = [row for row in faulty if row["cause_named"] == row["cause_planted"]]
    alarms = [row for row in healthy if row["found"]]
    return (
        f"The monitor finds {len(in_time)} of {len(faulty)} faulty runs within an epoch, and names the correct cause "
        f"in {len(correct)}. It gives {len(alarms)} false alarms in {len(healthy)} healthy runs. These runs have other "
        "seeds than the runs on which the thresholds were set."
    )


CASE_TITLES = {"as it comes": "default settings", "four images, over and over": "four images, repeated"}
"""Titles of cases of ``collapse.json``; other cases have their name as title."""


def collapse_table() -> str:
    """Return a table with the planted faults and the verdicts of the collapse monitor."""
    lines = []
    for (case, method), seeds in group_by(rows("collapse"), "case", "method").items():
        kinds = sorted({row.get("kind") or "none" for row in seeds})
        causes = sorted({row["cause_named"] or "" for row in seeds})
        steps = [str(row["steps"]) for row in seeds if row["found"]]
        scores = [f"{row['knn_macro_f1']:.3f}" for row in seeds if "knn_macro_f1" in row]
        line = [
            CASE_TITLES.get(case, case),
            f"`{method}`",
            ", ".join(kinds),
            ", ".join(causes),
            ", ".join(steps),
            ", ".join(scores),
        ]
        lines.append(line)
    return table("run | method | verdict | cause | found at step | macro-F1", "llllrr", lines)


def monitor_cost() -> str:
    """Return a sentence with the fraction of a run that the checks of the collapse monitor take."""
    fractions = [f"{row['share']:.1%} with `{row['method']}`" for row in rows("guard_cost")]
    return f"Fraction of a run that the checks take: {', '.join(fractions)} (the tutorial's network, batches of 256)."


def methods_table() -> str:
    """Return a table with macro-F1 by method after equal wall time, the best first."""
    if not has_results("methods"):
        return NOT_MEASURED

    by_method = group_by(rows("methods"), "method").items()
    ordered = sorted(by_method, key=lambda item: -mean(row["probe_macro_f1"] for row in item[1]))
    lines = [
        [
            f"`{method}`" if method != "untrained" else method,
            f"{mean(row['epochs'] for row in seeds):.0f}",
            mean_and_spread(seeds, "probe_macro_f1"),
            mean_and_spread(seeds, "knn_macro_f1"),
            f"{mean(row['rankme'] for row in seeds):.0f}",
            str(len(seeds)),
        ]
        for (method,), seeds in ordered
    ]
    found = table("method | epochs | linear probe | k-NN probe | RankMe | seeds", "lrrrrr", lines)
    if min(len(seeds) for _, seeds in by_method) < 3:
        found += "\n\nIncomplete: fewer than three seeds cannot rank methods."
    return found


def scores_table() -> str:
    """Return a table with rank correlations between label-free scores and the linear probe."""
    if not has_results("scores"):
        return NOT_MEASURED
    found = rows("scores")
    names = list(found[0]["scores"])
    both = {name: [correlation(found, name, within) for within in (True, False)] for name in names}
    lines = [
        [name, *(f"{each.rho:.2f} ({each.low:.2f} to {each.high:.2f})" for each in both[name])]
        for name in sorted(names, key=lambda name: -both[name][0].rho)
    ]
    runs = [each.runs for each in both[names[0]]]
    return table(f"score | within methods ({runs[0]} runs) | over all runs ({runs[1]})", "lrr", lines)


def label_rows(*groups: str) -> list[dict[str, Any]]:
    """Return the rows of ``labels.json`` in these groups; without arguments, those of the hard cases."""
    found = rows("labels") if has_results("labels") else []
    return [row for row in found if (row["group"] in groups if groups else row["group"] not in ("main", "curve"))]


def gains_by_seed(found: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> str:
    """Return the gains over the baseline's rows with the same seed, in points of macro-F1, as text."""
    pairs = {row["seed"]: row["macro_f1"] for row in baseline}
    gains = [100 * (row["macro_f1"] - pairs[row["seed"]]) for row in found if row["seed"] in pairs]
    return ", ".join(f"{gain:+.1f}" for gain in gains)


def labels_table() -> str:
    """Return a table with macro-F1 by strategy and backbone, for the group with the largest budgets."""
    if not label_rows("main"):
        return NOT_MEASURED
    by_setting = group_by(label_rows("main"), "labels", "strategy", "backbone", "minutes")
    supervised = group_by([row for row in label_rows("main") if row["strategy"] == "supervised"], "labels", "backbone")
    lines = []
    for (labels, strategy, backbone, minutes), seeds in sorted(
        by_setting.items(), key=lambda item: (-item[0][0], item[0][3])
    ):
        figures = [mean_and_spread(seeds, name) for name in ("macro_f1", "ece")]
        gain = "" if strategy == "supervised" else gains_by_seed(seeds, supervised.get((labels, backbone), []))
        lines.append([f"{labels:,}", strategy, f"`{backbone}`", str(minutes), *figures, str(len(seeds)), gain])
    head = "labels | strategy | backbone | budget, minutes | macro-F1 | calibration error | seeds"
    return table(f"{head} | points gained, by seed", "rllrrrrr", lines)


def curve_table() -> str:
    """Return a table with macro-F1 by number of labels and strategy."""
    if not label_rows("curve"):
        return NOT_MEASURED
    found = group_by(label_rows("curve"), "labels", "strategy")
    counts, strategies = sorted({labels for labels, _ in found}), list(dict.fromkeys(name for _, name in found))
    lines = [
        [
            f"{labels:,}",
            *(mean_and_spread(found[labels, name]) if (labels, name) in found else "" for name in strategies),
        ]
        for labels in counts
    ]
    return table(" | ".join(["labels", *strategies]), "r" * (len(strategies) + 1), lines)


def has_other_choice(found: list[dict[str, Any]]) -> bool:
    """Return True if a fit in these rows chose another candidate than supervised training."""
    return any(row["chosen"] != "supervised" for row in found)


def labels_worth() -> str:
    """Return a list that compares the best strategy with supervised training on more labels."""
    curve = group_by(label_rows("curve"), "strategy", "labels")
    means = {key: mean(row["macro_f1"] for row in seeds) for key, seeds in curve.items()}
    supervised = {labels: score for (strategy, labels), score in means.items() if strategy == "supervised"}
    if len(supervised) < 2:
        return NOT_MEASURED
    sentences = []
    for labels in sorted(supervised):
        scores = [(score, strategy) for (strategy, n), score in means.items() if n == labels]
        if len(scores) < 2:
            continue  # other strategies are not measured yet
        score, best = max(
            each for each in scores if each[1] == "supervised" or has_other_choice(curve[each[1], labels])
        )
        needed = float(f"{labels_needed(supervised, score):.2g}")  # a few draws give no more digits
        worth = f"more than {max(supervised):,}" if needed == float("inf") else f"about {needed:,.0f}"
        if best == "supervised" or needed <= labels:
            sentences.append(f"- With {labels:,} labels no strategy scores above supervised training.")
        else:
            sentences.append(f"- {labels:,} labels with `{best}` match {worth} labels with supervised training.")
    return "\n".join(sentences)


GROUP_TITLES = {"foreign images": "noise among the unlabelled images"}
"""Titles of groups of ``labels.json``; other groups have their name as title."""


def hard_table() -> str:
    """Return a table with macro-F1 for uneven labels and for noise among the unlabelled images."""
    found = group_by(label_rows(), "group", "strategy")
    if not found:
        return NOT_MEASURED
    lines = []
    for group in dict.fromkeys(group for group, _ in found):
        supervised, other = (found.get((group, name), []) for name in ("supervised", "selftrain"))
        scores = [mean_and_spread(each) if each else "" for each in (supervised, other)]
        lines.append([GROUP_TITLES.get(group, group), *scores, gains_by_seed(other, supervised)])
    return table("labels | supervised | selftrain | points gained, by draw", "lrrr", lines)


def labels_estimate() -> str:
    """Return a sentence that compares the estimates of ``fit`` with test scores."""
    found = [row for row in label_rows("curve") if "estimate" in row]
    if not found:
        return NOT_MEASURED
    covered = [row for row in found if row["estimate_low"] <= row["macro_f1"] <= row["estimate_high"]]
    off = mean(abs(row["estimate"] - row["macro_f1"]) for row in found)
    return (
        f"In {len(covered)} of {len(found)} fits of the curve ({len(covered) / len(found):.0%}), the 95% interval "
        f"contains the test macro-F1. The estimate is off by {100 * off:.1f} points on average."
    )


def suggest_gains() -> dict[int, list[float]]:
    """Return the gains of suggested over random labels, in points of macro-F1 by seed, for each number of labels."""
    scores = {(row["what"], row["labels"], row["seed"]): row["macro_f1"] for row in rows("suggest")}
    gains: dict[int, list[float]] = {}
    for what, labels, seed in sorted(scores):
        if what == "suggest" and ("random", labels, seed) in scores:
            gain = 100 * (scores[what, labels, seed] - scores["random", labels, seed])
            gains.setdefault(labels, []).append(gain)
    return gains


CHECK_TITLES = {
    "corrupt": "unreadable files",
    "duplicates": "duplicates, some in another format or with another label",
    "near-duplicates": "near-duplicates",
    "leaked copies": "training images that are copies of test images",
    "flipped labels, as many of the first doubts": "wrong labels, among as many top-ranked label issues",
    "flipped labels, all doubts": "wrong labels, among all label issues",
    "foreign": "images of no class, as outliers",
    "constant": "constant images",
}
"""Titles of the kinds of planted faults in ``check.json``."""


def check_table() -> str:
    """Return a table with the planted faults that ``check`` finds."""
    if not has_results("check"):
        return NOT_MEASURED
    found = group_by(rows("check"), "what")
    lines = [
        [f"{found[what,][0]['planted']} {title}", *(_range(found[what,], key) for key in ("found", "besides"))]
        for what, title in CHECK_TITLES.items()
    ]
    return table("planted in each folder | found | also reported", "lrr", lines)


def check_untouched() -> str:
    """Return a sentence with the near-duplicates that ``check`` reports in Fashion-MNIST itself."""
    if not has_results("check"):
        return NOT_MEASURED
    found = group_by(rows("check"), "what")
    (some,), (test,) = found["untouched",], found["test",]
    return (
        f"Of the first {some['images']:,} training images of Fashion-MNIST, {some['besides']} are reported as "
        f"near-duplicates. Of the {test['images']:,} test images, {test['besides']} are reported as near-duplicates of "
        "training images."
    )


def decode_speed() -> str:
    """Return a sentence with the speed of decoding image files."""
    if not has_results("decode"):
        return NOT_MEASURED
    row = rows("decode")[-1]
    return (
        f"{row['images']:,} PNG files of 28x28 pixels: {row['files_per_second']:,} files per second on "
        f"{machine('decode')}. The next run takes {row['again_seconds']:.1f} s."
    )


def _range(found: list[dict[str, Any]], key: str) -> str:
    low, high = (limit(row[key] for row in found) for limit in (min, max))
    return str(low) if low == high else f"{low} to {high}"


def suggest_table() -> str:
    """Return a table with macro-F1 for suggested and for random labels."""
    if not has_results("suggest"):
        return NOT_MEASURED
    found = group_by(rows("suggest"), "what", "labels")
    lines = [
        [
            f"{labels:,}",
            *(mean_and_spread(found[what, labels]) for what in ("random", "suggest")),
            ", ".join(f"{gain:+.1f}" for gain in gains),
            f"{sign_flip_p(np.array(gains)):.3f}",
        ]
        for labels, gains in suggest_gains().items()
    ]
    return table("labels | random | suggested | gain in points, by seed | p", "rrrrr", lines)


def suggest_worth() -> str:
    """Return a sentence with the number of suggested labels that match the largest number of random ones."""
    if not has_results("suggest"):
        return NOT_MEASURED
    means = {
        key: mean(row["macro_f1"] for row in seeds)
        for key, seeds in group_by(rows("suggest"), "what", "labels").items()
    }
    random, suggested = (
        {n: score for (name, n), score in means.items() if name == what} for what in ("random", "suggest")
    )
    most = max(suggested)
    needed = labels_needed(suggested, random[most])
    if needed >= most:
        return f"{most:,} suggested labels do not score above {most:,} random ones."
    return f"{needed:,.0f} suggested labels match {most:,} random ones, by interpolation between measured numbers."


def compare_verdict() -> str:
    """Return the verdict of the comparison, and a sentence with its duration."""
    found = [row for row in rows("compare") if row["what"] == "command"] if has_results("compare") else []
    if not found:
        return NOT_MEASURED
    row = found[0]
    return (
        f"> {row['verdict']}\n\nThis Fashion-MNIST result took {row['seconds'] / 60:.0f} minutes on "
        f"{machine('compare')}, at commit {row['commit'][:7]} (`benchmarks/results/compare.json`). Repeating the "
        f"command takes {row['again_seconds']:.0f} seconds."
    )


def compare_table() -> str:
    """Return a table with macro-F1 of each candidate, and its difference to supervised training."""
    found = [row for row in rows("compare") if row["what"] == "arm"] if has_results("compare") else []
    if not found:
        return NOT_MEASURED
    lines = []
    for row in sorted(found, key=lambda row: -row["mean"]):
        points = [f"{100 * row[end]:+.1f}" for end in ("difference", "low", "high")] if "difference" in row else []
        claim = [""] * 3
        if points:
            claim = [f"{points[0]} ({points[1]} to {points[2]})", f"{row['p_adjusted']:.3f}", row["verdict"]]
        lines.append([f"`{row['arm']}`", f"{row['mean']:.4f} ± {row['spread']:.4f}", *claim])
    head = "candidate | macro-F1, 6 pairs | points above `supervised` (95%) | p, adjusted | verdict"
    return table(head, "lrrrl", lines)


def ray_cost() -> str:
    """Return sentences with the overhead of Ray on one machine."""
    if not has_results("ray_cost"):
        return NOT_MEASURED
    cost = {row["what"]: row for row in rows("ray_cost")}
    seconds = {what: row["seconds"] for what, row in cost.items()}
    return (
        f"On one core a local Ray starts in {seconds['start']:.1f} s and stops in {seconds['stop']:.1f} s. A worker's "
        f"first task takes {seconds['first task']:.1f} s to start and import, each later one "
        f"{1000 * seconds['task']:.0f} ms. Fashion-MNIST's images are {cost['images']['mib']:.0f} MiB, sent once per "
        f"machine. A backbone of the tutorial is {cost['backbone']['mib']:.2f} MiB, sent to each trial that starts "
        "from it."
    )


def export_table() -> str:
    """Return a table with images per second of the exported file and of the model in torch."""
    found = rows("export_speed") if has_results("export_speed") else []
    if not found:
        return NOT_MEASURED
    lines = [
        [
            f"`{row['backbone']}`",
            str(row["batch"]),
            *(f"{row[f'{name}_images_per_second']:,.0f}" for name in ("eager", "onnxruntime")),
            f"{row['ratio']:.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})",
        ]
        for row in found
    ]
    return table("backbone | batch | torch, images/s | onnxruntime, images/s | ratio (range of rounds)", "lrrrr", lines)


def scale_workers() -> str:
    """Return a table with the shortest training time of a default comparison, by number of workers."""
    settings = CompareSettings()
    lines = [[str(workers), f"{least_seconds(settings, workers) / 60:.1f}"] for workers in WORKERS]
    return table("parallel trainings | shortest training time, minutes", "rr", lines)


def scale_images() -> str:
    """Return a table with storage, memory and time of an epoch, by number of images."""
    speeds, memory, max_graph_images = rows("pretrain_speed"), rows("memory"), ScheduleConfig().max_graph_images
    lines = [
        [
            f"{images:,}",
            gigabytes(images * GRAY),
            f"{peak_gib(memory, images):.1f}",
            duration(images / rate(speeds, "article")),
            gigabytes(images * COLOUR),
            duration(images / rate(speeds, "resnet18")),
            gigabytes(images * FeatureConfig().dimensions(graph=images <= max_graph_images) * FEATURE_BYTES),
        ]
        for images in IMAGES
    ]
    head = "images | 28x28 gray: file, GB | memory, GiB | an epoch, tutorial's network | 32x32 RGB: file, GB"
    return table(f"{head} | an epoch, ResNet-18 | features of `fit`, GB", "rrrrrrr", lines)


def scale_machines() -> str:
    """Return a table with the time of six pretrainings of one epoch, by number of machines."""
    speeds = rows("pretrain_speed")
    turns_of = {machines: -(-6 // machines) for machines in MACHINES}
    lines = [
        [
            str(machines),
            *(duration(turns * IMAGES[-1] / rate(speeds, backbone)) for backbone in ("article", "resnet18")),
        ]
        for machines, turns in turns_of.items()
    ]
    head = f"machines | six pretrainings, an epoch of {IMAGES[-1]:,} images each: tutorial's network | ResNet-18"
    return table(head, "rrr", lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "article table": article_table,
    "article claims": article_claims,
    "speed table": speed_table,
    "resnet table": resnet_table,
    "view table": view_table,
    "view fraction": view_fraction,
    "resume table": resume_table,
    "memory table": memory_table,
    "collapse summary": collapse_summary,
    "collapse table": collapse_table,
    "monitor cost": monitor_cost,
    "methods table": methods_table,
    "scores table": scores_table,
    "ray cost": ray_cost,
    "export table": export_table,
    "scale workers": scale_workers,
    "scale images": scale_images,
    "scale machines": scale_machines,
    "compare verdict": compare_verdict,
    "compare table": compare_table,
    "labels table": labels_table,
    "labels curve": curve_table,
    "labels worth": labels_worth,
    "labels hard": hard_table,
    "labels estimate": labels_estimate,
    "check table": check_table,
    "check untouched": check_untouched,
    "decode speed": decode_speed,
    "suggest table": suggest_table,
    "suggest worth": suggest_worth,
}
"""Functions that make the content of each block, by name."""


def documents() -> list[Path]:
    """Return the paths of README and the pages of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fill_blocks(text: str) -> str:
    """Return a document with new content in every block between ``<!-- name -->`` and ``<!-- end -->``."""
    for name, content in BLOCKS.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        if mark:
            text = before + mark + content() + "\n" + rest[rest.index("<!-- end -->") :]
    return text


def plot_speed(path: Path) -> None:
    """Plot images per second as bars with the range of the rounds; the SVG depends on the figures alone."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    for position, (title, row) in enumerate(reversed(speeds())):
        rate, rounds = row["images_per_second"], row["rounds"]
        colour = "#4e79a7" if row["what"] == "ours" else "#bab0ac"
        axis.barh(position, rate, color=colour, xerr=[[rate - min(rounds)], [max(rounds) - rate]], ecolor="#555555")
        axis.text(40, position, title, va="center", color="white" if row["what"] == "ours" else "black", fontsize=9)
    axis.set(yticks=[], xlabel="images per second: median of the rounds, with their range")
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_labels(path: Path) -> None:
    """Plot macro-F1 over the number of labels, with a line and the range of the draws for each strategy."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    found = group_by(label_rows("curve"), "strategy", "labels")
    for strategy, colour in zip(dict.fromkeys(name for name, _ in found), LINE_COLOURS, strict=False):
        by_labels = {labels: seeds for (name, labels), seeds in found.items() if name == strategy}
        points = sorted((labels, [row["macro_f1"] for row in seeds]) for labels, seeds in by_labels.items())
        labels = [labels for labels, _ in points]
        axis.plot(labels, [mean(scores) for _, scores in points], "o-", color=colour, label=strategy)
        low, high = ([end(scores) for _, scores in points] for end in (min, max))
        axis.fill_between(labels, low, high, color=colour, alpha=0.2)
    axis.set(xscale="log", xlabel="labels", ylabel="macro-F1: mean, range of draws")
    numbers = sorted({labels for _, labels in found})
    axis.set_xticks(numbers, [f"{labels:,}" for labels in numbers])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with rc_context({"svg.hashsalt": "fewlabels"}), atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    for page in documents():
        page.write_text(fill_blocks(page.read_text()))
    plot_speed(SPEED_PLOT)
    if label_rows("curve"):
        plot_labels(LABELS_PLOT)
