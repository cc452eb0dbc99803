"""Result files that are written row by row, so that a stopped benchmark goes on."""

import json
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fewlabels._internal.environment import provenance
from fewlabels._internal.files import write_json

RESULTS = Path(__file__).parent / "results"


class ResultFile:
    """``benchmarks/results/NAME.json``; rows are known by the values of their keys.

    The head is that of the last start that added a row; each row says when and at which commit it was measured.
    """

    def __init__(self, name: str, command: str, keys: tuple[str, ...], folder: Path = RESULTS) -> None:
        self.path = folder / f"{name}.json"
        self.keys = keys
        self.head = {"name": name, **provenance(command), "commit": _commit()}
        self.rows = self._read()

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The row with these values, if it is there."""
        return next((row for row in self.rows if all(row[name] == key[name] for name in self.keys)), None)

    def has(self, **key: Any) -> bool:
        """Whether a row with these values is there."""
        return self.find(**key) is not None

    def replace(self, rows: list[dict[str, Any]]) -> None:
        """Add rows that were measured together, in the place of those with the same keys; written at once."""
        known = [{name: row[name] for name in self.keys} for row in rows]
        kept = [row for row in self.rows if {name: row[name] for name in self.keys} not in known]
        self.rows = kept + [self._dated(row) for row in rows]
        write_json(self.path, {**self.head, "rows": self.rows})

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, or leave the one that is there; written at once, beside what other starts have added meanwhile."""
        self.rows = self._read()
        if not self.has(**row):
            self.rows.append(self._dated(row))
            write_json(self.path, {**self.head, "rows": self.rows})

    def _read(self) -> list[dict[str, Any]]:
        return list(json.loads(self.path.read_text())["rows"]) if self.path.is_file() else []

    def _dated(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"date": _now(), "commit": self.head["commit"], **row}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
