"""Write the measured figures into README and docs, so that none is typed by hand."""

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
from fewlabels._internal.files import written_whole
from fewlabels.compare.plan import CompareSettings
from fewlabels.features.extractor import kept
from fewlabels.metrics.paired_tests import sign_flip_p
from fewlabels.tutorial.arms import ArticlePlan
from fewlabels.tutorial.summary import ArmSummary, claims, summarise

ROOT = Path(__file__).parent.parent
SPEED_PLOT = ROOT / "docs" / "pretrain_speed.svg"
LABELS_PLOT = ROOT / "docs" / "labels.svg"

COLOURS = ("#bab0ac", "#f28e2b", "#59a14f", "#4e79a7")

NOT_YET = "Not measured yet."


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a result file."""
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return found


def machine(name: str) -> str:
    """What the rows of a result file were measured on."""
    about = json.loads((RESULTS / f"{name}.json").read_text())["machine"]
    return f"{about['cores']} cores of an {about['cpu']}"


def grouped(found: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by their values under these names, in the order of their first."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def measured(name: str) -> bool:
    """Whether a result file is there."""
    return (RESULTS / f"{name}.json").is_file()


def table(head: str, align: str, lines: list[list[str]]) -> str:
    """A Markdown table; ``align`` has l or r for each column."""
    rule = "|".join({"l": "---", "r": "---:"}[side] for side in align)
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def mean_and_spread(seeds: list[dict[str, Any]], name: str = "macro_f1") -> str:
    """Of rows that differ by the seed."""
    values = [row[name] for row in seeds]
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def measured_arms() -> list[ArmSummary]:
    """The arms of ``article.json``, in the tutorial's order."""
    titles = {arm.name: arm.title for arm in ArticlePlan().arms(60_000)}
    by_arm = {arm.arm: arm for arm in summarise([{**row, "title": titles[row["arm"]]} for row in rows("article")])}
    return [by_arm[name] for name in titles]


def article_table() -> str:
    """What the tutorial's arms give."""
    return table(
        "arm | labels | epochs | pretraining epochs | macro-F1",
        "lrrrr",
        [
            [arm.title, f"{arm.labels:,}", str(arm.epochs), str(arm.pretrain_epochs), arm.macro_f1_text]
            for arm in measured_arms()
        ],
    )


def article_claims() -> str:
    """The tutorial's claims as a Markdown list."""
    return "\n".join(f"- {claim}" for claim in claims(measured_arms(), quick=False))


SPEED_TITLES = {
    "ours": "fewlabels pretrain",
    "floor-compiled": "floor: bare step, compiled",
    "floor-compiled-channels-last": "floor: compiled, channels last",
    "floor-eager": "floor: bare step, eager",
    "floor-eager-channels-last": "floor: eager, channels last",
    "article": "the tutorial's script",
    "lightly": "lightly's pipeline",
}


def speeds() -> list[tuple[str, dict[str, Any]]]:
    """Title and row of each arm with the tutorial's network, fastest first."""
    of_article = article_rows(rows("pretrain_speed"))
    named = [(title, of_article[what]) for what, title in SPEED_TITLES.items()]
    return sorted(named, key=lambda pair: -pair[1]["images_per_second"])


def speed_table() -> str:
    """Images per second, and ours as a ratio."""
    by_arm = article_rows(rows("pretrain_speed"))
    return table(
        "SimSiam, the tutorial's network, batch 256 | images/s | ours is so many times it",
        "lrr",
        [[title, f"{row['images_per_second']:,.0f}", f"{ratio(by_arm, row['what']):.2f}"] for title, row in speeds()],
    )


def resnet_table() -> str:
    """ResNet-18 on RGB."""
    found = [row for row in rows("pretrain_speed") if row["backbone"] == "resnet18"]
    return table(
        "SimSiam, ResNet-18, 32x32 RGB, batch 64 | images/s",
        "lr",
        [[row["what"], f"{row['images_per_second']:.1f}"] for row in found],
    )


