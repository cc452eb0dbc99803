"""Read tables as columns of text: CSV, TSV, parquet, and data sets saved by Hugging Face's ``datasets``."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels._internal.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Column separator by file suffix."""
TABLE_SUFFIXES = (*SEPARATORS, ".parquet")
"""Suffixes of the files that :func:`read_table` reads."""
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")
"""First characters of cells that a spreadsheet may run as a formula."""
IMAGE_COLUMNS = ("image", "img", "bytes")
"""Columns that may hold image files themselves."""
SPLIT_ALIASES = {"validation": "train", "valid": "train", "val": "train"}
"""Other names of our splits: names of validation splits in Hugging Face data sets and in folders."""


class Columns(NamedTuple):
    """The content of a table."""

    cells: dict[str, list[str]]
    """Cells by the column's name in lower case; a missing cell is empty text."""
    contents: list[bytes] | None
    """Contents of the image files, if a column holds them."""


def read_table(path: Path) -> Columns:
    """Read all columns of a table.

    Args:
        path: a file with one of the suffixes ``TABLE_SUFFIXES``, or a folder written by ``datasets``' ``save_to_disk``.

    Raises:
        InputError: if the table is damaged; the message names the row if there is one.
    """
    suffix = path.suffix.lower()
    if suffix in SEPARATORS:
        return Columns(_read_csv(path, SEPARATORS[suffix]), None)
    return _columns_from_arrow(_read_parquet(path) if suffix == ".parquet" else _read_saved_dataset(path))


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder was written by ``datasets``' ``save_to_disk``."""
    saved = (path / "state.json").is_file() and any(path.glob("*.arrow"))
    return saved or (path / "dataset_dict.json").is_file()


def _read_csv(file: Path, separator: str) -> dict[str, list[str]]:
    """Return the columns of a CSV or TSV file, with names in lower case."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            first = text.readline()
            if separator == "," and ";" in first and "," not in first:
                separator = ";"  # spreadsheets write it in countries with a decimal comma
            text.seek(0)
            rows = list(csv.reader(text, delimiter=separator, strict=True))
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text. Save the table as 'CSV UTF-8'.") from None
    except csv.Error as error:
        raise InputError(f"{file}: not a whole table ({error}). Save it again.") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}).") from None
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if len(set(header)) < len(header):
        raise InputError(f"{file}: two columns have the same name. Rename one.")
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"{file}, row {number}: {len(row)} cells, the header has {len(header)}. Fix the row.")
    return {
        name: [row[column].strip() if name == "path" else _unescape_formula(row[column].strip()) for row in rows[1:]]
        for column, name in enumerate(header)
    }


def _unescape_formula(cell: str) -> str:
    """Remove the apostrophe that ``escape_formula`` puts before a formula; a quoted cell stays unchanged."""
    escaped = cell.startswith("'") and not cell.endswith("'") and cell.lstrip("'")[:1] in FORMULA_PREFIXES
    return cell[1:] if escaped else cell


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError(f"{path}: needs pyarrow. Run: pip install 'fewlabels[parquet]', or save it as CSV.") from None
    return pyarrow


def _read_parquet(file: Path) -> Any:
    pyarrow = _pyarrow(file)
    try:
        return pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError):
        raise InputError(f"{file}: not a whole parquet file. Write it again.") from None


def _read_saved_dataset(folder: Path) -> Any:
    """Return one table of all splits, with a column ``split``."""
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
                    names = pyarrow.array([SPLIT_ALIASES.get(split, split)] * len(table))
                    table = table.append_column("split", names)
                tables.append(table)
        return pyarrow.concat_tables(tables)
    except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise InputError(f"{folder}: not a whole dataset. Write it again with save_to_disk.") from None


def _plain_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a file in the folder")
    return name


def _columns_from_arrow(table: Any) -> Columns:
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
    """Return class names by column, for the columns of class numbers that Hugging Face's metadata describe."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name.lower(): [str(word) for word in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError):
        return {}
