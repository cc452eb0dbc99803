"""Self-contained HTML pages: they load nothing from the network and run no script but their own."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fewlabels._internal.errors import InputError


def templates(**options: Any) -> Environment:
    """A Jinja environment with the templates of this package; an undefined variable is an error.

    Args:
        options: of :class:`jinja2.Environment`.
    """
    return Environment(loader=PackageLoader("fewlabels", "report"), undefined=StrictUndefined, **options)


def page(template: str, context: dict[str, Any], styles: Sequence[str], scripts: Sequence[str] = ()) -> bytes:
    """An HTML page, rendered from a template and encoded as UTF-8.

    The template gets all styles as ``style`` and all scripts as ``script``. A content security policy forbids others.

    Args:
        template: file name of the template.
        context: variables of the template.
        styles: file names of style sheets.
        scripts: file names of scripts.
    """
    environment = templates(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(count="{:,}".format, hash=_hash)
    style, script = (Markup("\n").join(map(_content, names)) for names in (styles, scripts))
    text = environment.get_template(template).render(**context, style=style, script=script)
    return text.encode("utf-8", "backslashreplace")  # file names may hold bytes that are not text


@contextmanager
def refusing_damage(file: Path, missing: str, again: str) -> Iterator[None]:
    """Turn errors of reading a result inside the block into an :class:`InputError` with one line.

    Args:
        file: the result file that the block reads.
        missing: advice if the file does not exist.
        again: advice if the file is damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{file}: no such file. {missing}") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InputError(f"{file}: damaged ({what}). {again}") from error


def _content(name: str) -> Markup:
    return Markup(files("fewlabels.report").joinpath(name).read_text())


def _hash(text: str) -> str:
    """The hash of a style or script in the form of a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