def view_table() -> str:
    """Milliseconds a view of a batch, by recipe and library."""
    lines = []
    for (recipe,), found in grouped(rows("view_cost"), "recipe").items():
        libraries = {row["library"]: row for row in found}
        shape = [libraries["ours"]["batch"], *libraries["ours"]["shape"]]
        each = [f"{libraries[name]['milliseconds']:.1f}" for name in ("ours", "kornia", "torchvision")]
        lines.append([f"`{recipe}`", "x".join(map(str, shape)), *each])
    return table("recipe | batch | ours, ms | kornia, ms | torchvision v2, ms", "llrrr", lines)


def view_share() -> str:
    """What the views cost of the step, as a sentence."""
    cost = {row["library"]: row["milliseconds"] for row in rows("view_cost") if row["recipe"] == "gray-small"}
    views = 2 * cost["ours"]
    step = cost["one compiled step of the article's network"]
    return f"Both `gray-small` views of a batch take {views / (views + step):.1%} of a step of the tutorial's network."


def resume_table() -> str:
    """Seconds to start, to resume, and of a checkpoint."""
    seconds = {(row["backbone"], row["what"]): row["seconds"] for row in rows("resume_time")}
    lines = [
        [backbone, *(f"{seconds[backbone, what]:.2f}" for what in ("start", "resume", "checkpoint"))]
        for backbone in ("article", "resnet18")
    ]
    head = "backbone | start to first step done, s | resume to first step done, s | one checkpoint, s"
    return table(head, "lrrr", lines)


def memory_table() -> str:
    """Peak memory by number of images."""
    lines = [[f"{row['images']:,}", f"{row['data_mib']:,.0f}", f"{row['peak_mib']:,.0f}"] for row in rows("memory")]
    return table("images of 28x28 | the file, MiB | peak memory of the run, MiB", "rrr", lines)


def collapse_summary() -> str:
    """What the guard found and missed, as sentences."""
    found = rows("collapse")
    wrong, well = ([row for row in found if row["collapsed"] == fault] for fault in (True, False))
    caught = [row for row in wrong if row["found"]]
    soon = [row for row in caught if row["epoch_found"] <= 1]
    named = [row for row in wrong if row["cause_named"] == row["cause_planted"]]
    alarms = [row for row in well if row["found"]]
    return (
        f"Of {len(wrong)} runs that were made to collapse, {len(soon)} were found within an epoch, and the cause was "
        f"named right in {len(named)}. In {len(well)} healthy runs it gave {len(alarms)} false alarms. The seeds are "
        "not those that the thresholds were set on."
    )


def collapse_table() -> str:
    """What was planted and what the guard called it."""
    lines = []
    for (case, method), seeds in grouped(rows("collapse"), "case", "method").items():
        kinds = sorted({row.get("kind") or "none" for row in seeds})
        causes = sorted({row["cause_named"] or "" for row in seeds})
        steps = [str(row["steps"]) for row in seeds if row["found"]]
        scores = [f"{row['knn_macro_f1']:.3f}" for row in seeds if "knn_macro_f1" in row]
        line = [case, f"`{method}`", ", ".join(kinds), ", ".join(causes), ", ".join(steps), ", ".join(scores)]
        lines.append(line)
    return table("run | method | verdict | cause | at step | F1", "llllrr", lines)


def guard_cost() -> str:
    """What the looks cost, as a sentence."""
    shares = [f"{row['share']:.1%} with `{row['method']}`" for row in rows("guard_cost")]
    return f"The looks take {', '.join(shares)} of a run with the tutorial's network and batches of 256."


def methods_table() -> str:
    """Macro-F1 by method at equal wall time, best first."""
    if not measured("methods"):
        return NOT_YET

    by_method = grouped(rows("methods"), "method").items()
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
    found = table("method | epochs | linear probe | nearest neighbours | RankMe | seeds", "lrrrrr", lines)
    if min(len(seeds) for _, seeds in by_method) < 3:
        found += "\n\nUnfinished: with fewer than three seeds this orders no methods."
    return found


