"""Peak memory of one epoch of pretraining on a .npy file of 60,000 and of 600,000 images; Linux only."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import ResultFile
from fewlabels.data.fashion_mnist import fashion_mnist

CHILD = """
import re, sys
from pathlib import Path
from fewlabels.cli.app import main
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    print("peak", int(peak[1]) / 2**10, file=sys.stderr)
"""
"""Program of the child process, which prints its own peak memory. ``ru_maxrss`` would start at its parent's memory."""


def main() -> None:
    """Measure the sizes that have no row yet."""
    file = ResultFile("memory", "make benchmark-speed", keys=("images",))
    images = fashion_mnist().train.images
    for times in (1, 10):
        number = times * len(images)
        if file.has(images=number):
            continue
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "images.npy"
            whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(number, *images.shape[1:]))
            for part in range(times):
                whole[part * len(images) : (part + 1) * len(images)] = images
            whole.flush()
            del whole
            options = ["--method", "simsiam", "--epochs", "1", "--tune", "off", "--logger", "none", "--out"]
            began = time.perf_counter()
            command = [sys.executable, "-c", CHILD, "pretrain", str(path), *options, f"{name}/run"]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            peak = float(ran.stderr.split("peak ")[1])
            seconds = round(time.perf_counter() - began, 1)
        row = {"images": number, "peak_mib": round(peak, 1), "data_mib": round(number * images[0].size / 2**20, 1)}
        file.add({**row, "seed": 0, "seconds": seconds})
        print(f"{number:,} images: peak {peak:,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
