"""Files that are there whole or not at all: written beside their place, then renamed."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path in the same folder to write to, which takes the place of `path` at the end.

    The name there ends as that of `path` does, for writers that go by the suffix. After an error
    `path` is as it was, and the file beside it is gone. What is no regular file, such as
    `/dev/stdout`, is written in place; a link stays and its target is replaced.

    Args:
        path: of the file.

    Yields:
        `pathlib.Path`.

    Raises:
        OSError: if it cannot be written.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    partial = path.with_name(f".partial_{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, see `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
