"""Time to decode 60,000 PNG files of 28x28 pixels, to read them from the cache, and to resume a killed run.

The files are first written to a temporary folder.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from PIL import Image

from benchmarks.harness import ResultFile
from fewlabels._internal.environment import available_cores
from fewlabels.data.decoded import decode_images
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.listing import list_images

REPEATS = 3
NUM_FILES = 60_000
CHILD = """
import sys
from pathlib import Path
from fewlabels.data.decoded import decode_images
from fewlabels.data.listing import list_images
if __name__ == "__main__":
    decode_images(list_images(Path(sys.argv[1])), Path(sys.argv[2]), on_progress=lambda n, _: print(n, flush=True))
"""


def main() -> None:
    """Measure, unless there is a row for this number of cores."""
    file = ResultFile("decode", "python -m benchmarks.decode", keys=("images", "cores"))
    cores = available_cores()
    if file.has(images=NUM_FILES, cores=cores):
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        _write_files(photos)
        first, again = [], []
        for repeat in range(REPEATS):
            cache = Path(name) / f"cache-{repeat}"
            first.append(_decode_seconds(photos, cache))
            again.append(_decode_seconds(photos, cache))
        files_when_killed = _kill_halfway(photos, Path(name))
        rest = _decode_seconds(photos, Path(name) / "cache-killed")
    row: dict[str, float] = {
        "images": NUM_FILES,
        "cores": cores,
        "files_per_second": round(NUM_FILES / median(first)),
        "repeats": REPEATS,
    }
    row |= {"first_seconds": round(median(first), 2), "again_seconds": round(median(again), 2)}
    row |= {"kept_when_killed": files_when_killed, "rest_seconds": round(rest, 2)}
    file.add({**row, "seed": 0, "seconds": round(time.perf_counter() - began, 1)})
    print(row)


def _write_files(folder: Path) -> None:
    """Write the training images of Fashion-MNIST as PNG files, with a subfolder for each class."""
    train = fashion_mnist().train
    for cls, name in enumerate(train.class_names):
        subfolder = folder / name.replace("/", " or ")
        subfolder.mkdir(parents=True)
        for row in (train.labels == cls).nonzero()[0]:
            Image.fromarray(train.images[row, 0]).save(subfolder / f"{row:05}.png")


def _decode_seconds(photos: Path, cache: Path) -> float:
    """Return the time to list a folder and decode its files, or to read them from the cache."""
    began = time.perf_counter()
    decode_images(list_images(photos), cache)
    return time.perf_counter() - began


def _kill_halfway(photos: Path, folder: Path) -> int:
    """Kill a run after half of the files, and return the number of files that it had decoded."""
    script = folder / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(photos), str(folder / "cache-killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None  # it is a pipe
        for line in running.stdout:
            if int(line) >= NUM_FILES / 2:
                running.kill()
                return int(line)
    raise RuntimeError("the child ended before it was killed")


if __name__ == "__main__":
    main()
