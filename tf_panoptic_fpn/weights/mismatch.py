"""Messages about weights that do not fit: layers by pattern, with counts."""

import re
from collections.abc import Iterable, Iterator

SHOWN = 8  # patterns that a message lists before "and N more"


def name_problems(title: str, names: Iterable[str]) -> Iterator[str]:
    """Yields "9 TITLE: a/conv1/(kernel, bias) (3 of a/conv*/), ..." where there are any names."""
    names = list(names)
    if names:
        layers = _layers(names)
        yield f"{len(names)} {title}: {_by_pattern({layer: layer for layer in layers})}"


def shape_problems(misshapen: Iterable[tuple]) -> Iterator[str]:
    """The same for (weight, shape wanted, shape received, names in the source)."""
    entries = {
        path: f"{path} is {wanted} and the source has {received} in {', '.join(origins)}"
        for path, wanted, received, origins in misshapen
    }
    if entries:
        yield f"{len(entries)} of another shape: {_by_pattern(entries)}"


def _layers(names: Iterable[str]) -> list[str]:
    """Names with the last part, kernel or bias, gathered: "a/conv/(kernel, bias)"."""
    layers: dict[str, list[str]] = {}
    for name in names:
        cut = max(name.rfind("/"), name.rfind(".")) + 1
        layers.setdefault(name[:cut], []).append(name[cut:])
    return [
        prefix + (ends[0] if len(ends) == 1 else f"({', '.join(ends)})")
        for prefix, ends in layers.items()
    ]


def _by_pattern(entries: dict[str, str]) -> str:
    """The first entry of each pattern and how many there are.

    Args:
        entries: dict of name -> text; names that differ in their numbers alone are of one pattern.
    """
    groups: dict[str, list[str]] = {}
    for name in entries:
        groups.setdefault(re.sub(r"\d+", "0", name), []).append(name)
    texts = []
    for names in groups.values():
        count = f" ({len(names)} of {_pattern(names)})" if len(names) > 1 else ""
        texts.append(entries[names[0]] + count)
    rest = sum(len(names) for names in list(groups.values())[SHOWN:])
    return ", ".join(texts[:SHOWN]) + (f" and {rest} more" if rest else "")


def _pattern(names: Iterable[str]) -> str:
    """What is the same in names that differ in numbers: "a/conv*/kernel"."""
    columns = zip(*(re.split(r"(\d+)", name) for name in names), strict=True)
    return "".join(parts[0] if len(set(parts)) == 1 else "*" for parts in columns)
