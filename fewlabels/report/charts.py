"""Charts as inline SVG that fit any width: positions are percentages, so that the size of text does not change.

Colours come from the page's style sheet by CSS class, which has a light and a dark variant.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

CURVE_NAME_GAP = 17
"""Minimum vertical distance of two curve names, in pixels."""


@dataclass(frozen=True)
class Scale:
    """A linear map from values to percent of a chart's width or height."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float], margin: float = 0.06) -> "Scale":
        """The scale that contains all values, with a margin on both sides as a fraction of their range."""
        values = list(values)
        low, high = min(values), max(values)
        pad = margin * (high - low) if high > low else 0.05 * abs(high) or 1.0
        return cls(low - pad, high + pad)

    def at(self, value: float) -> float:
        """The position of a value in percent: 0 at ``low``, 100 at ``high``."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    x: Sequence[float]
    y: Sequence[float]
    kind: str
    """CSS class: ``primary``, ``baseline``, ``other`` or ``run``."""
    name: str = ""
    """Text at the end of the curve."""
    spread: Sequence[float] | None = None
    """Half the height of the band around the curve, at each point."""


def ticks(low: float, high: float, most: int = 5) -> list[tuple[float, str]]:
    """Round values between ``low`` and ``high`` for an axis, with their text.

    >>> [text for _, text in ticks(-0.2, 1.1, 4)]
    ['0.0', '0.5', '1.0']
    >>> [text for _, text in ticks(0, 12000, 3)]
    ['0', '5,000', '10,000']
    """
    power = math.floor(math.log10((high - low) / most))
    factor = next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * 10.0**power) <= most)
    step, decimals = factor * 10.0**power, max(0, -power - (factor == 10))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:,.{decimals}f}".replace("-", "−")) for number in numbers]


def interval(
    scale: Scale, difference: tuple[float, float, float], pairs: Sequence[float], kind: str, description: str
) -> Markup:
    """A chart of a difference: a bar for its confidence interval, a dot for its mean, and below it a dot for each pair.

    Args:
        scale: of the horizontal axis.
        difference: mean, low and high end.
        pairs: the difference in each pair.
        kind: CSS class: ``helps``, ``hurts`` or ``unsure``.
        description: text for screen readers.
    """
    middle, low, high = map(scale.at, difference)
    parts = [
        Markup('<line class="zero" x1="{0}%" x2="{0}%" y1="0" y2="100%"/>').format(scale.at(0)),
        Markup('<rect class="bar" x="{}%" width="{}%" y="8" height="10" rx="5"/>').format(low, round(high - low, 2)),
        *(Markup('<circle class="pair" cx="{}%" cy="28" r="2.5"/>').format(scale.at(each)) for each in pairs),
        Markup('<circle class="middle" cx="{}%" cy="13" r="5.5"/>').format(middle),
    ]
    return Markup('<svg class="interval {}" height="36" role="img" aria-label="{}">{}</svg>').format(
        kind, description, Markup().join(parts)
    )


def axis(scale: Scale) -> Markup:
    """The numbers of a horizontal axis of differences, with signs."""
    parts = [
        Markup('<text x="{}%" y="14">{}</text>').format(scale.at(value), f"+{text}" if value > 1e-9 else text)
        for value, text in ticks(scale.low, scale.high, 7)
    ]
    return Markup('<svg class="axis" height="20" aria-hidden="true">{}</svg>').format(Markup().join(parts))


def lines(
    curves: Sequence[Line], height: int, x_ticks: Sequence[tuple[float, str]], x_title: str, description: str
) -> Markup:
    """A line chart. Curves have bands and names if these are given, and dots if they have at most 12 points.

    Args:
        curves: at least one, each with at least one point.
        height: in pixels.
        x_ticks: values of the horizontal axis with their text; empty: round values.
        x_title: title of the horizontal axis.
        description: text for screen readers.
    """
    x_scale = Scale.over((x for curve in curves for x in curve.x), margin=0.0)
    extents = [
        y + sign * s for curve in curves for y, s in zip(curve.y, _spread(curve), strict=True) for sign in (-1, 1)
    ]
    y_scale = Scale.over(extents)
    grid = [
        Markup('<line class="grid" x2="100%" y1="{0}%" y2="{0}%"/><text class="y" x="-8" y="{0}%">{1}</text>').format(
            round(100 - y_scale.at(value), 2), text
        )
        for value, text in ticks(y_scale.low, y_scale.high)
    ]
    below = [
        Markup('<text class="x" x="{}%" y="{}">{}</text>').format(x_scale.at(value), height + 20, text)
        for value, text in (x_ticks or ticks(x_scale.low, x_scale.high, 3))
    ]
    title = Markup('<text class="x title" x="50%" y="{}">{}</text>').format(height + 38, x_title)
    paths = Markup('<svg viewBox="0 0 100 100" width="100%" height="100%" preserveAspectRatio="none">{}</svg>').format(
        Markup().join(_paths(curve, x_scale, y_scale) for curve in curves)
    )
    few = max(len(curve.x) for curve in curves) <= 12
    dots = [_dots(curve, x_scale, y_scale) for curve in curves if few]
    names = _names([curve for curve in curves if curve.name], height, y_scale)
    inside = Markup().join([*grid, *below, title, paths, *dots, *names])
    return Markup('<svg class="lines" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height, description, inside
    )


def _spread(curve: Line) -> Sequence[float]:
    return curve.spread if curve.spread is not None else [0.0] * len(curve.y)


def _paths(curve: Line, x_scale: Scale, y_scale: Scale) -> Markup:
    def path(x: Iterable[float], y: Iterable[float]) -> str:
        return "M" + "L".join(f"{x_scale.at(a):g} {round(100 - y_scale.at(b), 2):g}" for a, b in zip(x, y, strict=True))

    drawn = Markup('<path class="line {}" d="{}"/>').format(curve.kind, path(curve.x, curve.y))
    if curve.spread is None:
        return drawn
    above = [y + s for y, s in zip(curve.y, curve.spread, strict=True)]
    below = [y - s for y, s in zip(curve.y, curve.spread, strict=True)]
    around = path([*curve.x, *reversed(curve.x)], [*above, *reversed(below)])
    return Markup('<path class="band {}" d="{}Z"/>').format(curve.kind, around) + drawn


def _dots(curve: Line, x_scale: Scale, y_scale: Scale) -> Markup:
    dot = Markup('<circle class="dot {}" cx="{}%" cy="{}%" r="3.5"/>')
    points = zip(curve.x, curve.y, strict=True)
    return Markup().join(dot.format(curve.kind, x_scale.at(x), round(100 - y_scale.at(y), 2)) for x, y in points)


def _names(curves: Sequence[Line], height: int, y_scale: Scale) -> list[Markup]:
    """Names at the ends of curves, moved vertically where they would overlap."""
    ordered = sorted(curves, key=lambda curve: -curve.y[-1])
    wanted = [height * (1 - y_scale.at(curve.y[-1]) / 100) for curve in ordered]
    for i in range(1, len(wanted)):
        wanted[i] = max(wanted[i], wanted[i - 1] + CURVE_NAME_GAP)
    floor = height + CURVE_NAME_GAP / 2
    for i in reversed(range(len(wanted))):
        wanted[i] = min(wanted[i], floor)
        floor = wanted[i] - CURVE_NAME_GAP
    # The style sheet adds 12 pixels to the right edge, because attributes cannot hold a sum.
    text = Markup('<text class="name {}" x="100%" y="{}">{}</text>')
    return [text.format(curve.kind, round(y, 1), curve.name) for curve, y in zip(ordered, wanted, strict=True)]
