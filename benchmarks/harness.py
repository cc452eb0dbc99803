"""Result files that are written row by row, so that an interrupted benchmark can resume."""

import json
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fewlabels._internal.environment import provenance
from fewlabels._internal.files import write_json

RESULTS = Path(__file__).parent / "results"
"""Folder of the result files."""


class ResultFile:
    """``benchmarks/results/NAME.json``: a head with machine and versions, and rows, each with its date and commit.

    The head describes the last run that added a row.

    Args:
        name: of the file, without its suffix.
        command: command line that measures the rows.
        keys: columns whose values identify a row.
        folder: of the file.
    """

    def __init__(self, name: str, command: str, keys: tuple[str, ...], folder: Path = RESULTS) -> None:
        self.path = folder / f"{name}.json"
        self.keys = keys
        self.head = {"name": name, **provenance(command), "commit": _commit()}
        self.rows = self._read()

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the row with these values of the keys; None if there is none."""
        return next((row for row in self.rows if all(row[name] == key[name] for name in self.keys)), None)

    def has(self, **key: Any) -> bool:
        """Return True if there is a row with these values of the keys."""
        return self.find(**key) is not None

    def replace(self, rows: list[dict[str, Any]]) -> None:
        """Add rows that were measured together, replace rows with the same keys, and write the file."""
        new_keys = [{name: row[name] for name in self.keys} for row in rows]
        others = [row for row in self.rows if {name: row[name] for name in self.keys} not in new_keys]
        self.rows = others + [self._with_date(row) for row in rows]
        write_json(self.path, {**self.head, "rows": self.rows})

    def add(self, row: dict[str, Any]) -> None:
        """Add a row to the rows now in the file, unless a row with its keys exists, and write the file."""
        self.rows = self._read()
        if not self.has(**row):
            self.rows.append(self._with_date(row))
            write_json(self.path, {**self.head, "rows": self.rows})

    def _read(self) -> list[dict[str, Any]]:
        return list(json.loads(self.path.read_text())["rows"]) if self.path.is_file() else []

    def _with_date(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"date": _now(), "commit": self.head["commit"], **row}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
