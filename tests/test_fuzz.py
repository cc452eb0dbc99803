"""Test that corrupted images and models never cause a traceback, a hang or high memory use."""

import json
import random
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import load_classifier, save_classifier
from fewlabels.data.decode import MAX_PIXELS, decode_image
from fewlabels.data.preprocessing import ImageSpec, Preprocessing

NUM_IMAGES, NUM_MODELS = 500, 200
MAX_SECONDS = 5
GIB = 2**30


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_):
        raise TimeoutError(f"more than {MAX_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one or more changes: bytes replaced, deleted, repeated, or overwritten by a number."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(min(len(changed), 64))
        length = rng.choice((1, 2, 4, 16, 200))
        change = rng.randrange(6)
        if change == 0:
            changed[start] ^= 1 << rng.randrange(8)
        elif change == 1:
            changed[start : start + length] = rng.randbytes(length)
        elif change == 2:
            del changed[start : start + length]
        elif change == 3:
            changed[start:start] = changed[start : start + length]
        elif change == 4:
            changed[start : start + 4] = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000)).to_bytes(
                4, rng.choice(("little", "big"))
            )
        else:
            del changed[max(1, start) :]
        if not changed:
            changed = bytearray(b"\0")
    return bytes(changed)


def valid_images(fmnist) -> dict[str, bytes]:
    gray = fmnist.train.images[0, 0]
    colour = Image.fromarray(np.stack(list(fmnist.train.images[:3, 0]), axis=-1))
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        for name, image in (("gray", Image.fromarray(gray)), ("colour", colour), ("palette", colour.convert("P"))):
            if (kind, name) not in {("JPEG", "palette")}:
                buffer = BytesIO()
                image.save(buffer, kind)
                found[f"{kind} {name}"] = buffer.getvalue()
    for name, array in (("16 bits", gray.astype(np.uint16) * 257), ("5 channels", fmnist.train.images[:5, 0])):
        for compression in (None, "zlib"):
            buffer = BytesIO()
            tifffile.imwrite(buffer, array, photometric="minisblack", compression=compression)
            found[f"TIFF {name} {compression}"] = buffer.getvalue()
    return found


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_decode_image_refuses_or_reads_corrupted_images(fmnist):
    valid = list(valid_images(fmnist).values())
    rng, before, refused = random.Random(0), peak_bytes(), 0
    for _ in range(NUM_IMAGES):
        content = mutated(rng.choice(valid), rng)
        with time_limit():
            try:
                found = decode_image(content)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
            else:
                assert found.dtype in (np.uint8, np.uint16, np.float32)
                assert found.ndim == 3
                assert found.size <= MAX_PIXELS
    assert NUM_IMAGES / 4 < refused < NUM_IMAGES
    assert peak_bytes() - before < GIB


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"GIF89a", b"\xff\xd8\xff\xe0", b"RIFF", b"BM"]),
)
def test_decode_image_refuses_or_reads_random_bytes(content, head):
    with time_limit():
        try:
            decode_image(head + content)
        except InputError as error:
            assert "\n" not in str(error)


def with_changed_header(model: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file whose header has one value replaced or deleted, and is still valid JSON."""
    length = int.from_bytes(model[:8], "little")
    header = json.loads(model[8 : 8 + length])
    entry = header[rng.choice(list(header))] if rng.random() < 0.5 else header["__metadata__"]
    name = rng.choice(list(entry))
    values = [
        "",
        "0",
        "-1",
        "1e9",
        "9" * 30,
        "[]",
        "{}",
        "null",
        "[" * 2000,
        [2**40, 2**40],
        [-1],
        "F64",
        7,
        None,
        "nan",
    ]
    if rng.random() < 0.1:
        del entry[name]
    else:
        entry[name] = rng.choice(values)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + model[8 + length :]


def test_load_classifier_refuses_or_reads_corrupted_models(tmp_path: Path):
    model = Classifier("article", ["a", "b"])
    model.preprocessing = Preprocessing(ImageSpec(1, 28, 28, "uint16"), ((0.0, 4000.0),))
    model.thresholds = {"0.95": 0.9}
    save_classifier(model, tmp_path / "valid.safetensors")
    valid = (tmp_path / "valid.safetensors").read_bytes()
    rng, before, refused = random.Random(0), peak_bytes(), 0
    for turn in range(NUM_MODELS):
        content = mutated(valid, rng) if turn % 2 else with_changed_header(valid, rng)
        (tmp_path / "corrupted.safetensors").write_bytes(content)
        with time_limit():
            try:
                load_classifier(tmp_path / "corrupted.safetensors")
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
    assert NUM_MODELS / 2 < refused < NUM_MODELS
    assert peak_bytes() - before < GIB


BOMB = """
    import io, resource, struct, sys, zlib
    from PIL import Image
    from fewlabels.data.decode import decode_image
    from fewlabels._internal.errors import InputError
    import tifffile
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 50_000
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    press = zlib.compressobj(9)
    data = b"".join(press.compress(bytes(side + 1)) for _ in range(2_000)) + press.flush()
    png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    text = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    text += chunk(b"zTXt", b"a\\0\\0" + zlib.compress(bytes(500_000_000))) + chunk(b"IDAT", zlib.compress(bytes(72)))
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    gif += b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\\2\\2D\\1\\0;"
    for name, content in (("png", png), ("text", text + chunk(b"IEND", b"")), ("gif", gif)):
        try:
            print(name, decode_image(content).shape)
        except InputError as error:
            print(name, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems ignore RLIMIT_AS")
def test_decode_image_refuses_decompression_bombs_within_a_gibibyte():
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(BOMB)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert "more than 50,000,000" in lines[0]
    assert lines[1].startswith("text ")
    assert "more than 50,000,000" in lines[2]
