"""Ratios of fewlabels' speed to that of other pipelines, from the rows of ``pretrain_speed.json``."""

from statistics import median
from typing import Any


def ratio(rows: dict[str, dict[str, Any]], other: str) -> float:
    """Return the median over rounds of the ratio of our speed to another pipeline's, timed right after ours."""
    if other == "ours":
        return 1.0
    successive = zip(rows[other]["ours_beside"], rows[other]["rounds"], strict=True)
    middle: float = median(ours / theirs for ours, theirs in successive)
    return middle


def fastest_floor(rows: dict[str, dict[str, Any]]) -> str:
    """Return the bare training step with the highest speed: eager or compiled, in either memory format."""
    return max((name for name in rows if name.startswith("floor")), key=lambda name: rows[name]["images_per_second"])


def article_rows(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows with the tutorial's network, by pipeline."""
    return {row["what"]: row for row in rows if row["backbone"] == "article"}


def ratios(rows: dict[str, dict[str, Any]]) -> str:
    """Return speeds and ratios with the tutorial's network as lines of text."""
    lines = [
        f"{name:30} {row['images_per_second']:8,.0f} img/s  ours / this: {ratio(rows, name):.2f}"
        for name, row in rows.items()
    ]
    lines += [
        f"ours / article          {ratio(rows, 'article'):.2f} (target: 1.4)",
        f"ours / lightly          {ratio(rows, 'lightly'):.2f} (target: 2.5)",
        f"ours / fastest floor    {ratio(rows, fastest_floor(rows)):.2f} (target: 0.93)",
    ]
    return "\n".join(lines)
