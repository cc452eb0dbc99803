"""Serve a classifier over HTTP, with images of concurrent requests in one batch."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

import numpy as np
import python_multipart  # noqa: F401  # starlette needs it for forms, and would fail only at the first request
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from fewlabels import __version__
from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.data.preprocessing import Preprocessing
from fewlabels.data.source import ArraySource
from fewlabels.metrics.classification import probabilities

FORM_FIELD = "images"
"""Name of the form field with the image files."""
THRESHOLD_KEY = "0.95"
"""Key of the classifier's threshold: the default precision of ``fewlabels predict``."""
MAX_CONNECTIONS = 128
"""Number of concurrent connections, which bounds memory; further ones are answered 503. Not tuned."""
SHUTDOWN_SECONDS = 10
"""Time that running requests have to finish after Ctrl-C. Not tuned."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file, or the reason why it cannot be read."""

    label: str | None = None
    """Class name; None if the file cannot be read."""
    probability: float | None = None
    """Probability of the class in 0..1, rounded to four digits."""
    unsure: bool | None = None
    """Whether the probability is below the threshold; None if the model has no threshold."""
    problem: str | None = None
    """Error message; None if the file was read."""


def predict_files(classifier: Classifier, preprocessing: Preprocessing, contents: Sequence[bytes]) -> list[Prediction]:
    """Return the prediction for each image file, computed as one batch; a file that cannot be read gets a problem."""
    threshold = classifier.thresholds.get(THRESHOLD_KEY)
    predictions: dict[int, Prediction] = {}
    pixels: dict[int, np.ndarray] = {}
    for index, content in enumerate(contents):
        try:
            pixels[index] = preprocessing(content)
        except InputError as error:
            predictions[index] = Prediction(problem=str(error))
    if pixels:
        found = probabilities(outputs(classifier, ArraySource(np.stack(list(pixels.values())), None, ())))
        for index, row in zip(pixels, found, strict=True):
            unsure = None if threshold is None else bool(row.max() < threshold)
            predictions[index] = Prediction(classifier.class_names[row.argmax()], round(float(row.max()), 4), unsure)
    return [predictions[index] for index in range(len(contents))]


class Batcher:
    """Collect the items of concurrent requests, and compute them batch by batch in one thread.

    Args:
        compute: returns the predictions of items, in their order.
        max_items: number of items in a batch, at most.
    """

    def __init__(self, compute: Callable[[list[bytes]], list[Prediction]], max_items: int) -> None:
        self._compute, self._max_items = compute, max_items
        self.queue: asyncio.Queue[tuple[bytes, asyncio.Future[Prediction]]] = asyncio.Queue()

    async def __call__(self, items: Sequence[bytes]) -> list[Prediction]:
        """Queue items, and return their predictions once they are computed."""
        answers = [asyncio.get_running_loop().create_future() for _ in items]
        for pair in zip(items, answers, strict=True):
            self.queue.put_nowait(pair)
        return list(await asyncio.gather(*answers))

    async def work(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                batch = [await self.queue.get()]
                while len(batch) < self._max_items and not self.queue.empty():
                    batch.append(self.queue.get_nowait())
                items = [item for item, _ in batch]
                try:
                    found: list[Prediction] = await loop.run_in_executor(thread, self._compute, items)
                except Exception as error:  # the waiting requests get it, and the next batch is computed
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                else:
                    for (_, answer), prediction in zip(batch, found, strict=True):
                        if not answer.done():  # it is done if the client has disconnected
                            answer.set_result(prediction)


def make_app(classifier: Classifier, preprocessing: Preprocessing, max_bytes: int, max_batch: int) -> FastAPI:
    """Return the application with ``POST /predict`` and ``GET /healthz``.

    Args:
        classifier: in evaluation mode.
        preprocessing: the classifier's.
        max_bytes: size of a request's body, at most.
        max_batch: number of images computed at a time, and of files in a request, at most.
    """
    batcher = Batcher(partial(predict_files, classifier, preprocessing), max_batch)

    @asynccontextmanager
    async def working(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(batcher.work())
        yield
        work.cancel()

    # FastAPI's documentation pages are off, because they load scripts from other servers.
    app = FastAPI(title="fewlabels", version=__version__, lifespan=working, docs_url=None, redoc_url=None)
    app.state.batcher = batcher

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "class_names": classifier.class_names}

    @app.post("/predict", openapi_extra={"requestBody": {"required": True, "content": _CONTENT_TYPES}})
    async def predict(request: Request) -> dict[str, Any]:
        files = await _files(request, max_bytes, max_batch)
        if not files:
            raise HTTPException(400, f"no image: send files in the field {FORM_FIELD!r}, or one image as the body.")
        found = await batcher([content for _, content in files])
        return {"predictions": [{"image": name, **asdict(each)} for (name, _), each in zip(files, found, strict=True)]}

    @app.exception_handler(ClientDisconnect)
    async def disconnected(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"detail": "the client has disconnected."}, 400)  # without a handler it would be logged

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "internal server error; see the server's log."}, 500)

    return app


_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {FORM_FIELD: {"type": "array", "items": _BINARY}}}
_CONTENT_TYPES = {"multipart/form-data": {"schema": _FORM}, "image/*": {"schema": _BINARY}}


async def _files(request: Request, max_bytes: int, max_files: int) -> list[tuple[str, bytes]]:
    """Return name and content of each file of a request; an image sent as the body has an empty name."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _limited(request, max_bytes)
    if kind.startswith("image/"):
        content = b"".join([chunk async for chunk in body])
        return [("", content)] if content else []
    if kind != "multipart/form-data":
        raise HTTPException(415, f"content type {kind!r}: send multipart/form-data, or one image as image/png.")
    try:
        form = await MultiPartParser(request.headers, body, max_files=max_files, max_fields=max_files).parse()
    except MultiPartException as error:
        raise HTTPException(413 if error.message.startswith("Too many") else 400, error.message) from None
    try:
        uploads = [each for each in form.getlist(FORM_FIELD) if isinstance(each, UploadFile)]
        return [(each.filename or "", await each.read()) for each in uploads]
    finally:
        await form.close()


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body in chunks, and refuse it as soon as it is too large."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise HTTPException(413, f"more than {max_bytes / 2**20:g} MiB: send fewer or smaller images.")
        yield chunk


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; port 0 chooses a free port.

    Raises:
        InputError: if the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port}: cannot listen ({why}). Choose another --port.") from None


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; running requests have ``SHUTDOWN_SECONDS`` to finish."""
    options: dict[str, Any] = {"limit_concurrency": MAX_CONNECTIONS, "timeout_graceful_shutdown": SHUTDOWN_SECONDS}
    config = uvicorn.Config(app, log_level="warning", lifespan="on", **options)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after the shutdown
        uvicorn.Server(config).run(sockets=[listener])
