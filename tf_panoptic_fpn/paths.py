"""Paths as a person writes them."""

import os


def expand(path):
    """Returns a path with `~` and `$VARIABLE` replaced, as a shell does.

    A variable that is not set stays as it is written, since `$` may be part of a name.
    """
    return os.path.expanduser(os.path.expandvars(path))
