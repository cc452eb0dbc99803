"""Colours of classes."""

import colorsys

PALETTE = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#7f7f7f",
)  # fmt: skip
"""Tableau 10."""


def class_colour(index: int) -> str:
    """The colour of a class as ``#rrggbb``; the first ten are from a palette of distinct colours."""
    if index < len(PALETTE):
        return PALETTE[index]
    lightness = (0.42, 0.55, 0.68)[index % 3]
    parts = colorsys.hls_to_rgb(index * 0.61803 % 1, lightness, 0.55)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
