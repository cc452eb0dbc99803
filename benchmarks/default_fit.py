"""The default `fewlabels fit`, by the clock: nothing but --labels and --seed, and supervised training beside it.

Each row is one run of the command line, alone on the machine, on images held out from training (Fashion-MNIST's last
10,000 training images; 1,000 of ELPV; 797 digits). Run it from a checkout:

    python -m benchmarks.default_fit                       # measures the checkout it is run from
    python -m benchmarks.default_fit --phase before --checkout ../old    # measures another one
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ResultFile

KEYS = ("phase", "data", "labels", "draw", "method")
SETTINGS = (("elpv", 100), ("fashion-mnist", 1000), ("elpv", 400), ("fashion-mnist", 100), ("digits", 50))
"""Data set and number of labels."""
METHODS = ("fit", "supervised")
BUDGET_SECONDS = 600
"""The default of `fewlabels fit --budget`."""
IDLE_LOAD = 0.7
"""Load average of the last minute up to which the machine counts as idle."""
RUNS = Path("runs/default_fit")


def data_file(name: str) -> Path:
    """A table or arrays with the columns or arrays that `fewlabels fit` reads; the test is the development split."""
    file = RUNS / "data" / (f"{name}/table.csv" if name == "elpv" else f"{name}.npz")
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        {"elpv": _write_elpv, "digits": _write_digits, "fashion-mnist": _write_fashion_mnist}[name](file)
    return file


def _write_elpv(table: Path) -> None:
    """ELPV's images and a table: defective where the experts' probability is 0.5 or more; 1,000 images are the test."""
    import elpv_dataset

    root = Path(elpv_dataset.__file__).parent / "data"
    lines = [line.split() for line in (root / "labels.csv").read_text().splitlines() if line.strip()]
    test = set(np.random.default_rng(0).permutation(len(lines))[:1000].tolist())
    rows = ["path,label,split"]
    for row, (path, probability, _) in enumerate(lines):
        shutil.copy(root / path, table.parent)
        label = "defective" if float(probability) >= 0.5 else "functional"
        rows.append(f"{Path(path).name},{label},{'test' if row in test else 'train'}")
    table.write_text("\n".join(rows) + "\n")


def _write_digits(file: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    _write_arrays(file, images, digits.target, np.random.default_rng(0).permutation(len(images)), 797, range(10))


def _write_fashion_mnist(file: Path) -> None:
    from fewlabels.data.fashion_mnist import fashion_mnist

    train = fashion_mnist().train
    _write_arrays(file, train.images[:, 0], train.labels, np.arange(len(train))[::-1], 10_000, train.class_names)


def _write_arrays(
    file: Path, images: np.ndarray, labels: np.ndarray, order: np.ndarray, tested: int, names: Any
) -> None:
    test, train = np.sort(order[:tested]), np.sort(order[tested:])
    arrays = {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}
    np.savez_compressed(file, class_names=np.array([str(name) for name in names]), **arrays)


def measured(key: dict[str, Any], checkout: Path) -> dict[str, Any]:
    """Run the command and read its result."""
    out = (RUNS / "-".join(str(key[name]) for name in KEYS)).resolve()
    shutil.rmtree(out, ignore_errors=True)
    command = ["fit", str(data_file(key["data"]).resolve()), "--labels", str(key["labels"]), "--seed", str(key["draw"])]
    if key["method"] != "fit":
        command += ["--strategy", key["method"]]
    load, began = idle_load(), time.perf_counter()
    program = [sys.executable, "-c", "from fewlabels.cli.app import main; main()"]
    where = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "100"}
    done = subprocess.run(
        [*program, *command, "--out", str(out), "--logger", "none"],
        cwd=checkout,
        env=where,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    out.mkdir(parents=True, exist_ok=True)
    (out / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    result = json.loads((out / "result.json").read_text())
    estimate = result["estimate"] or {}
    row = {**key, "seed": key["draw"], "budget_seconds": BUDGET_SECONDS, "seconds": round(seconds, 1)}
    row |= {"macro_f1": round(result["macro_f1"], 4), "accuracy": round(result["accuracy"], 4)}
    row |= {"chosen": result["strategy"], "estimate": estimate.get("macro_f1")}
    row |= {"estimate_low": estimate.get("low"), "estimate_high": estimate.get("high")}
    row |= {"ece": round(result["calibration_error"], 4), "split": "development"}
    row |= {"candidates": result.get("candidates") or result["tried"], "load_before": round(load, 2)}
    return row


def idle_load() -> float:
    """Wait until the load of the last minute is low; returns it."""
    while (load := os.getloadavg()[0]) > IDLE_LOAD:
        time.sleep(5)
    return load


def commit_of(checkout: Path) -> str:
    """The checkout's commit."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Measure what has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", default="after", help="before or after the redesign [after]")
    parser.add_argument("--checkout", type=Path, default=Path(), help="the checkout that is measured [.]")
    parser.add_argument("--draws", type=int, default=3, help="draws of the labels [3]")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="what is measured [both]")
    chosen = parser.parse_args()
    checkout = chosen.checkout.resolve()
    file = ResultFile("default_fit", "python -m benchmarks.default_fit", keys=KEYS)
    for draw in range(chosen.draws):
        for data, labels in SETTINGS:
            for method in chosen.methods:
                key = dict(zip(KEYS, (chosen.phase, data, labels, draw, method), strict=True))
                if not file.has(**key):
                    row = measured(key, checkout) | {"cpu": file.head["machine"]["cpu"], "commit": commit_of(checkout)}
                    file.add(row)
                    print(row, flush=True)


if __name__ == "__main__":
    main()
