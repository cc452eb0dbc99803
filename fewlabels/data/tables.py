"""Tables as columns of text: CSV and TSV, parquet, and datasets that Hugging Face's library has saved."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels._internal.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLES = (*SEPARATORS, ".parquet")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet's formulas begin with."""
IMAGE_COLUMNS = ("image", "img", "bytes")
"""That may hold image files themselves."""
SPLITS_THERE = {"validation": "train", "valid": "train", "val": "train"}
"""Hugging Face's names of splits that are ours by another."""


class Columns(NamedTuple):
    """What a table holds."""

    cells: dict[str, list[str]]
    """By the column's name in lower case; empty where a cell is."""
    contents: list[bytes] | None
    """Of image files, where a column holds them."""


def table_of(path: Path) -> Columns:
    """Read a table.

    Args:
        path: a file with one of the suffixes ``TABLES``, or a folder written by ``datasets``' ``save_to_disk``.

    Raises:
        InputError: if it is not whole, naming the row where one is at fault.
    """
    suffix = path.suffix.lower()
    if suffix in SEPARATORS:
        return Columns(_separated(path, SEPARATORS[suffix]), None)
    return _of_arrow(_parquet(path) if suffix == ".parquet" else _saved_dataset(path))


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by ``datasets``' ``save_to_disk``."""
    saved = (path / "state.json").is_file() and any(path.glob("*.arrow"))
    return saved or (path / "dataset_dict.json").is_file()


def _separated(file: Path, separator: str) -> dict[str, list[str]]:
    """Columns of a CSV or TSV file, names in lower case."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            first = text.readline()
            if separator == "," and ";" in first and "," not in first:
                separator = ";"  # as spreadsheets of many countries write it
            text.seek(0)
            rows = list(csv.reader(text, delimiter=separator, strict=True))
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text. Save the table as 'CSV UTF-8'.") from None
    except csv.Error as error:
        raise InputError(f"{file}: not a whole table ({error}). Save it again.") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}).") from None
    head = [name.strip().lower() for name in rows[0]] if rows else []
    if len(set(head)) < len(head):
        raise InputError(f"{file}: two columns have the same name. Rename one.")
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    for place, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise InputError(f"{file}, row {place}: {len(row)} cells, the head has {len(head)}. Fix the row.")
    return {
        name: [row[column].strip() if name == "path" else _meant(row[column].strip()) for row in rows[1:]]
        for column, name in enumerate(head)
    }


def _meant(cell: str) -> str:
    """Without the sign that our own tables put before what a spreadsheet would take for a formula; quotes are none."""
    marked = cell.startswith("'") and not cell.endswith("'") and cell.lstrip("'")[:1] in FORMULAS
    return cell[1:] if marked else cell


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError(f"{path}: needs pyarrow. Run: pip install 'fewlabels[parquet]', or save it as CSV.") from None
    return pyarrow


def _parquet(file: Path) -> Any:
    pyarrow = _pyarrow(file)
    try:
        return pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError):
        raise InputError(f"{file}: not a whole parquet file. Write it again.") from None


def _saved_dataset(folder: Path) -> Any:
    """One table of all splits, with a column that names them."""
    pyarrow = _pyarrow(folder)
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = [str(split) for split in json.loads((folder / "dataset_dict.json").read_text())["splits"]]
        else:
            splits = [""]
        tables = []
        for split in splits:
            part = folder / _plain_name(split) if split else folder
            for file in json.loads((part / "state.json").read_text())["_data_files"]:
                with pyarrow.OSFile(str(part / _plain_name(file["filename"]))) as content:
                    table = pyarrow.ipc.open_stream(content).read_all()
                if split:
                    names = pyarrow.array([SPLITS_THERE.get(split, split)] * len(table))
                    table = table.append_column("split", names)
                tables.append(table)
        return pyarrow.concat_tables(tables)
    except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise InputError(f"{folder}: not a whole dataset. Write it again with save_to_disk.") from None


def _plain_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{name!r} leads elsewhere")
    return name


def _of_arrow(table: Any) -> Columns:
    cells = {name.lower(): table[name].to_pylist() for name in table.column_names}
    for name, classes in _class_names(table).items():
        known = dict(enumerate(classes))
        cells[name] = [known.get(cell) for cell in cells[name]]
    contents: list[bytes] | None = None
    for name in IMAGE_COLUMNS:
        column = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells.get(name, [])]
        found = [cell for cell in column if isinstance(cell, bytes)]
        if found and len(found) == len(column):
            contents = found
            del cells[name]
            cells.setdefault("path", [f"row {row}" for row in range(len(contents))])
            break
    words = {name: ["" if cell is None else str(cell).strip() for cell in column] for name, column in cells.items()}
    return Columns(words, contents)


def _class_names(table: Any) -> dict[str, list[str]]:
    """By column, the names of its numbers, where Hugging Face's library has noted them."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name.lower(): [str(word) for word in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError):
        return {}
