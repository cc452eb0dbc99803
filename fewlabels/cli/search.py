"""The command ``search``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, escape_formula, refuse_other_file
from fewlabels.cli.options import Images, Model, OutCsv, Root, at_least

HEADER = ["query", "rank", "image", "similarity", "problem"]
"""Columns of the table."""


def search(
    model: Model,
    query: Annotated[Path, typer.Argument(help="Query images: an image file or a folder.", metavar="QUERY")],
    images: Images,
    number: Annotated[
        int, typer.Option("--number", "-n", help="Number of images to find per query.", metavar="N")
    ] = 10,
    out: OutCsv = None,
    root: Root = None,
) -> None:
    """Find the images that are most similar to query images.

    Similarity is the cosine of the embeddings from the model's backbone, 1 for equal images. An image that cannot be
    read has an error message.

    Example: `fewlabels search runs/fit/model.safetensors one.png photos -n 20`
    """
    from fewlabels.backbones.weights import load_classifier, preprocessing_of
    from fewlabels.features.embeddings import embed_images, nearest

    at_least("--number", number)
    refuse_other_file(out, HEADER)
    classifier = load_classifier(model)
    preprocessing = preprocessing_of(classifier, model)
    queries, found = (embed_images(classifier, path, preprocessing, root or ()) for path in (query, images))
    for path, embeddings in ((query, queries), (images, found)):
        if not embeddings.names:
            raise InputError(
                f"{path}: {next(iter(embeddings.problems.values()))}. Pass at least one image that can be read."
            )
    rows, similarity = nearest(queries.vectors, found.vectors, number)
    with csv_rows(out) as writer:
        writer.writerow(HEADER)
        for name, message in queries.problems.items():
            writer.writerow([escape_formula(name), "", "", "", escape_formula(message)])
        for name, nearest_rows, cosines in zip(queries.names, rows.tolist(), similarity.tolist(), strict=True):
            for rank, (row, cosine) in enumerate(zip(nearest_rows, cosines, strict=True), 1):
                writer.writerow([escape_formula(name), rank, escape_formula(found.names[row]), f"{cosine:.4f}", ""])
        for name, message in found.problems.items():
            writer.writerow(["", "", escape_formula(name), "", escape_formula(message)])
    console = Console(stderr=out is None, markup=False)
    unread = len(queries.problems) + len(found.problems)
    if unread:
        console.print(f"{unread:,} files could not be read: see the column problem.", highlight=False)
    if out is not None:
        console.print(
            f"{len(queries.names):,} queries, {len(found.names):,} images searched: {out}",
            highlight=False,
            soft_wrap=True,
        )
