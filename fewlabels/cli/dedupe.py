"""Images that are there more than once."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fewlabels.cli.csv_output import csv_rows, harmless, refuse_foreign
from fewlabels.cli.options import Images, Model, OutCsv

if TYPE_CHECKING:
    from fewlabels.data.listing import Listing


HEAD = ["group", "keep", "duplicate", "kind", "difference", "problem"]


def dedupe(model: Model, images: Images, out: OutCsv = None) -> None:
    """Find images that are there more than once: with the same pixels, or saved again in another size or quality.

    A row for each image that is not needed, with the one to keep: one with a label if there is one, then the largest
    file. Nothing is ever deleted.

    Example: `fewlabels dedupe runs/fit/model.safetensors photos -o pairs.csv`
    """
    import numpy as np

    from fewlabels.audit.file_facts import facts_of_array
    from fewlabels.audit.near_duplicates import difference, duplicates, small_pixels
    from fewlabels.backbones.weights import load_classifier, preparation_of
    from fewlabels.data.images import found_images
    from fewlabels.features.embeddings import embedded_batch, refuse_without_faiss

    refuse_foreign(out, HEAD)
    classifier = load_classifier(model)
    digests: list[str] = []
    found = found_images(images)
    refuse_without_faiss(len(found.names))
    batches = found.batches(
        preparation_of(classifier, model), lambda image: digests.append(facts_of_array(image, "").digest)
    )
    names: list[str] = []
    places: list[int] = []
    vectors, pixels = [], []
    problems: dict[str, str] = {}
    seen = 0
    for batch in batches:
        names += [batch.names[place] for place in batch.read]
        places += [seen + place for place in batch.read]
        vectors.append(embedded_batch(classifier, batch))
        pixels.append(np.rint(255 * small_pixels(batch.pixels)).astype(np.uint8))
        problems.update({batch.names[place]: line for place, line in batch.wrong.items()})
        seen += len(batch.names)
    small = np.concatenate(pixels)
    groups = duplicates(np.concatenate(vectors), small, digests) if names else []
    with csv_rows(out) as writer:
        writer.writerow(HEAD)
        for number, group in enumerate(groups, 1):
            keep = max(group.tolist(), key=lambda row: (*_worth(found.listing, places[row]), -row))
            others = group[group != keep]
            apart = difference(small[[keep]] / np.float32(255), small[others] / np.float32(255))
            for row, far in zip(others.tolist(), apart.tolist(), strict=True):
                exact = digests[row] == digests[keep]
                cells = [harmless(names[keep]), harmless(names[row]), "exact" if exact else "near"]
                writer.writerow([number, *cells, f"{0 if exact else far:.3f}", ""])
        for name, line in problems.items():
            writer.writerow(["", "", harmless(name), "", "", harmless(line)])
    console = Console(stderr=out is None, markup=False)
    if problems:
        console.print(f"{len(problems):,} files could not be read: see the column problem.", highlight=False)
    spare = sum(len(group) - 1 for group in groups)
    said = f"{spare:,} of {len(names):,} images are not needed, in {len(groups):,} groups; nothing was deleted"
    console.print(said if out is None else f"{said}: {out}", highlight=False, soft_wrap=True)


def _worth(listing: "Listing | None", row: int) -> tuple[bool, int]:
    """Whether an image has a label, and the size of its file, in bytes: of copies the largest has lost least."""
    from fewlabels.data.source import UNLABELLED

    if listing is None:
        return False, 0
    labelled, item = bool(listing.labels[row] != UNLABELLED), listing.item(row)
    if isinstance(item, bytes):
        return labelled, len(item)
    return labelled, Path(item).stat().st_size if listing.root.is_dir() else 0  # rows of an array are alike
