"""Write the measured figures into the README, so that none is typed by hand."""

import json
from pathlib import Path

from benchmarks.harness import RESULTS
from fewlabels.article.arms import ArticlePlan
from fewlabels.article.summary import ArmSummary, claims, summarise

README = Path(__file__).parent.parent / "README.md"


def measured_arms() -> list[ArmSummary]:
    """The arms of ``article.json``, in the tutorial's order."""
    titles = {arm.name: arm.title for arm in ArticlePlan().arms(60_000)}
    rows = json.loads((RESULTS / "article.json").read_text())["rows"]
    by_arm = {arm.arm: arm for arm in summarise([{**row, "title": titles[row["arm"]]} for row in rows])}
    return [by_arm[name] for name in titles]


def article_table() -> str:
    """The arms as a Markdown table."""
    lines = ["| arm | labels | epochs | pretraining epochs | macro-F1 |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {arm.title} | {arm.labels:,} | {arm.epochs} | {arm.pretrain_epochs} | {arm.macro_f1_text} |"
        for arm in measured_arms()
    ]
    return "\n".join(lines)


def article_claims() -> str:
    """The tutorial's claims as a Markdown list."""
    return "\n".join(f"- {claim}" for claim in claims(measured_arms(), quick=False))


def filled_in(text: str) -> str:
    """The README with what stands between its marks written anew."""
    for name, content in (("article table", article_table()), ("article claims", article_claims())):
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        text = before + mark + content + "\n" + rest[rest.index("<!-- end -->") :]
    return text


if __name__ == "__main__":
    README.write_text(filled_in(README.read_text()))
