"""What a model's backbone makes of images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import csv_rows, harmless, refuse_foreign
from fewlabels.cli.options import Images, Model

if TYPE_CHECKING:
    import numpy as np

HEAD = ["image", "row", "problem"]
"""Of the table beside a .npy file."""

Add = Callable[[list[str], "np.ndarray", dict[int, str]], None]
"""Takes the names of a batch, float32 [B, F] of those that could be read, and what is wrong with others, by place."""


def embed(
    model: Model,
    images: Images,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .npy file, with a .csv of the names beside it; or .parquet.")
    ],
) -> None:
    """Write a vector for each image: what the model's backbone makes of it, before the head names a class.

    A file that cannot be read has no vector but a line that says why, and the others go on.

    Example: `fewlabels embed runs/fit/model.safetensors photos -o photos.npy`
    """
    from fewlabels.backbones.weights import load_classifier, preparation_of
    from fewlabels.data.images import image_batches
    from fewlabels.features.embeddings import embedded_batch

    kinds = {".npy": _npy, ".parquet": _parquet}
    if out.suffix.lower() not in kinds:
        raise InputError(f"--out {out}: not a kind of file that can hold vectors. End it with .npy or .parquet.")
    classifier = load_classifier(model)
    preparation = preparation_of(classifier, model)
    width = classifier.backbone.num_features
    done = unread = 0
    with kinds[out.suffix.lower()](out, width) as add:
        for batch in image_batches(images, preparation):
            add(batch.names, embedded_batch(classifier, batch), batch.wrong)
            done += len(batch.read)
            unread += len(batch.wrong)
    console = Console(markup=False)
    if unread:
        console.print(f"{unread:,} files could not be read: see the column problem.", highlight=False)
    console.print(f"{done:,} vectors of {width:,} numbers: {out}", highlight=False, soft_wrap=True)


@contextmanager
def _npy(out: Path, width: int) -> Iterator[Add]:
    """float32 [N, F], and beside it a table of the rows."""
    import numpy as np

    from fewlabels._internal.files import written_whole

    beside = out.with_suffix(".csv")
    refuse_foreign(beside, HEAD)
    if out.exists() and not beside.exists():
        raise InputError(f"{out}: is there, without a table of names beside it. Choose another name with --out.")
    rows = 0

    def head() -> None:
        file.seek(0)
        shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(file, shape)  # as long for any number of rows

    def add(names: list[str], vectors: "np.ndarray", wrong: dict[int, str]) -> None:
        nonlocal rows
        for place, name in enumerate(names):
            problem = wrong.get(place)
            writer.writerow([harmless(name), rows if problem is None else "", harmless(problem or "")])
            rows += problem is None
        file.write(vectors.astype("<f4").tobytes())

    with written_whole(out) as temporary, temporary.open("wb") as file, csv_rows(beside) as writer:
        writer.writerow(HEAD)
        head()
        yield add
        head()


@contextmanager
def _parquet(out: Path, width: int) -> Iterator[Add]:
    """A row for each image: its name, its vector, and what is wrong with it."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter, read_schema
    except ModuleNotFoundError:
        raise InputError(f"{out}: needs pyarrow. Run: pip install 'fewlabels[parquet]', or write .npy.") from None
    from fewlabels._internal.files import written_whole

    schema = pa.schema({"image": pa.string(), "embedding": pa.list_(pa.float32()), "problem": pa.string()})
    if out.exists():
        try:
            ours = read_schema(out).names == schema.names
        except (pa.ArrowException, OSError):
            ours = False
        if not ours:
            raise InputError(f"{out}: is there, and is no table of vectors. Choose another name with --out.")

    def add(names: list[str], vectors: "np.ndarray", wrong: dict[int, str]) -> None:
        those = iter(vectors)
        cells = [None if place in wrong else next(those) for place in range(len(names))]
        problems = [wrong.get(place) for place in range(len(names))]
        plain = [name.encode(errors="backslashreplace").decode() for name in names]
        writer.write_table(pa.table({"image": plain, "embedding": cells, "problem": problems}, schema))

    with written_whole(out) as temporary, ParquetWriter(temporary, schema) as writer:
        yield add
