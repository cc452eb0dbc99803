"""Figures of the tutorial's report: PNG by matplotlib, interactive ones by plotly."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from fewlabels.report.colours import class_colour


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def image_grid(images: Sequence[Any], titles: Sequence[str], wrong: Sequence[bool] | None = None) -> bytes:
    """A 4 x 4 grid of gray images [16, H, W] with titles, which are red where ``wrong``; PNG."""
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    axes = list(figure.subplots(4, 4).flat)
    for axis in axes:
        axis.axis("off")
    for i, (axis, image, title) in enumerate(zip(axes, images, titles, strict=False)):
        axis.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=9, color="#c0392b" if wrong and wrong[i] else "black")
    return _png(figure)


def _panels(curves: dict[str, dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Kinds of loss with the names of their curves. Each kind has its own panel, because kinds are not comparable."""
    pretraining = [name for name in curves if curves[name]["kind"] != "cross-entropy"]
    supervised = [name for name in curves if curves[name]["kind"] == "cross-entropy"]
    return [("cross-entropy", supervised), *((curves[name]["kind"], [name]) for name in pretraining)]


def loss_curves_png(curves: dict[str, dict[str, Any]]) -> bytes:
    """Loss by epoch, with a panel for each kind of loss; PNG."""
    panels = _panels(curves)
    figure = Figure(figsize=(10, 3.4 * len(panels)), layout="constrained")
    for axis, (kind, names) in zip(np.atleast_1d(figure.subplots(len(panels))), panels, strict=True):
        for name in names:
            axis.plot(curves[name]["epochs"], curves[name]["values"], label=curves[name]["title"], linewidth=1)
        axis.set(xlabel="epoch", ylabel=kind)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return _png(figure)


_LAYOUT: dict[str, Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": "#888", "family": "system-ui, sans-serif"},
    "margin": {"l": 48, "r": 12, "t": 12, "b": 44},
    "legend": {"orientation": "h", "y": -0.22},
}


def loss_curves(curves: dict[str, dict[str, Any]]) -> list[go.Figure]:
    """Loss by epoch as interactive figures, one for each kind of loss."""
    figures = []
    for kind, names in _panels(curves):
        figure = go.Figure(layout=_LAYOUT)
        for name in names:
            curve = curves[name]
            figure.add_scatter(
                x=curve["epochs"], y=curve["values"], mode="lines", name=curve["title"], line={"width": 1.5}
            )
        figure.update_layout(xaxis_title="epoch", yaxis_title=kind, height=380, showlegend=True)
        figure.update_xaxes(gridcolor="rgba(128,128,128,.25)")
        figure.update_yaxes(gridcolor="rgba(128,128,128,.25)")
        figures.append(figure)
    return figures


def umap_png(points: Any, labels: Any, class_names: Sequence[str]) -> bytes:
    """The first two UMAP components, coloured by class as in the tutorial; PNG."""
    points, labels = np.asarray(points), np.asarray(labels)
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    axis = figure.subplots()
    for index, name in enumerate(class_names):
        of_class = points[labels == index]
        axis.scatter(of_class[:, 0], of_class[:, 1], s=3, color=class_colour(index), label=name, linewidths=0)
    axis.legend(markerscale=4, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    return _png(figure)


def umap_scatter(points: Any, labels: Any, class_names: Sequence[str]) -> go.Figure:
    """All three UMAP components, with a trace for each class, so that the legend hides and shows classes."""
    points, labels = np.asarray(points, dtype=np.float32), np.asarray(labels)
    figure = go.Figure(layout=_LAYOUT)
    for index, name in enumerate(class_names):
        of_class = points[labels == index]
        figure.add_scatter3d(
            x=of_class[:, 0], y=of_class[:, 1], z=of_class[:, 2], mode="markers", name=name,
            hovertemplate=f"{name}<extra></extra>", marker={"size": 2, "color": class_colour(index)},
        )  # fmt: skip
    axis = {
        "showticklabels": False,
        "title": "",
        "gridcolor": "rgba(128,128,128,.4)",
        "backgroundcolor": "rgba(0,0,0,0)",
    }
    figure.update_layout(
        scene={"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "cube"},
        height=560,
        legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
    )
    return figure
