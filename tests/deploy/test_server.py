"""The service as clients meet it."""

import asyncio
import io
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import save_classifier
from fewlabels.data.form import Form, Preparation

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from fewlabels.deploy.server import is_loopback, make_app

NAMES = [f"class {number}" for number in range(10)]
MOST, LARGEST = 8, 200_000


@pytest.fixture
def model() -> Classifier:
    model = Classifier("article", NAMES, seed=1).eval()
    with torch.no_grad():
        model.head.weight *= 20
    model.thresholds = {"0.95": 0.5}
    return model


@pytest.fixture
def app(model: Classifier) -> Any:
    return make_app(model, Preparation(Form(1, 28, 28, "uint8")), LARGEST, MOST)


@pytest.fixture
def client(app) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def pictures(fmnist) -> list[bytes]:
    return [png(image[0]) for image in fmnist.test.read(slice(12)).numpy()]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{place}.png", content, "image/png")) for place, content in enumerate(contents)]


def test_it_says_what_the_model_says(client, model, pictures, fmnist):
    with torch.no_grad():
        expected = model(fmnist.test.read(slice(3)).float() / 255).softmax(dim=1)
    answer = client.post("/predict", files=form(*pictures[:3]))
    assert answer.status_code == 200
    said = answer.json()["predictions"]
    assert [each["image"] for each in said] == ["0.png", "1.png", "2.png"]
    assert [each["label"] for each in said] == [NAMES[k] for k in expected.argmax(dim=1)]
    np.testing.assert_allclose([each["probability"] for each in said], expected.max(dim=1).values, atol=1e-4)
    assert [each["unsure"] for each in said] == (expected.max(dim=1).values < 0.5).tolist()
    assert [each["problem"] for each in said] == [None] * 3
    alone = client.post("/predict", content=pictures[1], headers={"content-type": "image/png"})
    assert alone.json()["predictions"] == [{**said[1], "image": ""}]


def test_unsure_is_not_known_of_every_model(client, model, pictures):
    model.thresholds = {}
    assert client.post("/predict", files=form(pictures[0])).json()["predictions"][0]["unsure"] is None


def test_a_broken_file_does_not_fail_the_others(client, pictures):
    bomb = png(np.zeros((8000, 8000), np.uint8))
    assert len(bomb) < LARGEST
    good = client.post("/predict", files=form(pictures[0])).json()["predictions"][0]
    sent = form(b"GIF89a torn", pictures[0], b"", bomb, pictures[0][:200], png(np.zeros((9, 9, 3), np.uint8)))
    said = client.post("/predict", files=sent).json()["predictions"]
    assert [each["problem"] is None for each in said] == [False, True, False, False, False, True]
    assert {**said[1], "image": "0.png"} == {**good, "probability": pytest.approx(good["probability"], abs=1e-3)}
    assert said[2]["problem"] == "an empty file"
    assert "8000x8000 pixels, more than" in said[3]["problem"]
    assert said[0]["label"] is said[0]["probability"] is said[0]["unsure"] is None
    broken = client.post("/predict", files=form(b"nothing"))  # alone, too: the request was understood
    assert (broken.status_code, broken.json()["predictions"][0]["problem"]) == (200, "not an image")


def test_requests_that_come_together_are_computed_together(app, model, pictures):
    with TestClient(app) as client:
        alone = [client.post("/predict", files=form(picture)).json() for picture in pictures]
        batches: list[int] = []

        def wait_for_the_others(module, inputs):
            batches.append(len(inputs[0]))
            deadline = time.monotonic() + 20
            while sum(batches) + app.state.batcher.queue.qsize() < len(pictures) and time.monotonic() < deadline:
                time.sleep(0.01)

        with model.register_forward_pre_hook(wait_for_the_others), ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda picture: client.post("/predict", files=form(picture)).json(), pictures))
    late = len(pictures) - batches[0]  # some may have come before the first was computed
    assert batches[1:] == ([MOST, late - MOST] if late > MOST else [late])
    for one, other in zip(alone, together, strict=True):
        (one,), (other,) = one["predictions"], other["predictions"]
        assert {**other, "probability": pytest.approx(one["probability"], abs=2e-4)} == one


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"content": b"x" * (LARGEST + 1), "headers": {"content-type": "image/png"}}, 413, "more than 0.19"),
        ({"files": form(b"x" * LARGEST)}, 413, "send fewer or smaller images"),
        ({"files": form(*[b"x"] * (MOST + 1))}, 413, "Too many files"),
        ({"data": {f"f{n}": "x" for n in range(MOST + 1)}, "files": form(b"x")}, 413, "Too many fields"),
        ({}, 415, "content type ''"),
        ({"json": {"images": []}}, 415, "content type 'application/json'"),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 400, "no image"),
        ({"files": [("photos", ("a.png", b"x", "image/png"))]}, 400, "in the field 'images'"),
        ({"data": {"images": "text"}, "files": [("x", ("x", b"x"))]}, 400, "no image"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, "nvalid multipart"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(client, sent, status, words):
    answer = client.post("/predict", **sent)
    assert answer.status_code == status
    assert answer.text.count("\n") == 0
    assert list(answer.json()) == ["detail"]
    assert words in answer.json()["detail"]
    assert client.get("/healthz").json() == {"status": "ok", "class_names": NAMES}


def sent_in_parts(app, kind: str, chunks: Iterator[bytes]) -> tuple[int, int]:
    """Status, and how many parts were read, of a body that the client sends bit by bit and then goes away."""
    read, answers = [], []

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, None)
        read.append(chunk)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/predict", "query_string": b""}
    answering = app({**scope, "headers": [(b"content-type", kind.encode())]}, receive, send)
    with ThreadPoolExecutor(1) as thread:  # a browser's test may have left its loop in this one
        thread.submit(asyncio.run, answering).result()
    return answers[0]["status"], len(read)


