"""The command line: all commands, and error messages in one line with exit code 2."""

import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

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


def _without_type(params: list[Any]) -> list[Any]:
    """Keep typer from printing Python types, such as ``<str>``, beside arguments and flags in --help."""
    for param in params:
        if isinstance(param, TyperArgument) or (getattr(param, "is_flag", False) and not param.metavar):
            param.display_type_rich = lambda ctx: ""
    return params


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type(super().get_params(ctx))


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Train image classifiers from many images and few labels, and measure how good they are.",
)
for command in (
    check,
    fit,
    predict,
    suggest,
    compare,
    report,
    pretrain,
    embed,
    search,
    dedupe,
    export,
    serve,
    article,
    doctor,
):
    app.command(cls=_Command)(command)

# Since 0.20 typer contains a copy of click, so the class is taken from typer instead of click.
_ClickException: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main() -> NoReturn:
    """Run the command line; a user's mistake gives one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        _refuse(str(error), error.one_process_only)
    except PermissionError as error:
        _refuse(f"{error.filename}: {error.strerror}. Choose another folder, or ask its owner for access.")
    except _ClickException as error:
        _refuse(f"{error.format_message()} Run the command with --help to see its options.")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # some versions of typer return the code instead of raising
        print("\nStopped.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str, alone: bool = False) -> NoReturn:
    rank = os.environ.get("LOCAL_RANK", "0")
    if rank != "0" and not alone:
        sys.exit(0)  # process 0 prints the message; another exit code would kill it first
    prefix = "fewlabels" if rank == "0" else f"fewlabels, process {rank}"
    print(f"{prefix}: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
