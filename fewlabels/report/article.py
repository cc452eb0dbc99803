"""The tutorial's report: one self-contained HTML file, and its figures and tables as separate files."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from fewlabels._internal.files import write_bytes
from fewlabels.report import figures
from fewlabels.report.page import templates

PLOTLY_CONFIG = {"responsive": True, "displaylogo": False}


def write_report(result: dict[str, Any], folder: Path) -> Path:
    """Write ``report.html`` into a folder, and each of its figures and tables as a file; return the report's path.

    Raises:
        InputError: if the folder cannot be written.
    """
    pictures = dict(_pictures(result))
    for name, png in pictures.items():
        write_bytes(folder / f"{name}.png", png)
    write_bytes(folder / "classification_reports.txt", _reports_text(result).encode())
    write_bytes(folder / "simclr_against_simsiam.md", _markdown(result["methods_table"]).encode())
    umap = figures.umap_scatter(result["umap"]["points"], result["umap"]["labels"], result["class_names"])
    write_bytes(folder / "umap.html", _page(result["umap"]["title"], umap).encode())
    html = (
        templates(autoescape=True)
        .get_template("article.html.j2")
        .render(
            result=result,
            pictures={
                name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in pictures.items()
            },
            plotly_js=Markup(get_plotlyjs()),
            loss_plots=[_div(figure, f"loss-{i}") for i, figure in enumerate(figures.loss_curves(result["curves"]))],
            umap_plot=_div(umap, "umap"),
        )
    )
    report = folder / "report.html"
    write_bytes(report, html.encode())
    return report


def _pictures(result: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    names, train, test = result["class_names"], result["train_grid"], result["test_grid"]
    yield "train_grid", figures.image_grid(train["images"], [f"Label: {names[label]}" for label in train["labels"]])
    pairs = list(zip(test["labels"], test["predictions"], strict=True))
    titles = [f"{names[label]}\npredicted: {names[predicted]}" for label, predicted in pairs]
    wrong = [label != predicted for label, predicted in pairs]
    yield "test_grid", figures.image_grid(test["images"], titles, wrong)
    yield "loss_curves", figures.loss_curves_png(result["curves"])
    yield "umap", figures.umap_png(result["umap"]["points"], result["umap"]["labels"], names)


def _div(figure: go.Figure, name: str) -> Markup:
    html = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=PLOTLY_CONFIG)
    return Markup(html)


def _page(title: str, figure: go.Figure) -> str:
    """An HTML page with one figure, which loads nothing from the network."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<script>{get_plotlyjs()}</script><h1>{escape(title)}</h1>{_div(figure, 'figure')}</html>"
    )


def _reports_text(result: dict[str, Any]) -> str:
    parts = []
    for row in result["rows"]:
        heading = f"{row['title']}, seed {row['seed']}: {row['epochs']} epochs"
        if row["pretrain_epochs"]:
            heading += f" after {row['pretrain_epochs']} of pretraining"
        parts.append(f"{heading}\n{row['report']}")
    return "\n".join(parts)


def _markdown(table: list[list[str]]) -> str:
    header, *rows = (f"| {' | '.join(cells)} |" for cells in table)
    return "\n".join([header, "|---" * len(table[0]) + "|", *rows]) + "\n"
