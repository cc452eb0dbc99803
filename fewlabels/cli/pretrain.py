"""A backbone from images alone."""

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
            help="fashion-mnist; a folder of images; a table of them; arrays (.npy, read as needed; .npz, .h5).",
            metavar="DATA",
        ),
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
        typer.Option(
            help="article (28x28 pixels), small, resnet18, resnet50 or timm/NAME. [article if it suits, else small]",
            metavar="NAME",
        ),
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
    size: Size = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    processes: Annotated[int, typer.Option(help="Processes on this machine.", metavar="N")] = 1,
    tune: Annotated[
        str, typer.Option(help="on: find the fastest way by a short trial. off: do not.", metavar="HOW")
    ] = "on",
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between checkpoints.", metavar="S")] = 60,
    on_collapse: Annotated[
        str, typer.Option(help="stop, warn, or restart (from the last sound step, at half the rate).", metavar="HOW")
    ] = "stop",
    data: DataFolder = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Train a backbone on images alone. Labels are never trained on; only --method auto and --probe read any.

    Ctrl-C saves the run, and says how to go on. Killed, it goes on from its last checkpoint.

    Example: `fewlabels pretrain fashion-mnist --method mocov2 --out runs/pretrain`
    """
    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import MARK, writable_folder, write_json
    from fewlabels.augment.recipes import RECIPES, usual_recipe
    from fewlabels.backbones.architectures import usual_backbone
    from fewlabels.data.arrays import refuse_size
    from fewlabels.data.dataset import FASHION_MNIST
    from fewlabels.data.npy import NpySource
    from fewlabels.ssl.pretrain import Collapsed, Engine
    from fewlabels.ssl.pretrain import pretrain as run_pretrain
    from fewlabels.ssl.recipes import DEFAULT, PRESETS
    from fewlabels.training.callbacks import Observer, make_logger
    from fewlabels.training.distributed import is_first_process, peer_is_gone
    from fewlabels.training.precision import fastest_precision
    from fewlabels.training.run_folder import final_state, holds_run, read_choice

    for option, value in (("--accumulate", accumulate), ("--processes", processes)):
        at_least(option, value)
    one_of("--precision", precision, ("auto", "32-true", "64-true", "bf16-mixed"))
    one_of("--tune", tune, ("on", "off"))
    collapse = one_of("--on-collapse", on_collapse, ("stop", "warn", "restart"))
    torch_device = device_of(device)
    in_precision: Any = fastest_precision(torch_device.type) if precision == "auto" else precision
    auto = method == "auto"
    if probe and auto:
        raise InputError("--probe: --method auto has its own. Leave one of them out.")
    if auto and (preset or lr or processes > 1):
        raise InputError("--method auto: chooses by itself, in one process. Leave out --preset, --lr and --processes.")
    first = is_first_process()
    console = Console(quiet=not first, markup=False)
    if holds_run(out) and not resume:
        raise InputError(f"{out}: holds a run. Add --resume to go on with it, or choose another folder with --out.")
    if resume and not (out / MARK).is_file():
        raise InputError(f"{out}: no run to go on with. Leave out --resume, or name the run's folder with --out.")
    if resume and not holds_run(out):
        console.print("Nothing is saved there yet: beginning at the first step.")
    if Path(dataset).suffix.lower() == ".npy":
        refuse_size(Path(dataset), size)
        source: Any = NpySource(Path(dataset))
        labelled = None
    else:
        source = opened_data(dataset, data, console, size=size).train
        if dataset != FASHION_MNIST:
            labels = min(labels, source.num_labels)
        labelled = source.balanced(labels, seed) if (auto or probe) and labels else None
    if probe and labelled is None:
        raise InputError(f"--probe: {dataset} has no labels to use. Leave it out.")
    base = PRESETS[one_of("--preset", preset, tuple(PRESETS))] if preset else DEFAULT
    recipe = views or base.views or usual_recipe(source.shape[0])
    one_of("--views", recipe, tuple(RECIPES))
    chosen = {
        "method": None if auto else method,
        "epochs": epochs,
        "backbone": backbone or (usual_backbone(None, source.shape) if preset is None else None),
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
            print(f"\n{where} Go on with: {command_line()}{again}", file=sys.stderr)
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
    write_json(out / "result.json", {"name": "pretrain", **provenance(command_line()), **about, **figures})
    console.print(f"{settings.epochs} epochs of {len(source):,} images in {seconds} s.", highlight=False)
    console.print(collapse_line(kept["guard"]), highlight=False, soft_wrap=True)
    console.print(f"Backbone: {out / 'backbone.safetensors'}", soft_wrap=True)


def collapse_line(guard: dict[str, Any]) -> str:
    """What is known of it at the end of a run."""
    from fewlabels.ssl.collapse import judged

    if guard["verdicts"] and guard["restarts"] and not guard["suspected"]:
        return "Collapse: found, and no more since the run went back."
    if guard["verdicts"]:
        return f"Collapse: {guard['verdicts'][-1]}"
    if not judged(guard["readings"]):
        return "Collapse: too few steps to tell. Choose more --epochs."
    return "Collapse: none found."
