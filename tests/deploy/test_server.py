"""Test the HTTP service through its clients."""

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
from fewlabels.data.preprocessing import ImageSpec, Preprocessing

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from fewlabels.deploy.server import is_loopback, make_app

NAMES = [f"class {number}" for number in range(10)]
MAX_BATCH, MAX_BYTES = 8, 200_000


@pytest.fixture
def model() -> Classifier:
    model = Classifier("article", NAMES, seed=1).eval()
    with torch.no_grad():
        model.head.weight *= 20
    model.thresholds = {"0.95": 0.5}
    return model


@pytest.fixture
def app(model: Classifier) -> Any:
    return make_app(model, Preprocessing(ImageSpec(1, 28, 28, "uint8")), MAX_BYTES, MAX_BATCH)


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
    return [("images", (f"{index}.png", content, "image/png")) for index, content in enumerate(contents)]


def test_predict_returns_what_the_model_predicts(client, model, pictures, fmnist):
    with torch.no_grad():
        expected = model(fmnist.test.read(slice(3)).float() / 255).softmax(dim=1)
    answer = client.post("/predict", files=form(*pictures[:3]))
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    assert [each["image"] for each in found] == ["0.png", "1.png", "2.png"]
    assert [each["label"] for each in found] == [NAMES[k] for k in expected.argmax(dim=1)]
    np.testing.assert_allclose([each["probability"] for each in found], expected.max(dim=1).values, atol=1e-4)
    assert [each["unsure"] for each in found] == (expected.max(dim=1).values < 0.5).tolist()
    assert [each["problem"] for each in found] == [None] * 3
    single = client.post("/predict", content=pictures[1], headers={"content-type": "image/png"})
    assert single.json()["predictions"] == [{**found[1], "image": ""}]


def test_predict_returns_unsure_null_for_a_model_without_thresholds(client, model, pictures):
    model.thresholds = {}
    assert client.post("/predict", files=form(pictures[0])).json()["predictions"][0]["unsure"] is None


def test_predict_reports_unreadable_files_and_predicts_the_others(client, pictures):
    bomb = png(np.zeros((8000, 8000), np.uint8))
    assert len(bomb) < MAX_BYTES
    good = client.post("/predict", files=form(pictures[0])).json()["predictions"][0]
    sent = form(b"GIF89a torn", pictures[0], b"", bomb, pictures[0][:200], png(np.zeros((9, 9, 3), np.uint8)))
    found = client.post("/predict", files=sent).json()["predictions"]
    assert [each["problem"] is None for each in found] == [False, True, False, False, False, True]
    assert {**found[1], "image": "0.png"} == {**good, "probability": pytest.approx(good["probability"], abs=1e-3)}
    assert found[2]["problem"] == "an empty file"
    assert "8000x8000 pixels, more than" in found[3]["problem"]
    assert found[0]["label"] is found[0]["probability"] is found[0]["unsure"] is None
    broken = client.post("/predict", files=form(b"nothing"))  # the request itself is valid
    assert (broken.status_code, broken.json()["predictions"][0]["problem"]) == (200, "not an image")


