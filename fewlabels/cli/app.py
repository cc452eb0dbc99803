"""The command line: commands, and user mistakes as one line with exit code 2."""

import os
import sys
from typing import Any, NoReturn

import typer

from fewlabels._internal.errors import InputError
from fewlabels.cli.article import article
from fewlabels.cli.check import check
from fewlabels.cli.compare import compare, report
from fewlabels.cli.dedupe import dedupe
from fewlabels.cli.doctor import doctor
from fewlabels.cli.embed import embed
from fewlabels.cli.export import export
from fewlabels.cli.fit import fit
from fewlabels.cli.options import INTERRUPTED
from fewlabels.cli.predict import predict
from fewlabels.cli.pretrain import pretrain
from fewlabels.cli.search import search
from fewlabels.cli.serve import serve
from fewlabels.cli.suggest import suggest

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="From many images and few labels to the best classifier they can buy, with the evidence.",
)
for command in (
    article,
    check,
    fit,
    compare,
    report,
    pretrain,
    predict,
    suggest,
    embed,
    search,
    dedupe,
    export,
    serve,
    doctor,
):
    app.command()(command)

# typer carries its own copy of click from 0.20 on, so the class is reached through typer itself.
_ClickException: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        _refuse(str(error), error.alone)
    except PermissionError as error:
        _refuse(f"{error.filename}: {error.strerror}. Choose another place, or ask its owner.")
    except _ClickException as error:
        _refuse(f"{error.format_message()} Run with --help to see how it is used.")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # some versions of typer return this instead of raising
        print("\nStopped.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str, alone: bool = False) -> NoReturn:
    process = os.environ.get("LOCAL_RANK", "0")
    if process != "0" and not alone:
        sys.exit(0)  # the first process says it; another code would have it killed before it does
    who = "fewlabels" if process == "0" else f"fewlabels, process {process}"
    print(f"{who}: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
