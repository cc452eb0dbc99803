"""Which images to label next."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, harmless, path_cell, way_to_images
from fewlabels.cli.options import Size, at_least, fit_of, opened_data

if TYPE_CHECKING:
    import numpy as np

    from fewlabels.data.listing import Listing

LOOKED_AT = 100_000
"""Images without a label that are looked at; of more, so many are drawn at random."""


class Candidates(NamedTuple):
    """Images without a label that could be read."""

    rows: "np.ndarray"
    """int64 [N]: of the listing."""
    features: "np.ndarray"
    """float32 [N, F]."""
    guesses: "tuple[np.ndarray, tuple[str, ...]] | None"
    """A model's probabilities, float32 [N, K], and its classes."""
    problems: dict[int, str]
    """What is wrong with other images, by row of the listing."""


def suggest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="A model.safetensors written by fit, if there is one; and a folder or a table of images.",
            metavar="[MODEL] DATA",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="CSV file, in the folder of the images or above it.", metavar="FILE")
    ],
    number: Annotated[int, typer.Option("--number", "-n", help="Images to label.", metavar="N")] = 100,
    first: Annotated[
        bool, typer.Option("--first", help="As if nothing were labelled yet, whatever the model is sure of.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed suggests the same images.", metavar="N")] = 0,
    size: Size = None,
) -> None:
    """Say which images to label next, in a table to fill in.

    First come the images to label: those that the model is least sure of, unlike one another; without a model or with
    --first, one of each kind. All others follow, so that the table is DATA for any command.

    Example: `fewlabels suggest runs/fit/model.safetensors photos -n 100 -o to_label.csv`
    """
    import numpy as np

    from fewlabels._internal.seeding import seed_from
    from fewlabels.active.suggest import first_batch, next_batch
    from fewlabels.data.listing import listed
    from fewlabels.data.source import UNLABELLED

    at_least("--number", number)
    *model, data = paths
    if len(model) > 1:
        raise InputError(f"{data}: one path too many. Pass a model and DATA, or DATA alone.")
    if model and size is not None:
        raise InputError(f"--size {size}: {model[0]} has a size of its own. Leave it out.")
    listing = listed(data)
    folder = _folder_in_table(out, listing, data)
    asked = np.flatnonzero((listing.labels == UNLABELLED) & (np.array(listing.splits) != "test"))
    if not len(asked):
        raise InputError(f"{data}: every image has a label or is for the test. Add images without one.")
    if len(asked) > LOOKED_AT:
        drawn = np.random.default_rng(seed_from(seed, "looked at")).choice(asked, LOOKED_AT, replace=False)
        asked = np.sort(drawn)
    console = Console(markup=False)
    found = _by_model(model[0], data, asked) if model else _by_gradients(data, listing, asked, size, console)
    if not len(found.rows):
        raise InputError(
            f"{data}: {next(iter(found.problems.values()))}; nor can another image without a label be read."
        )
    if found.guesses is None or first:
        chosen = first_batch(found.features, number, seed)
    else:
        chosen = next_batch(found.features, found.guesses[0], number, seed)
    cells = {}
    for place, like in zip(chosen.rows.tolist(), chosen.stands_for.tolist(), strict=True):
        why = f"{like:,} like this" if like > 1 else "no other like this"
        guess = probability = ""
        if found.guesses is not None:
            likely, names = found.guesses[0][place], found.guesses[1]
            order = np.argsort(-likely, kind="stable")
            guess, probability = names[order[0]], f"{likely[order[0]]:.4f}"
            if not first and len(order) > 1:
                why = f"{guess} or {names[order[1]]}? {why}"
        cells[int(found.rows[place])] = [guess, probability, why]
    _write(out, folder, listing, cells, found.problems)
    if found.problems:
        console.print(f"{len(found.problems):,} files could not be read: see the column why.", highlight=False)
    said = f"{len(cells):,} images to label are the first rows of {out}. Fill in the column label, then: "
    console.print(f"{said}{fit_of(out)}", highlight=False, soft_wrap=True)


def _by_model(file: Path, data: Path, asked: "np.ndarray") -> Candidates:
    """What the model's backbone makes of these rows, and what it takes them for."""
    import numpy as np

    from fewlabels.backbones.inference import outputs
    from fewlabels.backbones.weights import load_classifier, preparation_of
    from fewlabels.data.images import image_batches
    from fewlabels.metrics.classification import probabilities

    classifier = load_classifier(file)
    rows, features, guesses = [], [], []
    problems: dict[int, str] = {}
    start = 0
    for batch in image_batches(data, preparation_of(classifier, file)):
        problems |= {start + place: line for place, line in batch.wrong.items()}
        read = start + np.array(batch.read, dtype=np.int64)
        wanted = np.isin(read, asked)
        if wanted.any():
            source = batch.source().subset(wanted.nonzero()[0])
            rows.append(read[wanted])
            features.append(outputs(classifier.backbone, source))
            guesses.append(probabilities(outputs(classifier, source)))
        start += len(batch.names)
    if not rows:
        return Candidates(asked[:0], np.empty((0, 0)), None, problems)
    known = np.concatenate(guesses), classifier.class_names
    return Candidates(np.concatenate(rows), np.concatenate(features), known, problems)


def _by_gradients(
    data: Path, listing: "Listing", asked: "np.ndarray", size: int | None, console: Console
) -> Candidates:
    """What needs no model."""
    import numpy as np

    from fewlabels.features.hog import gradient_features

    found = opened_data(str(data), None, console, size=size)
    row_of = {name: row for row, name in enumerate(listing.names)}
    rows = np.array([row_of[name] for name in found.names[0]], dtype=np.int64)
    wanted = np.isin(rows, asked)
    problems = {row_of[name]: line for name, line in found.failed.items()}
    features = gradient_features(found.train.subset(wanted.nonzero()[0])) if wanted.any() else np.empty((0, 0))
    return Candidates(rows[wanted], features, None, problems)


def _folder_in_table(out: Path, listing: "Listing", data: Path) -> PurePosixPath:
    """Where the images are, seen from the table.

    Raises:
        InputError: if a table there could not be DATA, or would take the place of another.
    """
    if listing.contents is not None:
        raise InputError(f"{data}: holds the images itself. Pass a folder of images, or a table of their paths.")
    way = way_to_images(out, "--out", listing.root)
    if out.exists():
        raise InputError(f"--out {out}: is there, and may hold labels. Choose another name.")
    return way


def _write(
    out: Path, folder: PurePosixPath, listing: "Listing", chosen: Mapping[int, list[str]], problems: Mapping[int, str]
) -> None:
    """All images of the listing, the chosen ones first; guess, probability and why by row."""
    more = {name: of for name, of in (("split", listing.splits), ("group", listing.groups)) if any(of)}
    with csv_rows(out) as writer:
        writer.writerow(["path", "label", "guess", "probability", "why", *more])
        for row in [*chosen, *(row for row in range(len(listing.names)) if row not in chosen)]:
            label = listing.class_names[listing.labels[row]] if listing.labels[row] >= 0 else ""
            said = chosen.get(row, ["", "", problems.get(row, "")])
            cells = [label, *said, *(of[row] for of in more.values())]
            writer.writerow([path_cell(folder / listing.names[row]), *map(harmless, cells)])
