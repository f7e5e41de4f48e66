"""HTML from small template files: what is put into them is escaped unless it is markup already."""

import base64
import functools
import importlib.resources
import json
import re
from collections.abc import Iterable
from html import escape
from string import Template
from typing import Any


class Markup(str):
    """Text that is HTML already."""


def fill(template: str, **values: str | int) -> Markup:
    """A template of `templates/NAME.html` with every $word in it replaced.

    Raises:
        KeyError: If a word has no value.
    """
    texts = {name: value if isinstance(value, Markup) else _escape(str(value)) for name, value in values.items()}
    return Markup(_template(template).substitute(texts))


def _escape(text: str) -> str:
    """As HTML, with no line broken between a number and its unit."""
    return escape(re.sub(r"(?<=\d) (?=[%Å])", "\u00a0", text))


def join(parts: Iterable[Markup]) -> Markup:
    """Markup after markup."""
    return Markup("".join(parts))


def png_address(png: bytes) -> Markup:
    """A picture as an address that needs no file."""
    return Markup("data:image/png;base64," + base64.b64encode(png).decode("ascii"))


def json_in_page(content: Any) -> Markup:
    """Data for a script, which no `</script>` in it can end."""
    return Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def web_asset(name: str) -> Markup:
    """A style sheet or script of ours, to be put into a page as it is."""
    text = importlib.resources.files("cryohydra").joinpath("assets", "web", name).read_text(encoding="utf-8")
    assert "</script" not in text and "</style" not in text
    return Markup(text)


@functools.cache
def _template(name: str) -> Template:
    folder = importlib.resources.files("cryohydra.analysis").joinpath("templates")
    return Template(folder.joinpath(f"{name}.html").read_text(encoding="utf-8").rstrip("\n"))
