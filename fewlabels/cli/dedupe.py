"""The command ``dedupe``."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fewlabels.cli.csv_output import csv_rows, escape_formula, refuse_other_file
from fewlabels.cli.options import Images, Model, OutCsv, Root

if TYPE_CHECKING:
    from fewlabels.data.listing import Listing


HEADER = ["group", "keep", "duplicate", "kind", "difference", "problem"]
"""Columns of the table."""


def dedupe(model: Model, images: Images, out: OutCsv = None, root: Root = None) -> None:
    """Find duplicate images: with equal pixels, or saved again in another size or quality.

    The table has a row for each redundant image, with the image to keep: preferably one with a label, then the largest
    file. No file is deleted. Unlike check, this command needs a model, and also compares images of different sizes.

    Example: `fewlabels dedupe runs/fit/model.safetensors photos -o pairs.csv`
    """
    import numpy as np

    from fewlabels.audit.file_facts import facts_of_array
    from fewlabels.audit.near_duplicates import difference, duplicates, small_pixels
    from fewlabels.backbones.weights import load_classifier, preprocessing_of
    from fewlabels.data.images import find_images
    from fewlabels.features.embeddings import embed_batch, refuse_without_faiss

    refuse_other_file(out, HEADER)
    classifier = load_classifier(model)
    digests: list[str] = []
    found = find_images(images, root or ())
    refuse_without_faiss(len(found.names))
    batches = found.batches(
        preprocessing_of(classifier, model), lambda image: digests.append(facts_of_array(image, "").digest)
    )
    names: list[str] = []
    collection_rows: list[int] = []
    vectors, pixels = [], []
    problems: dict[str, str] = {}
    first_row = 0
    for batch in batches:
        names += [batch.names[index] for index in batch.read]
        collection_rows += [first_row + index for index in batch.read]
        vectors.append(embed_batch(classifier, batch))
        pixels.append(np.rint(255 * small_pixels(batch.pixels)).astype(np.uint8))
        problems.update({batch.names[index]: message for index, message in batch.wrong.items()})
        first_row += len(batch.names)
    small = np.concatenate(pixels)
    groups = duplicates(np.concatenate(vectors), small, digests) if names else []
    with csv_rows(out) as writer:
        writer.writerow(HEADER)
        for number, group in enumerate(groups, 1):
            keep = max(group.tolist(), key=lambda row: (*_priority(found.listing, collection_rows[row]), -row))
            others = group[group != keep]
            differences = difference(small[[keep]] / np.float32(255), small[others] / np.float32(255))
            for row, value in zip(others.tolist(), differences.tolist(), strict=True):
                exact = digests[row] == digests[keep]
                cells = [escape_formula(names[keep]), escape_formula(names[row]), "exact" if exact else "near"]
                writer.writerow([number, *cells, f"{0 if exact else value:.3f}", ""])
        for name, message in problems.items():
            writer.writerow(["", "", escape_formula(name), "", "", escape_formula(message)])
    console = Console(stderr=out is None, markup=False)
    if problems:
        console.print(f"{len(problems):,} files could not be read: see the column problem.", highlight=False)
    redundant = sum(len(group) - 1 for group in groups)
    line = f"{redundant:,} of {len(names):,} images are redundant, in {len(groups):,} groups; no file was deleted"
    console.print(line if out is None else f"{line}: {out}", highlight=False, soft_wrap=True)


def _priority(listing: "Listing | None", row: int) -> tuple[bool, int]:
    """Return whether an image has a label, and its file size in bytes: a larger file has lost less to compression."""
    from fewlabels.data.source import UNLABELLED

    if listing is None:
        return False, 0
    labelled, item = bool(listing.labels[row] != UNLABELLED), listing.item(row)
    if isinstance(item, bytes):
        return labelled, len(item)
    return labelled, Path(item).stat().st_size if listing.root.is_dir() else 0  # rows of an array have the same size
