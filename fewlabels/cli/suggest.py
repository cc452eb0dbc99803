"""The command ``suggest``."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, escape_formula, path_cell, path_to_images
from fewlabels.cli.options import Root, Size, at_least, fit_command, opened_data

if TYPE_CHECKING:
    import numpy as np

    from fewlabels.data.listing import Listing

MAX_CANDIDATES = 100_000
"""Number of unlabelled images considered; if there are more, a random sample. Not tuned."""


class Candidates(NamedTuple):
    """Unlabelled images that could be read."""

    rows: "np.ndarray"
    """int64 [N], rows of the listing."""
    features: "np.ndarray"
    """float32 [N, F]."""
    predictions: "tuple[np.ndarray, tuple[str, ...]] | None"
    """The model's probabilities, float32 [N, K], and its class names; None without a model."""
    problems: dict[int, str]
    """Error message by row of the listing, for images that could not be read."""


def suggest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Optional: the model.safetensors of a fit. Then a folder or a table of images.",
            metavar="[MODEL] DATA",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="CSV file to write, in the folder of the images or a parent folder.", metavar="FILE"
        ),
    ],
    number: Annotated[int, typer.Option("--number", "-n", help="Number of images to label.", metavar="N")] = 100,
    first: Annotated[
        bool,
        typer.Option("--first", help="Choose a varied first batch; ignore the model's confidence.", metavar=""),
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed suggests the same images.", metavar="N")] = 0,
    size: Size = None,
    root: Root = None,
) -> None:
    """Select the images to label next, and write them to a table to fill in.

    With a model, these are images of which it is unsure and that differ from each other. Without a model or with
    --first, they are one image from each cluster of similar images. The table also lists all other images below them,
    so every command takes it as DATA.

    Example: `fewlabels suggest runs/fit/model.safetensors photos -n 100 -o to_label.csv`
    """
    import numpy as np

    from fewlabels._internal.seeding import seed_from
    from fewlabels.active.suggest import first_batch, next_batch
    from fewlabels.data.listing import list_images
    from fewlabels.data.source import UNLABELLED

    at_least("--number", number)
    *model, data = paths
    if len(model) > 1:
        raise InputError(f"{data}: one path too many. Pass a model and DATA, or only DATA.")
    if model and size is not None:
        raise InputError(f"--size {size}: the model {model[0]} has a fixed image size. Leave out --size.")
    listing = list_images(data, root or ())
    folder = _relative_folder(out, listing, data)
    unlabelled = np.flatnonzero((listing.labels == UNLABELLED) & (np.array(listing.splits) != "test"))
    if not len(unlabelled):
        raise InputError(f"{data}: every image has a label or is in the test set. Add unlabelled images.")
    if len(unlabelled) > MAX_CANDIDATES:
        rng = np.random.default_rng(seed_from(seed, "looked at"))
        unlabelled = np.sort(rng.choice(unlabelled, MAX_CANDIDATES, replace=False))
    console = Console(markup=False)
    if model:
        found = _embedded_by_model(model[0], data, unlabelled, root or [])
    else:
        found = _with_gradient_features(data, listing, unlabelled, size, console, root)
    if not len(found.rows):
        raise InputError(
            f"{data}: {next(iter(found.problems.values()))}. No other unlabelled image can be read either."
        )
    if found.predictions is None or first:
        chosen = first_batch(found.features, number, seed)
    else:
        chosen = next_batch(found.features, found.predictions[0], number, seed)
    cells = {}
    for index, cluster_size in zip(chosen.rows.tolist(), chosen.cluster_sizes.tolist(), strict=True):
        why = f"one of {cluster_size:,} similar images" if cluster_size > 1 else "no similar image"
        guess = probability = ""
        if found.predictions is not None:
            likely, names = found.predictions[0][index], found.predictions[1]
            order = np.argsort(-likely, kind="stable")
            guess, probability = names[order[0]], f"{likely[order[0]]:.4f}"
            if not first and len(order) > 1:
                why = f"{guess} or {names[order[1]]}? {why}"
        cells[int(found.rows[index])] = [guess, probability, why]
    _write(out, folder, listing, cells, found.problems)
    if found.problems:
        console.print(f"{len(found.problems):,} files could not be read: see the column why.", highlight=False)
    line = f"The first {len(cells):,} rows of {out} are the images to label. Fill in the column label, then run: "
    console.print(f"{line}{fit_command(out)}", highlight=False, soft_wrap=True)