def test_batcher_computes_concurrent_requests_in_one_batch(app, model, pictures):
    with TestClient(app) as client:
        single = [client.post("/predict", files=form(picture)).json() for picture in pictures]
        batches: list[int] = []

        def wait_for_other_requests(module, inputs):
            batches.append(len(inputs[0]))
            deadline = time.monotonic() + 20
            while sum(batches) + app.state.batcher.queue.qsize() < len(pictures) and time.monotonic() < deadline:
                time.sleep(0.01)

        with model.register_forward_pre_hook(wait_for_other_requests), ThreadPoolExecutor(12) as pool:
            concurrent = list(pool.map(lambda picture: client.post("/predict", files=form(picture)).json(), pictures))
    rest = len(pictures) - batches[0]  # the first batch may have more than one request
    assert batches[1:] == ([MAX_BATCH, rest - MAX_BATCH] if rest > MAX_BATCH else [rest])
    for one, other in zip(single, concurrent, strict=True):
        (one,), (other,) = one["predictions"], other["predictions"]
        assert {**other, "probability": pytest.approx(one["probability"], abs=2e-4)} == one


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        ({"content": b"x" * (MAX_BYTES + 1), "headers": {"content-type": "image/png"}}, 413, "more than 0.19"),
        ({"files": form(b"x" * MAX_BYTES)}, 413, "send fewer or smaller images"),
        ({"files": form(*[b"x"] * (MAX_BATCH + 1))}, 413, "Too many files"),
        ({"data": {f"f{n}": "x" for n in range(MAX_BATCH + 1)}, "files": form(b"x")}, 413, "Too many fields"),
        ({}, 415, "content type ''"),
        ({"json": {"images": []}}, 415, "content type 'application/json'"),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 400, "no image"),
        ({"files": [("photos", ("a.png", b"x", "image/png"))]}, 400, "in the field 'images'"),
        ({"data": {"images": "text"}, "files": [("x", ("x", b"x"))]}, 400, "no image"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, "nvalid multipart"),
    ],
)
def test_predict_refuses_invalid_requests_in_one_line(client, sent, status, message):
    answer = client.post("/predict", **sent)
    assert answer.status_code == status
    assert answer.text.count("\n") == 0
    assert list(answer.json()) == ["detail"]
    assert message in answer.json()["detail"]
    assert client.get("/healthz").json() == {"status": "ok", "class_names": NAMES}


def post_in_chunks(app, kind: str, chunks: Iterator[bytes]) -> tuple[int, int]:
    """Send a body in chunks and then disconnect; return the status and the number of messages read."""
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
    with ThreadPoolExecutor(1) as thread:  # this thread may have an event loop from a browser test
        thread.submit(asyncio.run, answering).result()
    return answers[0]["status"], len(read)


HEAD = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=edge"])
def test_predict_stops_reading_a_body_at_the_limit(kind, app):
    endless = chain([HEAD], repeat(b"x" * 50_000))
    assert post_in_chunks(app, kind, endless) == (413, MAX_BYTES // 50_000 + 1)


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=edge"])
def test_predict_answers_400_if_the_client_disconnects(kind, app):
    assert post_in_chunks(app, kind, iter([HEAD, b"x"])) == (400, 3)


def test_predict_answers_500_without_traceback_and_continues_after_an_error(app, model, pictures):
    def fails(module, inputs):
        raise RuntimeError("secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        with model.register_forward_pre_hook(fails):
            answer = client.post("/predict", files=form(*pictures[:2]))
        assert answer.status_code == 500
        assert answer.json() == {"detail": "internal server error; see the server's log."}
        assert client.post("/predict", files=form(pictures[0])).status_code == 200


def test_batcher_continues_after_a_cancelled_request(app, pictures):
    with TestClient(app) as client:
        batcher = app.state.batcher

        async def cancel_request() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(batcher([pictures[0]]), 0)

        client.portal.call(cancel_request)
        assert client.post("/predict", files=form(pictures[0])).status_code == 200


def test_openapi_lists_the_content_types_of_predict(client):
    content_types = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content_types) == {"multipart/form-data", "image/*"}
    assert client.get("/docs").status_code == 404


def test_serve_ends_with_code_0_after_ctrl_c(model, pictures, tmp_path: Path):
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


def test_serve_warns_if_other_machines_can_connect(run_cli, monkeypatch, model, tmp_path: Path):
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
    ("options", "message"),
    [
        (("--port", "70000"), "--port 70000: cannot listen ("),
        (("--port", "-1"), "--port -1: must be 0 or more"),
        (("--host", "256.0.0.1"), "--host 256.0.0.1"),
        (("--max-batch", "0"), "--max-batch 0: must be 1 or more"),
        (("--max-upload-mb", "0"), "--max-upload-mb 0: must be 1 or more"),
    ],
)
def test_serve_refuses_wrong_options_in_one_line(options, message, run_cli, model, tmp_path: Path):
    save_classifier(model, tmp_path / "model.safetensors")
    ran = run_cli("serve", tmp_path / "model.safetensors", *options)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err


def test_serve_without_a_package_prints_the_install_command(run_cli, monkeypatch, model, tmp_path: Path):
    save_classifier(model, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fewlabels.deploy.server")
    ran = run_cli("serve", tmp_path / "model.safetensors")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "fewlabels: serve: uvicorn is not installed. Run: pip install 'fewlabels[serve]'\n"