HEAD = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=edge"])
def test_a_body_is_not_read_beyond_the_limit(kind, app):
    endless = chain([HEAD], repeat(b"x" * 50_000))
    assert sent_in_parts(app, kind, endless) == (413, LARGEST // 50_000 + 1)


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=edge"])
def test_a_client_that_goes_away_is_no_error_of_the_server(kind, app):
    assert sent_in_parts(app, kind, iter([HEAD, b"x"])) == (400, 3)


def test_an_error_of_the_server_shows_no_traceback_and_the_next_request_is_answered(app, model, pictures):
    def fails(module, inputs):
        raise RuntimeError("secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        with model.register_forward_pre_hook(fails):
            answer = client.post("/predict", files=form(*pictures[:2]))
        assert answer.status_code == 500
        assert answer.json() == {"detail": "an error of the server, whose log says more."}
        assert client.post("/predict", files=form(pictures[0])).status_code == 200


def test_a_request_that_has_gone_does_not_stop_the_work(app, pictures):
    with TestClient(app) as client:
        batcher = app.state.batcher

        async def gives_up() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(batcher([pictures[0]]), 0)

        client.portal.call(gives_up)
        assert client.post("/predict", files=form(pictures[0])).status_code == 200


def test_what_the_service_takes_is_described(client):
    takes = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(takes) == {"multipart/form-data", "image/*"}
    assert client.get("/docs").status_code == 404


def test_ctrl_c_ends_it_cleanly(model, pictures, tmp_path: Path):
    save_classifier(model, tmp_path / "model.safetensors")
    command = [sys.executable, "-m", "fewlabels.cli.app", "serve", str(tmp_path / "model.safetensors"), "--port", "0"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = running.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line).group()
        request = urllib.request.Request(f"{address}/predict", pictures[0], {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert b'"label":"class ' in answer.read()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 0
    assert errors == ""


def test_another_address_is_warned_of(run_cli, monkeypatch, model, tmp_path: Path):
    save_classifier(model, tmp_path / "model.safetensors")
    monkeypatch.setattr("fewlabels.deploy.server.run", lambda app, listener: None)
    ran = run_cli("serve", tmp_path / "model.safetensors", "--host", "0.0.0.0", "--port", "0")
    assert ran.code == 0
    assert "no authentication" in ran.err
    ran = run_cli("serve", tmp_path / "model.safetensors", "--port", "0")
    assert (ran.code, ran.err) == (0, "")
    assert not is_loopback("192.168.0.1")
    assert is_loopback("127.0.0.2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--port", "70000"), "--port 70000: cannot listen there"),
        (("--port", "-1"), "--port -1: must be 0 or more"),
        (("--host", "256.0.0.1"), "--host 256.0.0.1"),
        (("--max-batch", "0"), "--max-batch 0: must be 1 or more"),
        (("--max-upload-mb", "0"), "--max-upload-mb 0: must be 1 or more"),
    ],
)
def test_mistakes_are_one_line(options, words, run_cli, model, tmp_path: Path):
    save_classifier(model, tmp_path / "model.safetensors")
    ran = run_cli("serve", tmp_path / "model.safetensors", *options)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert words in ran.err


def test_without_the_packages_it_says_how_to_get_them(run_cli, monkeypatch, model, tmp_path: Path):
    save_classifier(model, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fewlabels.deploy.server")
    ran = run_cli("serve", tmp_path / "model.safetensors")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "fewlabels: serve: uvicorn is not installed. Run: pip install 'fewlabels[serve]'\n"
