"""Names for images."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, harmless, refuse_foreign
from fewlabels.cli.options import Images, Model, OutCsv

if TYPE_CHECKING:
    from fewlabels.backbones.classifier import Classifier


HEAD = ["image", "label", "probability", "unsure", "problem"]


def predict(
    model: Model,
    images: Images,
    out: OutCsv = None,
    precision: Annotated[
        float, typer.Option(help="Share of those it is sure of that should be right; others are 'unsure'.")
    ] = 0.95,
) -> None:
    """Name the class of each image, with its probability and whether to rely on it.

    A file that cannot be read has a row that says why, and the others go on.

    Example: `fewlabels predict runs/fit/model.safetensors photos -o out.csv`
    """
    from fewlabels.backbones.inference import outputs
    from fewlabels.backbones.weights import load_classifier, preparation_of
    from fewlabels.data.images import image_batches
    from fewlabels.metrics.classification import probabilities

    refuse_foreign(out, HEAD)
    classifier = load_classifier(model)
    sure_from = _threshold(classifier, precision)
    unread = unsure = done = 0
    batches = image_batches(images, preparation_of(classifier, model))
    with csv_rows(out) as writer:
        writer.writerow(HEAD)
        for batch in batches:
            named: dict[int, Any] = {}
            if batch.read:
                named = dict(zip(batch.read, probabilities(outputs(classifier, batch.source())), strict=True))
            for place, name in enumerate(batch.names):
                done += 1
                if place in batch.wrong:
                    unread += 1
                    writer.writerow([harmless(name), "", "", "", harmless(batch.wrong[place])])
                    continue
                said = named[place]
                doubt = "" if sure_from is None else "unsure" if said.max() < sure_from else "no"
                unsure += doubt == "unsure"
                label = harmless(classifier.class_names[said.argmax()])
                writer.writerow([harmless(name), label, f"{said.max():.4f}", doubt, ""])
    console = Console(stderr=out is None, markup=False)
    if unread:
        console.print(f"{unread:,} files could not be read: see the column problem.", highlight=False)
    if sure_from is not None:
        few = f"below a probability of {sure_from:.2f} fewer than {precision:.0%} are right"
        if sure_from > 1:
            few = f"at no probability {precision:.0%} of the labels held out were right"
        console.print(f"Unsure of {unsure:,} of {done - unread:,}: {few}.", highlight=False)
    if out is not None:
        console.print(f"{done - unread:,} predictions: {out}", soft_wrap=True)


def _threshold(classifier: "Classifier", precision: float) -> float | None:
    if not 0.5 <= precision <= 0.99:
        raise InputError(f"--precision {precision:g}: must be in 0.5 to 0.99.")
    return classifier.thresholds.get(f"{precision:.2f}")
