from pathlib import Path

import pytest

from fewlabels.training.precision import fastest_precision

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.is_file(), reason="reads processor flags from Linux")
def test_fastest_precision_follows_processor_flags():
    found = [line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")]
    flags = set(found[0].split()) if found else set()
    fast = flags & {"avx512_bf16", "amx_tile"}
    assert fastest_precision("cpu") == ("bf16-mixed" if fast else "32-true")


def test_fastest_precision_of_other_devices_is_single():
    assert fastest_precision("cuda") == fastest_precision("mps") == "32-true"
