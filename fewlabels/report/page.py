"""One self-contained HTML page from a template: nothing is fetched, and nothing runs but the page's own script."""

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
    """The templates of this package; what one names and is not given is an error. ``options`` are jinja2's."""
    return Environment(loader=PackageLoader("fewlabels", "report"), undefined=StrictUndefined, **options)


def page(template: str, context: dict[str, Any], styles: Sequence[str], scripts: Sequence[str] = ()) -> bytes:
    """The page, as UTF-8; its templates hash ``style`` and ``script`` for a content security policy.

    Args:
        template: name of a file of this package.
        context: what the template is filled with.
        styles: names of files of this package, one after the other in ``style``.
        scripts: as styles, in ``script``.
    """
    environment = templates(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(count="{:,}".format, hash=_hash)
    style, script = (Markup("\n").join(map(_content, names)) for names in (styles, scripts))
    text = environment.get_template(template).render(**context, style=style, script=script)
    return text.encode("utf-8", "backslashreplace")  # names of files may be no text


@contextmanager
def refusing_damage(file: Path, missing: str, again: str) -> Iterator[None]:
    """Inside the block, what does not have the form of a result is said to the user in one line.

    Args:
        file: that is read there.
        missing: what to do if it is not there.
        again: what to do if it is damaged.
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
    """As a content security policy names what may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
