"""Reading JSON files of results and ground truth."""

import json

from tf_panoptic_fpn.errors import DataError


def read_json(path, kind):
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
            tree = json.loads(file.read())  # UTF-8 or UTF-16, with or without a byte order mark
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON, or cut short: {error}") from None
    if not isinstance(tree, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = {dict: "an object", list: "a list"}
        expected = " or ".join(names[kind] for kind in kinds)
        raise DataError(f"{path}: must hold {expected}. Received: {type(tree).__name__}")
    return tree
