import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewlabels.audit.file_facts import facts_of
from fewlabels.data.preprocessing import ImageSpec, decode_into_file
from fewlabels.data.workers import workers


def test_workers_do_not_import_torch(tmp_path: Path):
    """Importing torch takes seconds."""
    with workers() as pool:
        (message,) = pool.submit(facts_of, [b"x"]).result()
        assert "not an image" in message
        (tmp_path / "images.bin").write_bytes(bytes(16))
        pool.submit(decode_into_file, tmp_path / "images.bin", ImageSpec(1, 4, 4, "uint8"), 0, [b"x"]).result()
        loaded = {pool.submit(eval, "'torch' in __import__('sys').modules") for _ in range(8)}
        assert not any(future.result() for future in loaded)


PARENT = """
import sys, time
from fewlabels.data.workers import workers

if __name__ == "__main__":
    with workers() as pool:
        pool.submit(int).result()
        print(*pool._processes, flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path):
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE) as running:
        workers = [int(word) for word in running.stdout.readline().split()]
        assert all(map(is_running, workers)), workers
        running.kill()
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2] if Path("/proc").exists() else True
