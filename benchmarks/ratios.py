"""What the rows of ``pretrain_speed.json`` say of ours beside the others."""

from statistics import median
from typing import Any


def ratio(rows: dict[str, dict[str, Any]], other: str) -> float:
    """Ours over another arm: the median over turns beside each other."""
    if other == "ours":
        return 1.0
    beside = zip(rows[other]["ours_beside"], rows[other]["rounds"], strict=True)
    middle: float = median(ours / theirs for ours, theirs in beside)
    return middle


def fastest_floor(rows: dict[str, dict[str, Any]]) -> str:
    """Of eager and compiled, in either memory format, the one with the highest median."""
    return max((name for name in rows if name.startswith("floor")), key=lambda name: rows[name]["images_per_second"])


def article_rows(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows with the tutorial's network, by arm."""
    return {row["what"]: row for row in rows if row["backbone"] == "article"}


def ratios(rows: dict[str, dict[str, Any]]) -> str:
    """What the tutorial's network gives, as lines of text."""
    lines = [
        f"{name:30} {row['images_per_second']:8,.0f} img/s  ours is {ratio(rows, name):.2f} of it"
        for name, row in rows.items()
    ]
    lines += [
        f"ours / article          {ratio(rows, 'article'):.2f} (wanted: 1.4)",
        f"ours / lightly          {ratio(rows, 'lightly'):.2f} (wanted: 2.5)",
        f"ours / fastest floor    {ratio(rows, fastest_floor(rows)):.2f} (wanted: 0.93)",
    ]
    return "\n".join(lines)
