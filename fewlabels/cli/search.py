"""Images that look alike to a model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, harmless, refuse_foreign
from fewlabels.cli.options import Images, Model, OutCsv, at_least

HEAD = ["query", "rank", "image", "similarity", "problem"]


def search(
    model: Model,
    query: Annotated[Path, typer.Argument(help="An image, or a folder of them: what to look for.", metavar="QUERY")],
    images: Images,
    number: Annotated[int, typer.Option("--number", "-n", help="Images to find for each.", metavar="N")] = 10,
    out: OutCsv = None,
) -> None:
    """Find the images that are most like others, by what the model's backbone makes of them.

    Similarity is the cosine of the two vectors: 1 for the same image. A file that cannot be read has a row that says
    why, and the others go on.

    Example: `fewlabels search runs/fit/model.safetensors one.png photos -n 20`
    """
    from fewlabels.backbones.weights import load_classifier, preparation_of
    from fewlabels.features.embeddings import embedded, nearest

    at_least("--number", number)
    refuse_foreign(out, HEAD)
    classifier = load_classifier(model)
    preparation = preparation_of(classifier, model)
    asked, found = (embedded(classifier, path, preparation) for path in (query, images))
    for path, part in ((query, asked), (images, found)):
        if not part.names:
            raise InputError(f"{path}: {next(iter(part.problems.values()))}. Pass at least one image that can be read.")
    rows, similarity = nearest(asked.vectors, found.vectors, number)
    with csv_rows(out) as writer:
        writer.writerow(HEAD)
        for name, line in asked.problems.items():
            writer.writerow([harmless(name), "", "", "", harmless(line)])
        for name, its_rows, its_cosines in zip(asked.names, rows.tolist(), similarity.tolist(), strict=True):
            for rank, (row, cosine) in enumerate(zip(its_rows, its_cosines, strict=True), 1):
                writer.writerow([harmless(name), rank, harmless(found.names[row]), f"{cosine:.4f}", ""])
        for name, line in found.problems.items():
            writer.writerow(["", "", harmless(name), "", harmless(line)])
    console = Console(stderr=out is None, markup=False)
    unread = len(asked.problems) + len(found.problems)
    if unread:
        console.print(f"{unread:,} files could not be read: see the column problem.", highlight=False)
    if out is not None:
        console.print(
            f"{len(asked.names):,} sought among {len(found.names):,} images: {out}",
            highlight=False,
            soft_wrap=True,
        )
