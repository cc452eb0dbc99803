"""The command ``embed``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, escape_formula, refuse_other_file
from fewlabels.cli.options import Images, Model, Root

if TYPE_CHECKING:
    import numpy as np

HEADER = ["image", "row", "problem"]
"""Columns of the table that is written with a .npy file."""

WriteBatch = Callable[[list[str], "np.ndarray", dict[int, str]], None]
"""Writes a batch: names of all images, embeddings float32 [B, F] of the readable ones, error messages by index."""


def embed(
    model: Model,
    images: Images,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="A .npy file, with a .csv file of the names; or a .parquet file.", metavar="FILE"
        ),
    ],
    root: Root = None,
) -> None:
    """Write the embedding of each image: the features of the model's backbone.

    An image that cannot be read has an error message instead of an embedding.

    Example: `fewlabels embed runs/fit/model.safetensors photos -o photos.npy`
    """
    from fewlabels.backbones.weights import load_classifier, preprocessing_of
    from fewlabels.data.images import image_batches
    from fewlabels.features.embeddings import embed_batch

    writers = {".npy": _npy, ".parquet": _parquet}
    if out.suffix.lower() not in writers:
        raise InputError(f"--out {out}: not a file type for embeddings. Give it the suffix .npy or .parquet.")
    classifier = load_classifier(model)
    preprocessing = preprocessing_of(classifier, model)
    width = classifier.backbone.num_features
    done = unread = 0
    with writers[out.suffix.lower()](out, width) as write_batch:
        for batch in image_batches(images, preprocessing, root or ()):
            write_batch(batch.names, embed_batch(classifier, batch), batch.wrong)
            done += len(batch.read)
            unread += len(batch.wrong)
    console = Console(markup=False)
    if unread:
        console.print(f"{unread:,} files could not be read: see the column problem.", highlight=False)
    console.print(f"{done:,} embeddings of {width:,} numbers: {out}", highlight=False, soft_wrap=True)


@contextmanager
def _npy(out: Path, width: int) -> Iterator[WriteBatch]:
    """Write float32 [N, F], and a table with the name of each row."""
    import numpy as np

    from fewlabels._internal.files import atomic_write

    table = out.with_suffix(".csv")
    refuse_other_file(table, HEADER)
    if out.exists() and not table.exists():
        raise InputError(f"{out}: exists without its table {table.name}. Choose another name with --out.")
    rows = 0

    def write_header() -> None:
        file.seek(0)
        shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(file, shape)  # its length does not depend on the number of rows

    def write_batch(names: list[str], vectors: "np.ndarray", wrong: dict[int, str]) -> None:
        nonlocal rows
        for index, name in enumerate(names):
            problem = wrong.get(index)
            writer.writerow([escape_formula(name), rows if problem is None else "", escape_formula(problem or "")])
            rows += problem is None
        file.write(vectors.astype("<f4").tobytes())

    with atomic_write(out) as temporary, temporary.open("wb") as file, csv_rows(table) as writer:
        writer.writerow(HEADER)
        write_header()
        yield write_batch
        write_header()


@contextmanager
def _parquet(out: Path, width: int) -> Iterator[WriteBatch]:
    """Write a row for each image: name, embedding, and error message."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter, read_schema
    except ModuleNotFoundError:
        raise InputError(f"{out}: needs pyarrow. Run: pip install 'fewlabels[parquet]', or write .npy.") from None
    from fewlabels._internal.files import atomic_write

    schema = pa.schema({"image": pa.string(), "embedding": pa.list_(pa.float32()), "problem": pa.string()})
    if out.exists():
        try:
            has_schema = read_schema(out).names == schema.names
        except (pa.ArrowException, OSError):
            has_schema = False
        if not has_schema:
            raise InputError(f"{out}: exists and was not written by this command. Choose another name with --out.")

    def write_batch(names: list[str], vectors: "np.ndarray", wrong: dict[int, str]) -> None:
        remaining = iter(vectors)
        cells = [None if index in wrong else next(remaining) for index in range(len(names))]
        problems = [wrong.get(index) for index in range(len(names))]
        escaped = [name.encode(errors="backslashreplace").decode() for name in names]
        writer.write_table(pa.table({"image": escaped, "embedding": cells, "problem": problems}, schema))

    with atomic_write(out) as temporary, ParquetWriter(temporary, schema) as writer:
        yield write_batch
