"""The command line: commands, and user mistakes as one line with exit code 2."""

import csv
import io
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.table import Table

from fewlabels.errors import InputError

if TYPE_CHECKING:
    import torch  # slow to import, so only the commands that use it do

    from fewlabels.compare.run import Engine as CompareEngine

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="From many images and few labels to the best classifier they can buy, with the evidence.",
)

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder with the data files; FEWLABELS_DATA does the same.", metavar="DIR")
]
Dataset = Annotated[str, typer.Argument(help="fashion-mnist.", metavar="DATA")]
Backbone = Annotated[
    str, typer.Option(help="article (28x28 pixels), small, resnet18, resnet50 or timm/NAME.", metavar="NAME")
]
Out = Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")]
Logger = Annotated[str, typer.Option(help="tensorboard, wandb, mlflow or none.", metavar="NAME")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", metavar="NAME")]


@app.command()
def article(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer epochs, for a demonstration.")] = False,
    seeds: Annotated[int, typer.Option(help="Seeds for the arms with few labels.", metavar="N")] = 1,
    out: Out = Path("runs/article"),
    data: Data = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Run the tutorial end to end on Fashion-MNIST and test its claims.

    Stop it with Ctrl-C at any time: the same command goes on.

    Example: `fewlabels article --quick --out runs/demo`
    """
    from fewlabels.article.arms import QUICK, ArticlePlan
    from fewlabels.article.run import ArticleRun, result
    from fewlabels.data.fashion_mnist import fashion_mnist
    from fewlabels.files import writable_folder
    from fewlabels.observe import make_logger
    from fewlabels.report.article import write_report

    _at_least_one("--seeds", seeds)
    plan = QUICK if quick else ArticlePlan()
    console = Console()
    writable_folder(out)
    torch_device = _device(device)
    splits = fashion_mnist(data, say=console.print)
    log = make_logger(logger, out, {"command": _command(), **asdict(plan)})
    run = ArticleRun(out, splits.train, splits.test, plan, seeds, log, console, torch_device)
    gathered = result(run, _command(), quick)
    log.close()
    report = write_report(gathered, out)
    table = Table("arm", "labels", "epochs", "pretr.", "macro-F1", "s", title="Test macro-F1 by arm")
    for arm in gathered["arms"]:
        table.add_row(
            arm["title"],
            f"{arm['labels']:,}",
            str(arm["epochs"]),
            str(arm["pretrain_epochs"]),
            arm["macro_f1_text"],
            f"{arm['seconds']:.0f}",
        )
    console.print(table)
    for claim in gathered["claims"]:
        console.print(f"- {claim}")
    console.print(f"Report: {report}", soft_wrap=True)


@app.command()
def fit(
    dataset: Dataset,
    labels: Annotated[
        int, typer.Option(help="How many labels to use; the other images go without.", metavar="N")
    ] = 1000,
    budget: Annotated[str, typer.Option(help="Time for the training, such as 90s, 10m or 1h.", metavar="TIME")] = "10m",
    strategy: Annotated[
        str, typer.Option(help="auto, supervised, probe, finetune, kernel, propagate or selftrain.", metavar="NAME")
    ] = "auto",
    backbone: Backbone = "article",
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="A pretraining's folder, or its backbone.safetensors.", metavar="RUN"),
    ] = None,
    draw: Annotated[str, typer.Option(help="balanced (random, by seed) or first.", metavar="HOW")] = "balanced",
    seed: Annotated[int, typer.Option(help="Weights, order and draw depend on it alone.", metavar="N")] = 0,
    out: Out = Path("runs/fit"),
    data: Data = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Train the best classifier that a few labels can buy, foretell how good it is, and test it once.

    Ways are tried on folds of the labels; plain supervised training is among them, and wins if none is better.
    Stopped with Ctrl-C, the same command goes on.

    Example: `fewlabels fit fashion-mnist --labels 1000 --budget 10m`
    """
    import numpy as np

    from fewlabels.data.fashion_mnist import fashion_mnist
    from fewlabels.data.source import balanced_indices
    from fewlabels.evaluate import evaluate
    from fewlabels.files import writable_folder, write_json
    from fewlabels.fit.fit import Fit, FitSettings
    from fewlabels.fit.pool import Pool
    from fewlabels.models.weights import save_classifier
    from fewlabels.observe import Observer, make_logger
    from fewlabels.records import provenance
    from fewlabels.views.recipes import fit_views

    _known(dataset)
    _one_of("--draw", draw, ("balanced", "first"))
    if start_from is not None and start_from.is_dir():
        start_from = start_from / "backbone.safetensors"
    pretrained = None if start_from is None else str(start_from)
    settings = FitSettings(cast(Any, strategy), _seconds("--budget", budget), backbone, start_from=pretrained)
    console = Console()
    torch_device = _device(device)
    splits = fashion_mnist(data, say=console.print)
    train = splits.train
    train.checked(labels)
    rows = np.arange(labels) if draw == "first" else balanced_indices(train.labels, labels, seed)
    writable_folder(out)
    log = make_logger(logger, out, {"command": _command(), **asdict(settings), "labels": labels, "seed": seed})
    pool, views = Pool.of(train.hiding_all_but(rows)), fit_views(train.shape[0])
    began = time.perf_counter()
    try:
        with _saying_how_to_go_on():
            watch = partial(Observer, logger=log, console=console)
            fitted = Fit(pool, settings, views, out, seed, watch, torch_device, len(splits.test)).go()
    finally:
        log.close()
    seconds = round(time.perf_counter() - began, 1)
    if fitted.estimate is not None:
        expected, low, high = fitted.estimate
        console.print(f"Expected macro-F1: {expected:.3f} (95%: {low:.3f} to {high:.3f}), from the labels alone.")
    model_file = out / "model.safetensors"
    save_classifier(fitted.network, model_file)
    tested = evaluate(fitted.network, splits.test)
    about = {"labels": labels, "draw": draw, "seed": seed, "decided": asdict(settings), "strategy": fitted.strategy}
    about |= {"pseudo_labels": fitted.pseudo_labels}
    about |= {"tried": fitted.tried, "said": fitted.said, "estimate": fitted.estimate and fitted.estimate._asdict()}
    figures: dict[str, Any] = {"macro_f1": tested.macro_f1, "accuracy": tested.accuracy, "seconds": seconds}
    figures |= {"calibration_error": tested.calibration_error, "per_class": tested.per_class}
    write_json(out / "result.json", {"name": "fit", **provenance(_command()), **about, **figures})
    console.print(tested.text, highlight=False)
    console.print(f"Macro-F1 {tested.macro_f1:.4f} on {len(splits.test):,} test images, {seconds} s of training.")
    console.print(f"Model: {model_file}", soft_wrap=True)


@app.command()
def compare(
    dataset: Dataset,
    labels: Annotated[str, typer.Option(help="How many labels; several with commas.", metavar="N,N")] = "1000",
    pairs: Annotated[int, typer.Option(help="Paired runs; a claim needs 6.", metavar="N")] = 6,
    budget: Annotated[str, typer.Option(help="Time for all, such as 30m or 2h.", metavar="TIME")] = "60m",
    methods: Annotated[
        str, typer.Option(help="Methods of pretraining, with commas; the verdict is about the first.", metavar="NAMES")
    ] = "mocov2",
    backbone: Backbone = "article",
    start_from: Annotated[
        Path | None, typer.Option("--from", help="A pretrained backbone of your own, to stand beside.", metavar="FILE")
    ] = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Say what it would do and could find; do nothing.")] = False,
    engine: Annotated[
        str,
        typer.Option(help="local, or ray: many at a time, on the cluster RAY_ADDRESS names or here.", metavar="NAME"),
    ] = "local",
    out: Out = Path("runs/compare"),
    data: Data = None,
    device: Device = "auto",
) -> None:
    """Does pretraining help on these images? Paired runs, an answer in plain words, and the evidence.

    Stopped with Ctrl-C, the same command goes on; what is done is never done again.

    Example: `fewlabels compare fashion-mnist --labels 1000 --pairs 6`
    """
    from fewlabels.compare.cells import Bench
    from fewlabels.compare.plan import CompareSettings
    from fewlabels.compare.run import compare, plan_lines, write_panels
    from fewlabels.data.fashion_mnist import fashion_mnist
    from fewlabels.engine.precision import fastest_precision
    from fewlabels.files import writable_folder, write_json
    from fewlabels.observe import Observer
    from fewlabels.records import provenance
    from fewlabels.report.compare import write_compare_report
    from fewlabels.views.recipes import RECIPES, fit_views, usual_recipe

    _known(dataset)
    run_engine = _compare_engine(engine)
    own = None if start_from is None else str(start_from)
    settings = CompareSettings(
        _numbers("--labels", labels), pairs, _seconds("--budget", budget), tuple(methods.split(",")), backbone, own
    )
    console = Console()
    for line in plan_lines(settings):
        console.print(line, highlight=False)
    if only_plan:
        return
    torch_device = _device(device)
    splits = fashion_mnist(data, say=console.print)
    for number in settings.labels:
        splits.train.checked(number)
    channels = splits.train.shape[0]
    bench = Bench(
        settings,
        splits.train,
        splits.test,
        RECIPES[usual_recipe(channels)],
        fit_views(channels),
        writable_folder(out),
        partial(Observer, console=console),
        torch_device,
        fastest_precision(torch_device.type),
    )
    with _saying_how_to_go_on(), bench.timed():
        found = compare(bench, run_engine)
    about = {"name": "compare", **provenance(_command()), "seconds": round(bench.seconds(), 1)}
    write_json(out / "result.json", {**about, **found})
    table = Table("labels", "arm", "macro-F1", "against supervised, points", title="Test macro-F1 by arm")
    against = {(each["labels"], each["arm"]): each for each in found["differences"]}
    for row in found["arms"]:
        spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
        of = against.get((row["labels"], row["arm"]))
        text = "" if of is None else " ".join(f"{100 * of[end]:+.1f}" for end in ("difference", "low", "high"))
        table.add_row(f"{row['labels']:,}", row["arm"], f"{row['mean']:.4f}{spread}", text)
    console.print(table)
    console.print(found["verdict"], highlight=False)
    with _saying_how_to_go_on():
        write_panels(bench)
    console.print(f"Report: {write_compare_report(out)}", soft_wrap=True)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a comparison.", metavar="RUN")] = Path("runs/compare"),
) -> None:
    """Draw a comparison's report again, from what it has measured.

    Example: `fewlabels report runs/compare`
    """
    from fewlabels.report.compare import write_compare_report

    Console().print(f"Report: {write_compare_report(run)}", soft_wrap=True)


@app.command()
def pretrain(
    dataset: Annotated[
        str, typer.Argument(help="fashion-mnist, or a .npy file: uint8 [N, H, W] or [N, C, H, W].", metavar="DATA")
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help="simclr, simsiam, byol, mocov2, mocov3, vicreg, barlow-twins, or auto: choose by trials. [mocov2]",
            metavar="NAME",
        ),
    ] = None,
    labels: Annotated[int, typer.Option(help="Labels that --method auto and --probe may use.", metavar="N")] = 1000,
    probe: Annotated[
        bool, typer.Option("--probe", help="Each epoch, a figure of nearest neighbours on the labels.")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="A paper's recipe, simsiam-resnet50 or mocov3-vit; other options change it.", metavar="NAME"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images. [20]", metavar="N")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="article (28x28 pixels), resnet18, resnet50 or timm/NAME. [article]", metavar="NAME"),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Weights to begin with: timm's .safetensors, or an earlier run's.", metavar="FILE"),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(help="gray-small, rgb-small, imagenet or randaugment; by the channels.", metavar="NAME"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step, over all processes; by the method.", metavar="N")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; by the method.", metavar="RATE")] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Epochs of rising rate, before the cosine. [0]", metavar="EPOCHS")
    ] = None,
    accumulate: Annotated[int, typer.Option(help="Parts a batch is computed in, to save memory.", metavar="N")] = 1,
    precision: Annotated[
        str, typer.Option(help="32-true, 64-true, bf16-mixed; auto: bf16-mixed if fast here.", metavar="NAME")
    ] = "auto",
    ema: Annotated[
        float, typer.Option(help="Keep a running average of the weights with this decay.", metavar="DECAY")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Weights, order and views depend on it alone.", metavar="N")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the run.", metavar="DIR")] = Path("runs/pretrain"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    processes: Annotated[int, typer.Option(help="Processes on this machine.", metavar="N")] = 1,
    tune: Annotated[
        str, typer.Option(help="on: find the fastest way by a short trial. off: do not.", metavar="HOW")
    ] = "on",
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between checkpoints.", metavar="S")] = 60,
    on_collapse: Annotated[
        str, typer.Option(help="stop, warn, or restart (from the last sound step, at half the rate).", metavar="HOW")
    ] = "stop",
    data: Data = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Train a backbone on images alone. Labels are never trained on; only --method auto and --probe read any.

    Ctrl-C saves the run, and says how to go on. Killed, it goes on from its last checkpoint.

    Example: `fewlabels pretrain fashion-mnist --method mocov2 --out runs/pretrain`
    """
    from fewlabels.data.fashion_mnist import fashion_mnist
    from fewlabels.data.npy import NpySource
    from fewlabels.engine.precision import fastest_precision
    from fewlabels.engine.run_folder import final_state, holds_run, read_choice
    from fewlabels.files import MARK, writable_folder, write_json
    from fewlabels.observe import Observer, make_logger
    from fewlabels.parallel import is_first_process, peer_is_gone
    from fewlabels.presets import DEFAULT, PRESETS
    from fewlabels.pretrain import Collapsed, Engine
    from fewlabels.pretrain import pretrain as run_pretrain
    from fewlabels.records import provenance
    from fewlabels.views.recipes import RECIPES, usual_recipe

    for option, value in (("--accumulate", accumulate), ("--processes", processes)):
        _at_least_one(option, value)
    _one_of("--precision", precision, ("auto", "32-true", "64-true", "bf16-mixed"))
    _one_of("--tune", tune, ("on", "off"))
    collapse = _one_of("--on-collapse", on_collapse, ("stop", "warn", "restart"))
    torch_device = _device(device)
    in_precision: Any = fastest_precision(torch_device.type) if precision == "auto" else precision
    auto = method == "auto"
    if probe and auto:
        raise InputError("--probe: --method auto has its own. Leave one of them out.")
    if auto and (preset or lr or processes > 1):
        raise InputError("--method auto: chooses by itself, in one process. Leave out --preset, --lr and --processes.")
    first = is_first_process()
    console = Console(quiet=not first)
    if holds_run(out) and not resume:
        raise InputError(f"{out}: holds a run. Add --resume to go on with it, or choose another folder with --out.")
    if resume and not (out / MARK).is_file():
        raise InputError(f"{out}: no run to go on with. Leave out --resume, or name the run's folder with --out.")
    if resume and not holds_run(out):
        console.print("Nothing is saved there yet: beginning at the first step.")
    if dataset == "fashion-mnist":
        source: Any = fashion_mnist(data, say=console.print).train
        labelled = source.balanced(labels, seed) if (auto or probe) and labels else None
    else:
        source, labelled = NpySource(Path(dataset)), None
    if probe and labelled is None:
        raise InputError(f"--probe: {dataset} has no labels to use. Leave it out.")
    base = PRESETS[_one_of("--preset", preset, tuple(PRESETS))] if preset else DEFAULT
    recipe = views or base.views or usual_recipe(source.shape[0])
    _one_of("--views", recipe, tuple(RECIPES))
    chosen = {
        "method": None if auto else method,
        "epochs": epochs,
        "backbone": backbone,
        "start_from": start_from and str(start_from),
        "batch_size": batch_size,
        "lr": lr,
        "warmup_epochs": warmup,
    }
    changed: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if method not in (None, "auto", base.settings.method):
        changed["method_settings"] = None  # the preset's are another method's
    settings = replace(base.settings, **changed, accumulate=accumulate, precision=in_precision, ema=ema)
    engine = Engine(torch_device.type, processes, tune == "on", checkpoint_seconds, collapse)
    writable_folder(out)
    log = make_logger(logger if first else "none", out, {"command": _command(), **asdict(settings), "views": recipe})
    observer = Observer(settings.method, log, console)
    try:
        curve = None
        if probe and labelled is not None:
            from fewlabels.fit.probe import knn_curve  # scikit-learn is slow to import

            curve = partial(knn_curve, labelled)
        if auto:
            from fewlabels.choose import AutoPretraining

            recipes = (views,) if views else (recipe, "randaugment")
            auto_run = AutoPretraining(source, labelled, settings, recipes, out, seed, observer, engine)
            settings, recipe = auto_run.go()
        else:
            run_pretrain(source, RECIPES[recipe], settings, out, seed, observer, engine, curve)
    except Collapsed as stop:
        regardless = "" if stop.verdict.lost else " To go on regardless, add --resume --on-collapse warn."
        raise InputError(f"{stop}{regardless}") from None
    except RuntimeError as error:
        if peer_is_gone(error):
            raise InputError("another process has stopped, and says why.") from None
        raise
    except KeyboardInterrupt as stop:
        if first:
            where = f"Stopped after {stop}, which is saved." if str(stop) else "Stopped."
            again = "" if resume else " --resume"
            print(f"\n{where} Go on with: {_command()}{again}", file=sys.stderr)
        # A follower that ends with another code would have the first process killed.
        raise SystemExit(INTERRUPTED if first else 0) from None
    finally:
        log.close()
    if not first:
        return
    about = {
        "decided": asdict(settings),
        "seed": seed,
        "views": str(RECIPES[recipe]),
        "engine": asdict(read_choice(out)),
    }
    seconds = round(observer.seconds, 1)
    kept = final_state(out)
    figures = {"data": source.name, "images": len(source), "seconds": seconds}
    figures |= {name: kept[name] for name in ("curve", "by_epoch", "guard")}
    write_json(out / "result.json", {"name": "pretrain", **provenance(_command()), **about, **figures})
    console.print(f"{settings.epochs} epochs of {len(source):,} images in {seconds} s.", highlight=False)
    console.print(f"Backbone: {out / 'backbone.safetensors'}", soft_wrap=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model.safetensors written by fit.", metavar="MODEL")],
    images: Annotated[Path, typer.Argument(help="An IDX file, an image, or a folder of images.", metavar="IMAGES")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV file; without it, the screen.", metavar="FILE")
    ] = None,
) -> None:
    """Name the class of each image, with its probability.

    Example: `fewlabels predict runs/fit/model.safetensors photos -o out.csv`
    """
    from fewlabels.data.images import read_images
    from fewlabels.evaluate import outputs, probabilities
    from fewlabels.files import write_bytes
    from fewlabels.models.weights import load_classifier

    classifier = load_classifier(model)
    names, source = read_images(images, classifier.backbone.channels, classifier.backbone.image_size)
    predicted = probabilities(outputs(classifier, source))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", "probability"])
    for name, row in zip(names, predicted, strict=True):
        writer.writerow([name, classifier.class_names[row.argmax()], f"{row.max():.4f}"])
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        write_bytes(out, text.getvalue().encode())
        Console().print(f"{len(names):,} predictions: {out}", soft_wrap=True)


@app.command()
def doctor(
    data: Data = None,
) -> None:
    """Say what this machine has: versions, threads, devices, where the data is.

    Example: `fewlabels doctor`
    """
    import torch

    from fewlabels.data.fashion_mnist import locate
    from fewlabels.records import machine, versions

    found = locate(data)
    here = machine()
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for package, version in versions().items():
        table.add_row(package, version)
    table.add_row("processor", f"{here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB")
    table.add_row("torch threads", str(torch.get_num_threads()))
    table.add_row("devices", ", ".join(_devices()))
    table.add_row("fashion-mnist", str(found) if found else "not here yet; the first command that needs it fetches it")
    Console().print(table)


def _devices() -> list[str]:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _device(name: str) -> "torch.device":
    import torch

    found = _devices()
    if name == "auto":
        name = "cuda" if "cuda" in found else "cpu"
    if name not in found:
        raise InputError(f"--device {name}: not available here. This machine has: {', '.join(found)}.")
    return torch.device(name)


def _seconds(option: str, text: str) -> float:
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        raise InputError(f"{option} {text}: not a time. Write it like 90s, 10m or 1h.") from None


def _compare_engine(name: str) -> "CompareEngine":
    from fewlabels.compare.run import one_after_the_other

    if _one_of("--engine", name, ("local", "ray")) == "local":
        return one_after_the_other
    try:
        from fewlabels.compare.on_ray import over_ray
    except ModuleNotFoundError as error:
        raise InputError(f"--engine ray: {error.name} is not installed. Run: pip install 'fewlabels[ray]'") from None
    return over_ray


def _known(dataset: str) -> None:
    if dataset != "fashion-mnist":
        raise InputError(f"dataset {dataset!r}: no such dataset. This version knows: fashion-mnist.")


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    """Inside the block, Ctrl-C ends the command with a line."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nStopped; what is done is saved. Go on with: {_command()}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: not numbers. Write them like 1000 or 100,1000.") from None


def _at_least_one(option: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{option} {value}: must be 1 or more.")


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise InputError(f"{option} {value}: no such choice. Choose one of {', '.join(known)}.")
    return value


def _command() -> str:
    return shlex.join(["fewlabels", *sys.argv[1:]])


# typer carries its own copy of click from 0.20 on, so the class is reached through typer itself.
_ClickException: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


INTERRUPTED = 130
"""The exit code of a command that was stopped with Ctrl-C."""


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        _refuse(str(error), error.alone)
    except PermissionError as error:
        _refuse(f"{error.filename}: {error.strerror}. Choose another place, or ask its owner.")
    except _ClickException as error:
        _refuse(f"{error.format_message()} Run with --help to see how it is used.")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # some versions of typer return this instead of raising
        print("\nStopped. The same command goes on from what is done.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str, alone: bool = False) -> NoReturn:
    process = os.environ.get("LOCAL_RANK", "0")
    if process != "0" and not alone:
        sys.exit(0)  # the first process says it; another code would have it killed before it does
    who = "fewlabels" if process == "0" else f"fewlabels, process {process}"
    print(f"{who}: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
