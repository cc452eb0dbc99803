"""The command ``serve``."""

from typing import Annotated

import typer
from rich.console import Console

from fewlabels._internal.errors import InputError
from fewlabels.cli.options import Model, at_least


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free port.", metavar="PORT")] = 8000,
    max_upload_mb: Annotated[int, typer.Option(help="Size of a request in MiB, at most.", metavar="N")] = 10,
    max_batch: Annotated[
        int, typer.Option(help="Number of images computed at a time, and of files in a request, at most.", metavar="N")
    ] = 64,
) -> None:
    """Serve predictions over HTTP until Ctrl-C.

    POST /predict takes files in the form field images, or one image as the body. GET /healthz returns the status.

    Example: `fewlabels serve runs/fit/model.safetensors --port 8000`
    """
    from fewlabels.backbones.weights import load_classifier, preprocessing_of

    try:
        from fewlabels.deploy.server import is_loopback, listening, make_app, run
    except ModuleNotFoundError as error:
        raise InputError(f"serve: {error.name} is not installed. Run: pip install 'fewlabels[serve]'") from None
    at_least("--port", port, 0)
    at_least("--max-upload-mb", max_upload_mb)
    at_least("--max-batch", max_batch)
    classifier = load_classifier(model)
    app = make_app(classifier, preprocessing_of(classifier, model), max_upload_mb * 2**20, max_batch)
    with listening(host, port) as listener:
        if not is_loopback(host):
            Console(stderr=True, markup=False).print(
                f"Warning: everyone who can connect to {host} can use this service; there is no authentication.",
                style="yellow",
                soft_wrap=True,
            )
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}"
        Console(markup=False).print(f"Serving {model} on {address}; stop with Ctrl-C.", soft_wrap=True, highlight=False)
        run(app, listener)