def scores_table() -> str:
    """How well label-free scores foretell the probe, best within methods first."""
    if not measured("scores"):
        return NOT_YET
    found = rows("scores")
    names = list(found[0]["scores"])
    both = {name: [correlation(found, name, within) for within in (True, False)] for name in names}
    lines = [
        [name, *(f"{each.rho:.2f} ({each.low:.2f} to {each.high:.2f})" for each in both[name])]
        for name in sorted(names, key=lambda name: -both[name][0].rho)
    ]
    runs = [each.runs for each in both[names[0]]]
    return table(f"score | within methods ({runs[0]} runs) | over all ({runs[1]} runs)", "lrr", lines)


def label_rows(*groups: str) -> list[dict[str, Any]]:
    """Those of ``labels.json`` in these groups; with none named, those of the hard cases."""
    found = rows("labels") if measured("labels") else []
    return [row for row in found if (row["group"] in groups if groups else row["group"] not in ("main", "curve"))]


def gained(found: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> str:
    """Points of macro-F1 above the baseline's row of the same seed, row by row."""
    pairs = {row["seed"]: row["macro_f1"] for row in baseline}
    gains = [100 * (row["macro_f1"] - pairs[row["seed"]]) for row in found if row["seed"] in pairs]
    return ", ".join(f"{gain:+.1f}" for gain in gains)


def labels_table() -> str:
    """Macro-F1 by strategy and backbone, for the groups that were given more time."""
    if not label_rows("main"):
        return NOT_YET
    of_arms = grouped(label_rows("main"), "labels", "strategy", "backbone", "minutes")
    supervised = grouped([row for row in label_rows("main") if row["strategy"] == "supervised"], "labels", "backbone")
    lines = []
    for (labels, strategy, backbone, minutes), seeds in sorted(of_arms.items(), key=lambda of: (-of[0][0], of[0][3])):
        figures = [mean_and_spread(seeds, name) for name in ("macro_f1", "ece")]
        gain = "" if strategy == "supervised" else gained(seeds, supervised.get((labels, backbone), []))
        lines.append([f"{labels:,}", strategy, f"`{backbone}`", str(minutes), *figures, str(len(seeds)), gain])
    head = "labels | strategy | backbone | budget, minutes | macro-F1 | calibration error | seeds"
    return table(f"{head} | points gained, by seed", "rllrrrrr", lines)


def curve_table() -> str:
    """Macro-F1 by number of labels and strategy."""
    if not label_rows("curve"):
        return NOT_YET
    found = grouped(label_rows("curve"), "labels", "strategy")
    counts, strategies = sorted({labels for labels, _ in found}), list(dict.fromkeys(of for _, of in found))
    lines = [
        [f"{labels:,}", *(mean_and_spread(found[labels, of]) if (labels, of) in found else "" for of in strategies)]
        for labels in counts
    ]
    return table(" | ".join(["labels", *strategies]), "r" * (len(strategies) + 1), lines)


def took_another(found: list[dict[str, Any]]) -> bool:
    """Whether in any of these rows; where the baseline was taken in all, it was only trained once more."""
    return any(row["chosen"] != "supervised" for row in found)


def labels_worth() -> str:
    """What the best strategy's labels are worth, a line for each number of them."""
    curve = grouped(label_rows("curve"), "strategy", "labels")
    means = {key: mean(row["macro_f1"] for row in seeds) for key, seeds in curve.items()}
    supervised = {labels: score for (of, labels), score in means.items() if of == "supervised"}
    if len(supervised) < 2:
        return NOT_YET
    said = []
    for labels in sorted(supervised):
        scores = [(score, of) for (of, n), score in means.items() if n == labels]
        if len(scores) < 2:
            continue  # the others are not measured yet
        score, best = max(of for of in scores if of[1] == "supervised" or took_another(curve[of[1], labels]))
        needed = float(f"{labels_needed(supervised, score):.2g}")  # no more digits than a few draws can tell
        worth = f"more than {max(supervised):,}" if needed == float("inf") else f"about {needed:,.0f}"
        if best == "supervised" or needed <= labels:
            said.append(f"- With {labels:,} labels no strategy is above supervised training.")
        else:
            said.append(f"- With {labels:,} labels, `{best}` is worth {worth} labels of supervised training.")
    return "\n".join(said)


def hard_table() -> str:
    """Macro-F1 where labels are uneven or images foreign."""
    found = grouped(label_rows(), "group", "strategy")
    if not found:
        return NOT_YET
    lines = []
    for group in dict.fromkeys(group for group, _ in found):
        supervised, other = (found.get((group, of), []) for of in ("supervised", "selftrain"))
        scores = [mean_and_spread(each) if each else "" for each in (supervised, other)]
        lines.append([group, *scores, gained(other, supervised)])
    return table("labels | supervised | selftrain | points gained, by draw", "lrrr", lines)


def labels_foretold() -> str:
    """How often the interval before the test held what the test gave, as a sentence."""
    found = [row for row in label_rows("curve") if "estimate" in row]
    if not found:
        return NOT_YET
    held = [row for row in found if row["estimate_low"] <= row["macro_f1"] <= row["estimate_high"]]
    off = mean(abs(row["estimate"] - row["macro_f1"]) for row in found)
    return (
        f"Of {len(found)} fits of the curve, the interval foretold from the labels held the macro-F1 of the test in "
        f"{len(held)} ({len(held) / len(found):.0%}); the middle of it was off by {100 * off:.1f} points on average."
    )


def suggest_gains() -> dict[int, list[float]]:
    """By number of labels: points of macro-F1 that suggested labels are above random ones, seed by seed."""
    scores = {(row["what"], row["labels"], row["seed"]): row["macro_f1"] for row in rows("suggest")}
    gains: dict[int, list[float]] = {}
    for what, labels, seed in sorted(scores):
        if what == "suggest" and ("random", labels, seed) in scores:
            gain = 100 * (scores[what, labels, seed] - scores["random", labels, seed])
            gains.setdefault(labels, []).append(gain)
    return gains


CHECK_WORDS = {
    "corrupt": "files that cannot be read",
    "duplicates": "duplicates, some in another format or with another label",
    "near-duplicates": "near-duplicates",
    "leaked copies": "copies on both sides of the test",
    "flipped labels, as many of the first doubts": "exchanged labels, among as many of the first doubts",
    "flipped labels, all doubts": "exchanged labels, among all doubts",
    "foreign": "images of no class",
    "constant": "constant images",
}


def check_table() -> str:
    """What ``check`` finds of planted faults."""
    if not measured("check"):
        return NOT_YET
    found = grouped(rows("check"), "what")
    lines = [
        [f"{found[what,][0]['planted']} {words}", *(_range(found[what,], key) for key in ("found", "besides"))]
        for what, words in CHECK_WORDS.items()
    ]
    return table("planted in each | found | besides", "lrr", lines)


def check_untouched() -> str:
    """How many real images have a near-duplicate of their own, as a sentence."""
    if not measured("check"):
        return NOT_YET
    found = grouped(rows("check"), "what")
    (some,), (test,) = found["untouched",], found["test",]
    return (
        f"Of the first {some['images']:,} training images of Fashion-MNIST, as they are, {some['besides']} are called "
        f"near-duplicates; of the {test['images']:,} test images {test['besides']}, of a training image."
    )


def decode_speed() -> str:
    """How fast image files are decoded, as a sentence."""
    if not measured("decode"):
        return NOT_YET
    row = rows("decode")[-1]
    return (
        f"{row['images']:,} PNG files of 28x28 pixels: {row['files_per_second']:,} a second on {machine('decode')}; "
        f"the next start takes {row['again_seconds']:.1f} s."
    )


def _range(found: list[dict[str, Any]], key: str) -> str:
    low, high = (limit(row[key] for row in found) for limit in (min, max))
    return str(low) if low == high else f"{low} to {high}"


def suggest_table() -> str:
    """Macro-F1 with labels that were asked for and with random ones."""
    if not measured("suggest"):
        return NOT_YET
    found = grouped(rows("suggest"), "what", "labels")
    lines = [
        [
            f"{labels:,}",
            *(mean_and_spread(found[what, labels]) for what in ("random", "suggest")),
            ", ".join(f"{gain:+.1f}" for gain in gains),
            f"{sign_flip_p(np.array(gains)):.3f}",
        ]
        for labels, gains in suggest_gains().items()
    ]
    return table("labels | random | suggested | points gained, by seed | p", "rrrrr", lines)


def suggest_worth() -> str:
    """How many random labels the suggested ones are worth, as a sentence."""
    if not measured("suggest"):
        return NOT_YET
    means = {
        key: mean(row["macro_f1"] for row in seeds) for key, seeds in grouped(rows("suggest"), "what", "labels").items()
    }
    random, suggested = ({n: score for (of, n), score in means.items() if of == what} for what in ("random", "suggest"))
    most = max(suggested)
    needed = labels_needed(suggested, random[most])
    if needed >= most:
        return f"With {most:,} labels the suggested ones are not above as many random ones."
    return (
        f"What {most:,} random labels reach, {needed:,.0f} suggested ones reach, on the line between what was measured."
    )


def compare_verdict() -> str:
    """What the comparison says, and what it took."""
    found = [row for row in rows("compare") if row["what"] == "command"] if measured("compare") else []
    if not found:
        return NOT_YET
    minutes = found[0]["seconds"] / 60
    return (
        f"> {found[0]['verdict']}\n\nSo it says of Fashion-MNIST after {minutes:.0f} minutes on "
        f"{machine('compare')}; the same command again takes {found[0]['again_seconds']:.0f} seconds "
        "(`benchmarks/results/compare.json`)."
    )


def compare_table() -> str:
    """Macro-F1 of each arm, and how far it is ahead of supervised training."""
    found = [row for row in rows("compare") if row["what"] == "arm"] if measured("compare") else []
    if not found:
        return NOT_YET
    lines = []
    for row in sorted(found, key=lambda row: -row["mean"]):
        ahead = [f"{100 * row[end]:+.1f}" for end in ("difference", "low", "high")] if "difference" in row else []
        told = (
            [f"{ahead[0]} ({ahead[1]} to {ahead[2]})", f"{row['p_adjusted']:.3f}", row["verdict"]]
            if ahead
            else [""] * 3
        )
        lines.append([f"`{row['arm']}`", f"{row['mean']:.4f} ± {row['spread']:.4f}", *told])
    head = "arm | macro-F1, 6 pairs | points ahead of `supervised` (95%) | p, adjusted | verdict"
    return table(head, "lrrrl", lines)


def ray_cost() -> str:
    """What Ray costs on one machine, as sentences."""
    if not measured("ray_cost"):
        return NOT_YET
    cost = {row["what"]: row for row in rows("ray_cost")}
    seconds = {what: row["seconds"] for what, row in cost.items()}
    return (
        f"On one core a local Ray starts in {seconds['start']:.1f} s and stops in {seconds['stop']:.1f} s; a worker's "
        f"first task waits {seconds['first task']:.1f} s for it to start and import, each later one "
        f"{1000 * seconds['task']:.0f} ms. Fashion-MNIST's images are {cost['images']['mib']:.0f} MiB, sent once a "
        f"machine; a backbone of the tutorial is {cost['backbone']['mib']:.2f} MiB, sent to each cell that begins with "
        "it."
    )


def export_table() -> str:
    """Images per second of the exported file beside the model's own."""
    found = rows("export_speed") if measured("export_speed") else []
    if not found:
        return NOT_YET
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
    """The least time of the usual comparison, by workers."""
    settings = CompareSettings()
    lines = [[str(workers), f"{least_seconds(settings, workers) / 60:.1f}"] for workers in WORKERS]
    return table("trainings at a time | least minutes of training, of a budget of 60", "rr", lines)


def scale_images() -> str:
    """Storage, memory and time of a pass, by images."""
    speeds, memory = rows("pretrain_speed"), rows("memory")
    lines = [
        [
            f"{images:,}",
            gigabytes(images * GRAY),
            f"{peak_gib(memory, images):.1f}",
            duration(images / rate(speeds, "article")),
            gigabytes(images * COLOUR),
            duration(images / rate(speeds, "resnet18")),
            gigabytes(images * kept(images) * FEATURE_BYTES),
        ]
        for images in IMAGES
    ]
    head = "images | file, GB, 28x28 gray | memory, GiB | one pass, tutorial's network | file, GB, 32x32 colour"
    return table(f"{head} | one pass, ResNet-18 | features, GB", "rrrrrrr", lines)


def scale_machines() -> str:
    """A pass of each of six pretrainings over most images, by machines."""
    speeds = rows("pretrain_speed")
    passes = {machines: -(-6 // machines) for machines in MACHINES}
    lines = [
        [
            str(machines),
            *(duration(turns * IMAGES[-1] / rate(speeds, backbone)) for backbone in ("article", "resnet18")),
        ]
        for machines, turns in passes.items()
    ]
    head = f"machines | six pretrainings, a pass over {IMAGES[-1]:,} each: tutorial's network | ResNet-18"
    return table(head, "rrr", lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "article table": article_table,
    "article claims": article_claims,
    "speed table": speed_table,
    "resnet table": resnet_table,
    "view table": view_table,
    "view share": view_share,
    "resume table": resume_table,
    "memory table": memory_table,
    "collapse summary": collapse_summary,
    "collapse table": collapse_table,
    "guard cost": guard_cost,
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
    "labels foretold": labels_foretold,
    "check table": check_table,
    "check untouched": check_untouched,
    "decode speed": decode_speed,
    "suggest table": suggest_table,
    "suggest worth": suggest_worth,
}


def documents() -> list[Path]:
    """README and the pages of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled_in(text: str) -> str:
    """A document with what stands between its marks written anew."""
    for name, content in BLOCKS.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        if mark:
            text = before + mark + content() + "\n" + rest[rest.index("<!-- end -->") :]
    return text


def plot_speed(path: Path) -> None:
    """Bars of images per second with the range of the rounds; SVG that is the same for the same figures."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    for place, (title, row) in enumerate(reversed(speeds())):
        rate, rounds = row["images_per_second"], row["rounds"]
        colour = "#4e79a7" if row["what"] == "ours" else "#bab0ac"
        axis.barh(place, rate, color=colour, xerr=[[rate - min(rounds)], [max(rounds) - rate]], ecolor="#555555")
        axis.text(40, place, title, va="center", color="white" if row["what"] == "ours" else "black", fontsize=9)
    axis.set(yticks=[], xlabel="images per second: median of the rounds, with their range")
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_labels(path: Path) -> None:
    """Macro-F1 over labels, a line for each strategy with the range of its draws."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    found = grouped(label_rows("curve"), "strategy", "labels")
    for strategy, colour in zip(dict.fromkeys(of for of, _ in found), COLOURS, strict=False):
        of_it = {labels: seeds for (of, labels), seeds in found.items() if of == strategy}
        points = sorted((labels, [row["macro_f1"] for row in seeds]) for labels, seeds in of_it.items())
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
    with rc_context({"svg.hashsalt": "fewlabels"}), written_whole(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    for page in documents():
        page.write_text(filled_in(page.read_text()))
    plot_speed(SPEED_PLOT)
    if label_rows("curve"):
        plot_labels(LABELS_PLOT)
