"""Run ``fewlabels compare`` with six pairs and 1,000 labels of Fashion-MNIST, then the same command again.

There is a row for each candidate, and one with the verdict and the duration of both commands. Headless Chromium takes
the screenshot of the report for the README.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.harness import ResultFile

OUT = Path("runs/compare")
COMMAND = ("compare", "fashion-mnist", "--labels", "1000", "--pairs", "6", "--out", str(OUT))
SCREENSHOT = Path(__file__).parent.parent / "docs" / "report.png"


def main() -> None:
    """Measure and take the screenshot, unless there are rows."""
    file = ResultFile("compare", "python -m benchmarks.compare", keys=("what", "arm"))
    if not file.has(what="command", arm=""):
        _seconds()  # not used: result.json has the duration of all runs, a resumed one included
        again = _seconds()
        result = json.loads((OUT / "result.json").read_text())
        claims = {claim["arm"]: claim for claim in result["differences"]}
        candidates = [{"what": "arm", **row, **claims.get(row["arm"], {})} for row in result["scores"]]
        about = {name: result[name] for name in ("verdict", "primary", "audit", "seconds")}
        report = round((OUT / "report.html").stat().st_size / 1e6, 2)
        about |= {"again_seconds": again, "report_mb": report}
        _take_screenshot()
        file.replace([*candidates, {"what": "command", "arm": "", **about}])


def _seconds() -> float:
    """Run the command and return its duration."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fewlabels.cli.app", *COMMAND], check=True)
    return round(time.perf_counter() - began, 1)


def _take_screenshot() -> None:
    """Save the top of the report, in the width of a laptop's window."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 1100})
        page.goto((OUT / "report.html").resolve().as_uri())
        page.wait_for_timeout(2000)
        page.screenshot(path=SCREENSHOT)
        chromium.close()


if __name__ == "__main__":
    main()
