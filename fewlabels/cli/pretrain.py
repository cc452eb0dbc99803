"""The command ``pretrain``."""

import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.options import (
    INTERRUPTED,
    DataFolder,
    Device,
    Logger,
    Root,
    Size,
    at_least,
    command_line,
    device_of,
    one_of,
    opened_data,
)


def pretrain(
    dataset: Annotated[
        str,
        typer.Argument(
            help="fashion-mnist, a folder of images, a table, or arrays (.npy is read on demand; .npz, .h5).",
            metavar="DATA",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help="simclr, simsiam, byol, mocov2, mocov3, vicreg, barlow-twins, or auto: chosen by trials. [mocov2]",
            metavar="NAME",
        ),
    ] = None,
    labels: Annotated[
        int, typer.Option(help="Number of labels that --method auto and --probe may use.", metavar="N")
    ] = 1000,
    probe: Annotated[
        bool, typer.Option("--probe", help="After each epoch, report the macro-F1 of a k-NN probe.", metavar="")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings of a paper: simsiam-resnet50 or mocov3-vit. Other options override them.", metavar="NAME"
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images. [20]", metavar="N")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="article (28x28 pixels), small, resnet18, resnet50 or timm/NAME. [article for 28x28, else small]",
            metavar="NAME",
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Initial weights: timm's .safetensors, or those of an earlier run.", metavar="FILE"),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Augmentation: gray-small, rgb-small, imagenet or randaugment. [by number of channels]", metavar="NAME"
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step, over all processes. [by method]", metavar="N")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [by method]", metavar="RATE")] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Epochs of warm-up before the cosine decay. [0]", metavar="EPOCHS")
    ] = None,
    accumulate: Annotated[
        int, typer.Option(help="Number of parts in which a batch is computed, to save memory.", metavar="N")
    ] = 1,
    precision: Annotated[
        str,
        typer.Option(
            help="32-true, 64-true, bf16-mixed, or auto: bf16-mixed if the processor supports it.", metavar="NAME"
        ),
    ] = "auto",
    ema: Annotated[
        float, typer.Option(help="Decay of a running average of the weights; 0: no average.", metavar="DECAY")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights, the order and the views.", metavar="N")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the run.", metavar="DIR")] = Path("runs/pretrain"),
    size: Size = None,
    root: Root = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.", metavar="")] = False,
    processes: Annotated[int, typer.Option(help="Number of processes on this machine.", metavar="N")] = 1,
    tune: Annotated[
        str, typer.Option(help="on: measure in a short trial how to run fastest; off: do not.", metavar="NAME")
    ] = "on",
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.", metavar="SECONDS")] = 60,
    on_collapse: Annotated[
        str,
        typer.Option(
            help="stop, warn, or restart (from the last healthy step, at half the learning rate).", metavar="NAME"
        ),
    ] = "stop",
    data: DataFolder = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Train a backbone on images without labels, by self-supervised learning.

    Only --method auto and --probe read labels, to compare trainings. Ctrl-C saves the run and prints the command that
    resumes it. A killed run resumes from its last checkpoint.

    Example: `fewlabels pretrain fashion-mnist --method mocov2 --out runs/pretrain`
    """
    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import MARK, writable_folder, write_json
    from fewlabels.augment.recipes import RECIPES, default_recipe
    from fewlabels.backbones.architectures import default_backbone
    from fewlabels.data.arrays import refuse_size
    from fewlabels.data.named import FASHION_MNIST
    from fewlabels.data.npy import NpySource
    from fewlabels.ssl.pretrain import Collapsed, ComputeConfig
    from fewlabels.ssl.pretrain import pretrain as run_pretrain
    from fewlabels.ssl.recipes import DEFAULT_PRESET, PRESETS
    from fewlabels.training.callbacks import Observer, make_logger
    from fewlabels.training.distributed import is_first_process, peer_is_gone
    from fewlabels.training.precision import fastest_precision
    from fewlabels.training.run_folder import final_state, holds_run, read_execution

    for option, value in (("--accumulate", accumulate), ("--processes", processes)):
        at_least(option, value)
    one_of("--precision", precision, ("auto", "32-true", "64-true", "bf16-mixed"))
    one_of("--tune", tune, ("on", "off"))
    collapse = one_of("--on-collapse", on_collapse, ("stop", "warn", "restart"))
    torch_device = device_of(device)
    in_precision: Any = fastest_precision(torch_device.type) if precision == "auto" else precision
    auto = method == "auto"
    if probe and auto:
        raise InputError("--probe: --method auto has a probe of its own. Leave out one of them.")
    if auto and (preset or lr or processes > 1):
        raise InputError(
            "--method auto: selects the settings, in one process. Leave out --preset, --lr and --processes."
        )
    first = is_first_process()
    console = Console(quiet=not first, markup=False)
    if holds_run(out) and not resume:
        raise InputError(f"{out}: holds a run. Add --resume to continue it, or choose another folder with --out.")
    if resume and not (out / MARK).is_file():
        raise InputError(f"{out}: no run to resume. Leave out --resume, or give the folder of the run with --out.")
    if resume and not holds_run(out):
        console.print("The run has no checkpoint yet, so it starts at the first step.")
    if Path(dataset).suffix.lower() == ".npy":
        refuse_size(Path(dataset), size)
        source: Any = NpySource(Path(dataset))
        labelled = None
    else:
        source = opened_data(dataset, data, console, size=size, roots=root).train
        if dataset != FASHION_MNIST:
            labels = min(labels, source.num_labels)
        labelled = source.balanced(labels, seed) if (auto or probe) and labels else None
    if probe and labelled is None:
        raise InputError(f"--probe: {dataset} has no labels to use. Leave out --probe.")
    base = PRESETS[one_of("--preset", preset, tuple(PRESETS))] if preset else DEFAULT_PRESET
    recipe = views or base.views or default_recipe(source.shape[0])
    one_of("--views", recipe, tuple(RECIPES))
    chosen = {
        "method": None if auto else method,
        "epochs": epochs,
        "backbone": backbone or (default_backbone(None, source.shape) if preset is None else None),
        "start_from": start_from and str(start_from),
        "batch_size": batch_size,
        "lr": lr,
        "warmup_epochs": warmup,
    }
    changed: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if method not in (None, "auto", base.settings.method):
        changed["method_settings"] = None  # those of the preset are for another method
    settings = replace(base.settings, **changed, accumulate=accumulate, precision=in_precision, ema=ema)
    engine = ComputeConfig(torch_device.type, processes, tune == "on", checkpoint_seconds, collapse)
    writable_folder(out)
    log = make_logger(
        logger if first else "none", out, {"command": command_line(), **asdict(settings), "views": recipe}
    )
    observer = Observer(settings.method, log, console)
    try:
        curve = None
        if probe and labelled is not None:
            from fewlabels.features.probes import knn_curve  # scikit-learn is slow to import

            curve = partial(knn_curve, labelled)
        if auto:
            from fewlabels.ssl.select import AutoPretraining

            recipes = (views,) if views else (recipe, "randaugment")
            auto_run = AutoPretraining(source, labelled, settings, recipes, out, seed, observer, engine)
            settings, recipe = auto_run.run()
        else:
            run_pretrain(source, RECIPES[recipe], settings, out, seed, observer, engine, curve)
    except Collapsed as stop:
        advice = "" if stop.verdict.is_fatal else " To continue anyway, add --resume --on-collapse warn."
        raise InputError(f"{stop}{advice}") from None
    except RuntimeError as error:
        if peer_is_gone(error):
            raise InputError("another process failed; its message gives the reason.") from None
        raise
    except KeyboardInterrupt as stop:
        if first:
            line = f"Stopped after {stop}, which is saved." if str(stop) else "Stopped."
            option = "" if resume else " --resume"
            print(f"\n{line} Resume with: {command_line()}{option}", file=sys.stderr)
        # If another process ended with a code other than 0, process 0 would be killed.
        raise SystemExit(INTERRUPTED if first else 0) from None
    finally:
        log.close()
    if not first:
        return
    about = {
        "decided": asdict(settings),
        "seed": seed,
        "views": str(RECIPES[recipe]),
        "engine": asdict(read_execution(out)),
    }
    seconds = round(observer.seconds, 1)
    state = final_state(out)
    figures = {"data": source.name, "images": len(source), "seconds": seconds}
    figures |= {name: state[name] for name in ("curve", "by_epoch", "guard")}
    write_json(out / "result.json", {"name": "pretrain", **provenance(command_line()), **about, **figures})
    console.print(f"{settings.epochs} epochs of {len(source):,} images in {seconds} s.", highlight=False)
    console.print(collapse_line(state["guard"]), highlight=False, soft_wrap=True)
    console.print(f"Backbone: {out / 'backbone.safetensors'}", soft_wrap=True)


def collapse_line(monitor: dict[str, Any]) -> str:
    """Return a line about collapse for the end of a run, from the state of the collapse monitor."""
    from fewlabels.ssl.collapse import evaluate_history

    if monitor["verdicts"] and monitor["restarts"] and not monitor["suspected"]:
        return "Collapse: found once, and not again after the restart."
    if monitor["verdicts"]:
        return f"Collapse: {monitor['verdicts'][-1]}"
    if not evaluate_history(monitor["readings"]):
        return "Collapse: too few steps to detect it. Choose more --epochs."
    return "Collapse: none found."
