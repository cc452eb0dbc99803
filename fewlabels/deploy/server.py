"""A finished classifier behind HTTP: requests that come together are computed together."""

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
import python_multipart  # noqa: F401  # starlette reads forms with it, and would say so only at the first request
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
from fewlabels.data.form import Preparation
from fewlabels.data.source import ArraySource
from fewlabels.metrics.classification import probabilities

FIELD = "images"
PRECISION = "0.95"
"""Share of those it is sure of that should be right, as ``fewlabels predict`` has it."""
CONNECTIONS = 128
"""At a time; more are answered 503, so that the bodies of requests have a bounded share of memory."""
GRACE = 10
"""Seconds that requests may take to end after Ctrl-C."""


@dataclass(frozen=True)
class Prediction:
    """What is said of one file: a class, or a problem."""

    label: str | None = None
    probability: float | None = None
    unsure: bool | None = None
    """None: not known of this model."""
    problem: str | None = None


def predictions(classifier: Classifier, preparation: Preparation, contents: Sequence[bytes]) -> list[Prediction]:
    """What is said of each of these image files, computed at once; one that is broken does not hinder the others."""
    sure_from = classifier.thresholds.get(PRECISION)
    said: dict[int, Prediction] = {}
    pixels: dict[int, np.ndarray] = {}
    for place, content in enumerate(contents):
        try:
            pixels[place] = preparation(content)
        except InputError as error:
            said[place] = Prediction(problem=str(error))
    if pixels:
        found = probabilities(outputs(classifier, ArraySource(np.stack(list(pixels.values())), None, ())))
        for place, row in zip(pixels, found, strict=True):
            unsure = None if sure_from is None else bool(row.max() < sure_from)
            said[place] = Prediction(classifier.class_names[row.argmax()], round(float(row.max()), 4), unsure)
    return [said[place] for place in range(len(contents))]


class Batcher:
    """Items of many requests, computed together by one thread: while it is busy, others gather for the next batch.

    Args:
        compute: answers of items, in their order.
        most: items of one batch.
    """

    def __init__(self, compute: Callable[[list[bytes]], list[Prediction]], most: int) -> None:
        self._compute, self._most = compute, most
        self.queue: asyncio.Queue[tuple[bytes, asyncio.Future[Prediction]]] = asyncio.Queue()

    async def __call__(self, items: Sequence[bytes]) -> list[Prediction]:
        """The answers, when they are there."""
        answers = [asyncio.get_running_loop().create_future() for _ in items]
        for pair in zip(items, answers, strict=True):
            self.queue.put_nowait(pair)
        return list(await asyncio.gather(*answers))

    async def work(self) -> None:
        """Compute until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                batch = [await self.queue.get()]
                while len(batch) < self._most and not self.queue.empty():
                    batch.append(self.queue.get_nowait())
                items = [item for item, _ in batch]
                try:
                    said: list[Prediction] = await loop.run_in_executor(thread, self._compute, items)
                except Exception as error:  # told to those who wait; the next batch may do better
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                else:
                    for (_, answer), each in zip(batch, said, strict=True):
                        if not answer.done():  # as that of a request whose client has gone
                            answer.set_result(each)


def make_app(classifier: Classifier, preparation: Preparation, max_bytes: int, max_batch: int) -> FastAPI:
    """The service: ``POST /predict`` and ``GET /healthz``.

    Args:
        classifier: in evaluation mode.
        preparation: the classifier's.
        max_bytes: of the body of one request.
        max_batch: images computed at a time, and files of one request.
    """
    batcher = Batcher(partial(predictions, classifier, preparation), max_batch)

    @asynccontextmanager
    async def working(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(batcher.work())
        yield
        work.cancel()

    # The pages that show an API load their scripts from elsewhere.
    app = FastAPI(title="fewlabels", version=__version__, lifespan=working, docs_url=None, redoc_url=None)
    app.state.batcher = batcher

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "class_names": classifier.class_names}

    @app.post("/predict", openapi_extra={"requestBody": {"required": True, "content": _TAKES}})
    async def predict(request: Request) -> dict[str, Any]:
        files = await _files(request, max_bytes, max_batch)
        if not files:
            raise HTTPException(400, f"no image: send files in the field {FIELD!r}, or one image as the body.")
        said = await batcher([content for _, content in files])
        return {"predictions": [{"image": name, **asdict(each)} for (name, _), each in zip(files, said, strict=True)]}

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"detail": "the client has gone."}, 400)  # which nobody reads; it keeps the log quiet

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "an error of the server, whose log says more."}, 500)

    return app


_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {FIELD: {"type": "array", "items": _BINARY}}}
_TAKES = {"multipart/form-data": {"schema": _FORM}, "image/*": {"schema": _BINARY}}


async def _files(request: Request, max_bytes: int, max_files: int) -> list[tuple[str, bytes]]:
    """Names and contents of what is sent; a lone image has no name."""
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
        uploads = [each for each in form.getlist(FIELD) if isinstance(each, UploadFile)]
        return [(each.filename or "", await each.read()) for each in uploads]
    finally:
        await form.close()


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body, refused as soon as it is too large."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise HTTPException(413, f"more than {most / 2**20:g} MiB: send fewer or smaller images.")
        yield chunk


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches it.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: any that is free.

    Raises:
        InputError: if that is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port}: cannot listen there ({why}). Choose another --port.") from None


def run(app: FastAPI, listener: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM; what is being answered then is answered first."""
    options: dict[str, Any] = {"limit_concurrency": CONNECTIONS, "timeout_graceful_shutdown": GRACE}
    config = uvicorn.Config(app, log_level="warning", lifespan="on", **options)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when all is closed
        uvicorn.Server(config).run(sockets=[listener])