def _embedded_by_model(file: Path, data: Path, candidates: "np.ndarray", roots: list[Path]) -> Candidates:
    """Compute the model's embeddings and predictions of these rows of the listing."""
    import numpy as np

    from fewlabels.backbones.inference import outputs
    from fewlabels.backbones.weights import load_classifier, preprocessing_of
    from fewlabels.data.images import image_batches
    from fewlabels.metrics.classification import probabilities

    classifier = load_classifier(file)
    rows, features, predicted = [], [], []
    problems: dict[int, str] = {}
    start = 0
    for batch in image_batches(data, preprocessing_of(classifier, file), roots):
        problems |= {start + index: message for index, message in batch.wrong.items()}
        read = start + np.array(batch.read, dtype=np.int64)
        is_candidate = np.isin(read, candidates)
        if is_candidate.any():
            source = batch.source().subset(is_candidate.nonzero()[0])
            rows.append(read[is_candidate])
            features.append(outputs(classifier.backbone, source))
            predicted.append(probabilities(outputs(classifier, source)))
        start += len(batch.names)
    if not rows:
        return Candidates(candidates[:0], np.empty((0, 0)), None, problems)
    predictions = np.concatenate(predicted), classifier.class_names
    return Candidates(np.concatenate(rows), np.concatenate(features), predictions, problems)


def _with_gradient_features(
    data: Path,
    listing: "Listing",
    candidates: "np.ndarray",
    size: int | None,
    console: Console,
    roots: list[Path] | None,
) -> Candidates:
    """Compute gradient features of these rows of the listing, without a model."""
    import numpy as np

    from fewlabels.features.hog import gradient_features

    found = opened_data(str(data), None, console, size=size, roots=roots)
    row_of = {name: row for row, name in enumerate(listing.names)}
    rows = np.array([row_of[name] for name in found.names[0]], dtype=np.int64)
    selected = np.isin(rows, candidates)
    problems = {row_of[name]: message for name, message in found.failed.items()}
    features = gradient_features(found.train.subset(selected.nonzero()[0])) if selected.any() else np.empty((0, 0))
    return Candidates(rows[selected], features, None, problems)


def _relative_folder(out: Path, listing: "Listing", data: Path) -> PurePosixPath:
    """Return the relative path from the table's folder to the folder of the images.

    Raises:
        InputError: if the table cannot be written there, or the file exists.
    """
    if listing.contents is not None:
        raise InputError(f"{data}: contains the images itself. Pass a folder of images, or a table of their paths.")
    folder = path_to_images(out, "--out", listing.root)
    if out.exists():
        raise InputError(f"--out {out}: exists and may contain labels. Choose another name.")
    return folder


def _write(
    out: Path, folder: PurePosixPath, listing: "Listing", chosen: Mapping[int, list[str]], problems: Mapping[int, str]
) -> None:
    """Write all images of the listing, the chosen ones first; ``chosen`` has guess, probability and why by row."""
    more = {name: of for name, of in (("split", listing.splits), ("group", listing.groups)) if any(of)}
    with csv_rows(out) as writer:
        writer.writerow(["path", "label", "guess", "probability", "why", *more])
        for row in [*chosen, *(row for row in range(len(listing.names)) if row not in chosen)]:
            label = listing.class_names[listing.labels[row]] if listing.labels[row] >= 0 else ""
            suggestion = chosen.get(row, ["", "", problems.get(row, "")])
            cells = [label, *suggestion, *(of[row] for of in more.values())]
            writer.writerow([path_cell(folder / listing.names[row]), *map(escape_formula, cells)])
