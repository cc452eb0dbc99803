"""The command ``export``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.options import Model, one_of


def export(
    model: Model,
    to: Annotated[str, typer.Option(help="onnx, or torch for a torch.export program.", metavar="NAME")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write, .onnx or .pt2. [in the folder of the model]", metavar="FILE"),
    ] = None,
) -> None:
    """Export a model to one file for other software, from raw pixels to probabilities.

    The probabilities of the file are compared with the model's before it is written. Its metadata describe the images.

    Example: `fewlabels export runs/fit/model.safetensors --to onnx --out model.onnx`
    """
    from fewlabels._internal.files import write_bytes
    from fewlabels.backbones.weights import load_classifier, preprocessing_of
    from fewlabels.deploy.export import SUFFIXES, export_classifier

    kind = one_of("--to", to, tuple(SUFFIXES))
    suffix = SUFFIXES[kind]
    classifier = load_classifier(model)
    out = out or model.with_suffix(suffix)
    if out.suffix != suffix:  # this also prevents overwriting the model
        raise InputError(f"--out {out}: does not end in {suffix}. Change the suffix, or choose another kind with --to.")
    preprocessing = preprocessing_of(classifier, model)
    content, difference = export_classifier(classifier, preprocessing, kind)
    write_bytes(out, content)
    console = Console(markup=False)
    form = preprocessing.form
    console.print(
        f"Input: {form.dtype} [N, {form.channels}, {form.height}, {form.width}]. Output: probabilities "
        f"[N, {len(classifier.class_names)}]. Largest difference from the model on random images: {difference:.0e}.",
        highlight=False,
    )
    console.print(f"Exported: {out}", soft_wrap=True)
