"""A finished model for other software."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.options import Model, one_of


def export(
    model: Model,
    to: Annotated[str, typer.Option(help="onnx, or torch: a program of torch.export.", metavar="NAME")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File, .onnx or .pt2. [beside the model]", metavar="FILE"),
    ] = None,
) -> None:
    """Write a model as one file for other software: from raw pixels to probabilities.

    The file is compared with the model before it is written, and says what images it takes.

    Example: `fewlabels export runs/fit/model.safetensors --to onnx --out model.onnx`
    """
    from fewlabels._internal.files import write_bytes
    from fewlabels.backbones.weights import load_classifier, preparation_of
    from fewlabels.deploy.export import SUFFIXES, exported

    kind = one_of("--to", to, tuple(SUFFIXES))
    suffix = SUFFIXES[kind]
    classifier = load_classifier(model)
    out = out or model.with_suffix(suffix)
    if out.suffix != suffix:  # also keeps the model itself from being overwritten
        raise InputError(f"--out {out}: does not end in {suffix}. Name it so, or choose another kind with --to.")
    preparation = preparation_of(classifier, model)
    content, difference = exported(classifier, preparation, kind)
    write_bytes(out, content)
    console = Console(markup=False)
    form = preparation.form
    console.print(
        f"Takes {form.dtype} [N, {form.channels}, {form.height}, {form.width}], gives probabilities "
        f"[N, {len(classifier.class_names)}]; differs from the model by {difference:.0e} at most, on noise.",
        highlight=False,
    )
    console.print(f"Exported: {out}", soft_wrap=True)
