"""How fast image files are decoded: 60,000 PNG files of 28x28 pixels; the start after that; a start that is killed.

Writing the files takes a minute; they lie in a temporary folder.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from PIL import Image

from benchmarks.harness import ResultFile
from fewlabels._internal.environment import usable_cores
from fewlabels.data.decoded import decoded_images
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.listing import listed

REPEATS = 3
NUMBER = 60_000
CHILD = """
import sys
from pathlib import Path
from fewlabels.data.decoded import decoded_images
from fewlabels.data.listing import listed
if __name__ == "__main__":
    decoded_images(listed(Path(sys.argv[1])), Path(sys.argv[2]), told=lambda done, of: print(done, flush=True))
"""


def main() -> None:
    """Measure, unless it is measured."""
    file = ResultFile("decode", "python -m benchmarks.decode", keys=("images", "cores"))
    cores = usable_cores()
    if file.has(images=NUMBER, cores=cores):
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        _write(photos)
        first, again = [], []
        for repeat in range(REPEATS):
            cache = Path(name) / f"cache-{repeat}"
            first.append(_seconds(photos, cache))
            again.append(_seconds(photos, cache))
        kept = _killed(photos, Path(name))
        rest = _seconds(photos, Path(name) / "cache-killed")
    row: dict[str, float] = {
        "images": NUMBER,
        "cores": cores,
        "files_per_second": round(NUMBER / median(first)),
        "repeats": REPEATS,
    }
    row |= {"first_seconds": round(median(first), 2), "again_seconds": round(median(again), 2)}
    row |= {"kept_when_killed": kept, "rest_seconds": round(rest, 2)}
    file.add({**row, "seed": 0, "seconds": round(time.perf_counter() - began, 1)})
    print(row)


def _write(folder: Path) -> None:
    train = fashion_mnist().train
    for cls, name in enumerate(train.class_names):
        place = folder / name.replace("/", " or ")
        place.mkdir(parents=True)
        for row in (train.labels == cls).nonzero()[0]:
            Image.fromarray(train.images[row, 0]).save(place / f"{row:05}.png")


def _seconds(photos: Path, cache: Path) -> float:
    """From the folder's name to images that can be read."""
    began = time.perf_counter()
    decoded_images(listed(photos), cache)
    return time.perf_counter() - began


def _killed(photos: Path, folder: Path) -> int:
    """Files that a start has done when it is killed halfway."""
    script = folder / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(photos), str(folder / "cache-killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None  # it is a pipe
        for line in running.stdout:
            if int(line) >= NUMBER / 2:
                running.kill()
                return int(line)
    raise RuntimeError("the child ended before it was killed")


if __name__ == "__main__":
    main()
