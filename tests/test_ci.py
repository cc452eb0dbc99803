"""With CI=true a test that is skipped because a program is missing fails the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("ci", "reason", "code"),
    [
        ("true", "no Chromium here: 'apt install chromium' to test the report", 1),
        ("true", "other signals there", 0),
        ("", "no Chromium here: 'apt install chromium' to test the report", 0),
    ],
)
def test_skip_for_want_of_a_program_fails_in_ci(ci, reason, code, tmp_path: Path):
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test_it():\n    pytest.skip({reason!r})\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--noconftest", "-c", os.devnull, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env={**environment, "CI": ci}, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("CI=true, and tests were skipped" in done.stdout) == bool(code)
