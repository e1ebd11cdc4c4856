"""Reading JSON files: whole, or the lists of an object entry by entry in little memory."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.messages import one_line

Entry = dict[str, Any]

_WINDOW = 1 << 22
_ONES = bytes.maketrans(b"0123456789", b"1" * 10)
_MARK = b"\xef\xbb\xbf".decode("latin-1")  # which Windows editors put before UTF-8
_UTF_16 = tuple(mark.decode("latin-1") for mark in (b"\xff\xfe", b"\xfe\xff"))
_NO_ENTRY = object()  # stands for the beginning of a list
_LISTS_OF_OBJECTS = ("images", "annotations", "categories")


def read_json(path: str | os.PathLike, kind: type | tuple[type, ...]) -> Any:
    """Reads a JSON file whose outermost value is of a given kind.

    Args:
        path: the file.
        kind: `dict`, `list` or a tuple of them.

    Raises:
        DataError: if the file cannot be read, is not JSON (it may be cut short), or holds another
            kind of value.
    """
    try:
        with open(path, "rb") as file:
            text = file.read()
        try:
            # orjson makes floats of whole numbers beyond 64 bits, as some ids are.
            tree = (json if _has_long_number(text) else orjson).loads(text)
        except orjson.JSONDecodeError:  # or a byte order mark, UTF-16, NaN
            tree = json.loads(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON, or cut short: {one_line(error)}") from None
    if not isinstance(tree, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join("an object" if kind is dict else "a list" for kind in kinds)
        raise DataError(f"{path}: must hold {expected}. Received: {type(tree).__name__}")
    return tree


def _has_long_number(text: bytes) -> bool:
    """Whether a key has a whole number of 19 digits or more."""
    return b'":' + b"1" * 19 in text.translate(_ONES, b" \t\r\n-")


def read_lists(
    path: str | os.PathLike,
    keys: Sequence[str],
    breaches: Breaches | None = None,
    others: Entry | None = None,
) -> dict[str, list[Entry]] | None:
    """Reads some of the lists of a JSON object, and checks that the whole file is JSON.

    Args:
        path: a JSON file that holds an object.
        keys: names of lists of objects.
        breaches: by default those that stop.
        others: takes all other values of the object.

    Returns:
        The lists by their keys; empty where the file has none, None if it is no JSON.

    Raises:
        DataError: naming the file, if it cannot be opened; otherwise by the policy of `breaches`.
    """
    breaches = breaches or Breaches()
    lists: dict[str, list[Entry]] = {key: [] for key in keys}

    def keep_other(key, value):
        if key is None:
            breaches.add("mark", "", "which is passed over", path)
        elif others is None or key in _LISTS_OF_OBJECTS:
            return
        elif value is _NO_ENTRY:
            others[key] = []
        elif isinstance(others.get(key), list):
            others[key].append(value)
        else:
            others[key] = value

    try:
        for key, entry, _ in _entries(path, keys, breaches, keep_other):
            lists[key].append(entry)
    except _NotJsonError as error:
        breaches.add("json", "", str(error), path)
        return None
    return lists


def list_entries(
    path: str | os.PathLike, key: str, breaches: Breaches | None = None
) -> Iterator[tuple[Entry, tuple[int, int]]]:
    """Reads a list of a JSON object entry by entry.

    Args:
        path: a JSON file that holds an object.
        key: name of a list of objects.
        breaches: by default those that stop.

    Yields:
        `(entry, span)`: a dict, and the `(start, stop)` of its text in the file, in bytes.

    Raises:
        DataError: as `read_lists`.
    """
    breaches = breaches or Breaches()
    try:
        for _, entry, span in _entries(path, (key,), breaches, lambda key, value: None):
            yield entry, span
    except _NotJsonError as error:
        breaches.add("json", "", str(error), path)


def _entries(
    path: str | os.PathLike,
    keys: Sequence[str],
    breaches: Breaches,
    on_other: Callable[[str | None, Any], None],
) -> Iterator[tuple[str, Entry, tuple[int, int]]]:
    """Yields (key, entry, span) of lists of objects; what is wrong with them is a breach.

    `on_other(key, value)` takes what `_values` finds besides.
    """
    lists, found = set(), set()
    for key, value, span in _values(path):
        if key not in keys:
            on_other(key, value)
            continue
        found.add(key)
        if value is _NO_ENTRY:
            lists.add(key)
        elif key in lists and isinstance(value, dict):
            yield key, value, span
        else:
            rule = "entry" if key in lists else "list"
            breaches.add(rule, "", f"`{key}` must be a list of objects", path)
    for key in keys:
        if key not in found:
            breaches.add("list", "", f"the key `{key}` is missing", path)


class _NotJsonError(ValueError):
    """The text is not JSON, or not an object."""


def _values(path: str | os.PathLike) -> Iterator[tuple[Any, Any, Any]]:
    """Yields (key, value, span) of all values of an object, of a list one by one.

    Before the entries of a list comes (key, _NO_ENTRY, None), and before all (None, None, None) if
    the file begins with a byte order mark.
    """
    try:
        # Bytes as characters: an entry with others than ASCII's is decoded once more.
        with open(path, encoding="latin-1", newline="") as file:
            yield from _Scanner(file).values()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise _NotJsonError("not JSON: nested too deeply") from None
    except (DataError, _NotJsonError):
        raise
    except ValueError as error:
        raise _NotJsonError(f"not JSON: {one_line(error)}") from None


class _Scanner:
    """Decodes one value after the other from a window of a text file."""

    def __init__(self, file):
        self.file = file
        self.text = ""
        self.position = 0  # in the text
        self.dropped = 0  # characters of the file before the text
        self.decode = json.JSONDecoder().raw_decode

    def values(self):
        while len(self.text) < len(_MARK) and self.read_more():
            pass
        first = self.next_character()
        if self.text.startswith(_MARK):
            self.position += len(_MARK)
            first = self.next_character()
            yield None, None, None
        elif self.text.startswith(_UTF_16):
            raise ValueError("the file is in UTF-16 and must be in UTF-8")
        if first != "{":
            value, _ = self.value()
            raise _NotJsonError(f"must hold a JSON object. Received: {type(value).__name__}")
        self.position += 1
        for _ in self.items("}"):
            key, _ = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key must be text. Received: {key!r:.40}")
            self.expect(":")
            if self.next_character() != "[":
                yield (key, *self.value())
                continue
            self.position += 1
            yield key, _NO_ENTRY, None
            for _ in self.items("]"):
                yield (key, *self.value())
        if self.next_character():
            raise ValueError(f"more text behind the object, at character {self.offset()}")

    def items(self, end):
        """Yields before each item of a list or an object, whose first bracket has been read."""
        if self.next_character() == end:
            self.position += 1
            return
        while True:
            yield
            if self.next_character() == end:
                self.position += 1
                return
            self.expect(",")

    def value(self):
        """Decodes the value at the position; returns it and its (start, stop) in the file."""
        self.next_character()
        while True:
            try:
                value, stop = self.decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if not self.read_more():
                    raise ValueError(f"{error.msg}, at character {self.offset()}") from None
                continue
            # A number that ends near the end of the window may go on behind it.
            if self.text[stop : stop + 3].strip(".eE+-") or not self.read_more():
                break
        if not self.text.isascii():
            value = json.loads(self.text[self.position : stop].encode("latin-1"))
        span = (self.offset(), self.dropped + stop)
        self.position = stop
        return value, span

    def expect(self, character):
        if self.next_character() != character:
            raise ValueError(f"Expecting '{character}', at character {self.offset()}")
        self.position += 1

    def next_character(self):
        """Skips white space; returns the next character, or "" at the end of the file."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read_more():
                return ""

    def read_more(self):
        """Reads another window, twice as large where no value ended in the last one."""
        more = self.file.read(max(_WINDOW, len(self.text) - self.position))
        self.dropped += self.position
        self.text = self.text[self.position :] + more
        self.position = 0
        return bool(more)

    def offset(self):
        return self.dropped + self.position
