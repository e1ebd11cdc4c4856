"""Values in messages: quoted as written, counted, and on one line."""

import json
from collections.abc import Iterable
from typing import Any


def written(value: Any) -> str:
    """Returns a JSON value as it is written, shortened: `'1'` is text and `1` a number."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."


def few(values: Iterable[Any]) -> str:
    """Returns the first of some values as text, so that a message stays on one line."""
    values = list(values)
    text = ", ".join(map(str, values[:5]))
    return text if len(values) <= 5 else f"{text} and {len(values) - 5} more"


def plural(number: int, noun: str) -> str:
    """Returns a number with its noun: "1 image", "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Returns text with a `?` for each character that a terminal cannot show."""
    return "".join(c if c.isprintable() else "?" for c in text)


def one_line(error: BaseException) -> str:
    """Returns what an error says without its line ends; its name if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
