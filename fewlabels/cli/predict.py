"""The command ``predict``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, escape_formula, refuse_other_file
from fewlabels.cli.options import Images, Model, OutCsv, Root

if TYPE_CHECKING:
    from fewlabels.backbones.classifier import Classifier


HEADER = ["image", "label", "probability", "unsure", "problem"]
"""Columns of the table."""


def predict(
    model: Model,
    images: Images,
    out: OutCsv = None,
    precision: Annotated[
        float,
        typer.Option(
            help="Fraction of the predictions not marked 'unsure' that should be correct, 0.5 to 0.99.",
            metavar="FRACTION",
        ),
    ] = 0.95,
    root: Root = None,
) -> None:
    """Predict the class of each image, with its probability, and mark predictions that are unsure.

    An image that cannot be read has an error message instead of a class.

    Example: `fewlabels predict runs/fit/model.safetensors photos -o out.csv`
    """
    from fewlabels.backbones.inference import outputs
    from fewlabels.backbones.weights import load_classifier, preprocessing_of
    from fewlabels.data.images import image_batches
    from fewlabels.metrics.classification import probabilities

    refuse_other_file(out, HEADER)
    classifier = load_classifier(model)
    threshold = _threshold(classifier, precision)
    unread = unsure = done = 0
    batches = image_batches(images, preprocessing_of(classifier, model), root or ())
    with csv_rows(out) as writer:
        writer.writerow(HEADER)
        for batch in batches:
            predicted: dict[int, Any] = {}
            if batch.read:
                predicted = dict(zip(batch.read, probabilities(outputs(classifier, batch.source())), strict=True))
            for index, name in enumerate(batch.names):
                done += 1
                if index in batch.wrong:
                    unread += 1
                    writer.writerow([escape_formula(name), "", "", "", escape_formula(batch.wrong[index])])
                    continue
                likely = predicted[index]
                mark = "" if threshold is None else "unsure" if likely.max() < threshold else "no"
                unsure += mark == "unsure"
                label = escape_formula(classifier.class_names[likely.argmax()])
                writer.writerow([escape_formula(name), label, f"{likely.max():.4f}", mark, ""])
    console = Console(stderr=out is None, markup=False)
    if unread:
        console.print(f"{unread:,} files could not be read: see the column problem.", highlight=False)
    if threshold is not None:
        reason = f"their probability is below {threshold:.2f}, the threshold for {precision:.0%} precision"
        if threshold > 1:
            reason = f"no threshold gave {precision:.0%} precision on the held-out labels"
        console.print(f"{unsure:,} of {done - unread:,} predictions are unsure: {reason}.", highlight=False)
    if out is not None:
        console.print(f"{done - unread:,} predictions: {out}", soft_wrap=True)


def _threshold(classifier: "Classifier", precision: float) -> float | None:
    if not 0.5 <= precision <= 0.99:
        raise InputError(f"--precision {precision:g}: must be in 0.5 to 0.99.")
    return classifier.thresholds.get(f"{precision:.2f}")
