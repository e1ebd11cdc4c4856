"""Paths as a person writes them."""

import os
from collections.abc import Sequence


def expand(path: str | os.PathLike) -> str:
    """Returns a path with `~` and `$VARIABLE` replaced, as a shell does.

    A variable that is not set stays as it is written, since `$` may be part of a name.
    """
    return os.path.expanduser(os.path.expandvars(path))


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command, each expanded, and that of `--option=` behind the `=`."""
    expanded = []
    for argument in arguments:
        is_option = argument.startswith("-")
        option, equals, value = argument.partition("=") if is_option else ("", "", argument)
        expanded.append(option + equals + expand(value))
    return expanded
