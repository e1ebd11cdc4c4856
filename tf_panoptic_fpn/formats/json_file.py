"""Reading the lists of a JSON file entry by entry: a file of any size takes little memory."""

import json

from tf_panoptic_fpn.errors import DataError

_WINDOW = 1 << 22


def read_lists(path, keys):
    """Reads some of the lists of a JSON object, and checks that the whole file is JSON.

    Args:
        path: a JSON file that holds an object.
        keys: names of lists of objects.

    Returns:
        dict: key -> list of dicts.

    Raises:
        DataError: naming the file, if it cannot be read, is not JSON or lacks one of the lists.
    """
    lists = {}
    for key, entry, _ in _values(path):
        entries = lists.setdefault(key, [])
        if key in keys and entry is not _NO_ENTRY:
            entries.append(entry)
    for key in keys:
        if key not in lists:
            raise DataError(f"{path}: the key `{key}` is missing")
    return {key: lists[key] for key in keys}


def list_entries(path, key):
    """Reads a list of a JSON object entry by entry.

    Args:
        path: a JSON file that holds an object.
        key: name of a list of objects.

    Yields:
        `(entry, span)`: a dict, and the `(start, stop)` of its text in the file, in bytes.

    Raises:
        DataError: as `read_lists`.
    """
    found = False
    for name, entry, span in _values(path):
        if name == key:
            found = True
            if entry is not _NO_ENTRY:
                yield entry, span
        elif found:
            return
    if not found:
        raise DataError(f"{path}: the key `{key}` is missing")


def field(entry, key, kind, file):
    """Returns `entry[key]`, which must be there and of this type or of one of these types.

    Raises:
        DataError: naming the file and the key.
    """
    if key not in entry:
        shown = {k: v for k, v in entry.items() if not isinstance(v, (list, dict))}
        raise DataError(f"{file}: the key `{key}` is missing. Received: {shown!r:.200}")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise DataError(f"{file}: `{key}` must be {names}. Received: {value!r:.80}")
    return value


def positive(entry, key, file):
    """Returns the int `entry[key]`, which must be above 0; raises DataError as `field` does."""
    value = field(entry, key, int, file)
    if value <= 0:
        raise DataError(f"{file}: `{key}` must be above 0. Received: {value}")
    return value


_NO_ENTRY = object()  # stands for the beginning of a list
_LISTS_OF_OBJECTS = ("images", "annotations", "categories")


def _values(path):
    """Yields (key, entry, span) of all lists, (key, _NO_ENTRY, None) at the beginning of each."""
    try:
        # Bytes as characters: an entry with others than ASCII's is decoded once more.
        with open(path, encoding="latin-1", newline="") as file:
            yield from _Scanner(file, path).values()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise DataError(f"{path}: not JSON: nested too deeply") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {' '.join(str(error).split())}") from None


class _Scanner:
    """Decodes one value after the other from a window of a text file."""

    def __init__(self, file, path):
        self.file = file
        self.path = path
        self.text = ""
        self.position = 0  # in the text
        self.dropped = 0  # characters of the file before the text
        self.decode = json.JSONDecoder().raw_decode

    def values(self):
        if self.next_character() != "{":
            value, _ = self.value()
            raise DataError(
                f"{self.path}: must hold a JSON object. Received: {type(value).__name__}"
            )
        self.position += 1
        for _ in self.items("}"):
            key, _ = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key must be text. Received: {key!r:.40}")
            self.expect(":")
            if self.next_character() != "[":
                self.value()
                if key in _LISTS_OF_OBJECTS:
                    raise DataError(f"{self.path}: `{key}` must be a list of objects")
                continue
            self.position += 1
            yield key, _NO_ENTRY, None
            for _ in self.items("]"):
                value, span = self.value()
                if key in _LISTS_OF_OBJECTS and not isinstance(value, dict):
                    raise DataError(f"{self.path}: `{key}` must be a list of objects")
                yield key, value, span
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
