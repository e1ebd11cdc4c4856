"""What pydantic finds, in the words of the rest of the package."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tf_panoptic_fpn.config.root import Config
from tf_panoptic_fpn.formats.split_config import SplitConfig
from tf_panoptic_fpn.section import Section

TYPES = {
    "int_type": "int",
    "int_from_float": "int",
    "float_type": "float",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
    "union_tag_not_found": "a mapping",
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with a key, a line of `ConfigError`.

    Attributes:
        key: dotted, with `[i]` for a place in a list.
        text: the key and the rule.
        value: as read, shown behind the text unless `shows_value` is False.
        taken_out: what is taken out so that the rest can be read, each as its keys from the top.
    """

    key: str
    text: str
    value: Any
    taken_out: tuple[tuple, ...] = ()
    shows_value: bool = True


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an error of pydantic lies: keys from the top, places in a list below the last, the
    field of the last key, and the sections that may lie there.
    """

    keys: tuple
    indices: tuple
    field: Any  # its FieldInfo; None of the whole and of an unknown key
    section: type[Section]  # that has the last key
    arms: tuple[type[Section], ...]  # all that might have it

    @property
    def name(self) -> str:
        return ".".join(map(str, self.keys)) + "".join(f"[{index}]" for index in self.indices)


def problems_of(error: ValidationError, tree: Any) -> list[Problem]:
    """Returns a `Problem` for each error of pydantic about a tree."""
    problems = []
    for found in error.errors(include_url=False):
        place = _place(found["loc"])
        problems += _problems(found, place, tree)
    return problems


def sections_of(annotation: Any) -> tuple[type[Section], ...]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    return tuple(s for part in typing.get_args(annotation) for s in sections_of(part))


def _bounds(field: FieldInfo, context: dict[str, Any]) -> str:
    """Returns the bounds of a field in words, e.g. "in [0, 1]" or "above 0".

    Args:
        field: the field, whose own bounds come first.
        context: of the error, with the bound that is broken, e.g. of a value in a list.
    """
    names = ("gt", "ge", "lt", "le")
    found = {name: context[name] for name in names if name in context}
    for part in field.metadata:
        found.update({name: getattr(part, name) for name in names if hasattr(part, name)})
    low = found.get("ge", found.get("gt"))
    high = found.get("le", found.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in found else '('}{low:g}, {high:g}{']' if 'le' in found else ')'}"
    if low is not None:
        return f"{low:g} or above" if "ge" in found else f"above {low:g}"
    return f"at most {high:g}" if "le" in found else f"below {high:g}"


def _place(loc: tuple[int | str, ...]) -> Place:
    keys: list[int | str] = []
    indices: list[int] = []
    field, section = None, Config
    arms, below = (Config,), (Config,)
    for part in loc:
        if isinstance(part, int) and keys:
            indices.append(part)
        elif len(below) > 1 and str(part) in _by_format(below):
            below = (_by_format(below)[str(part)],)  # pydantic names the format, which is no key
        else:
            section = below[0] if below else section
            arms = sections_of(field.annotation) if field else below
            field = section.model_fields.get(str(part))
            keys.append(part)
            below = sections_of(field.annotation) if field else ()
    return Place(tuple(keys), tuple(indices), field, section, arms)


def _by_format(sections: Iterable[type[Section]]) -> dict[str, type[Section]]:
    return {s.model_fields["format"].default: s for s in sections if "format" in s.model_fields}


def _problems(found: Any, place: Place, tree: Any) -> list[Problem]:
    kind, context, value = found["type"], found.get("ctx", {}), found["input"]
    if kind == "extra_forbidden":
        return [_unknown_key(place, value)]
    if kind == "union_tag_invalid":
        return _unknown_format(place, tree)
    name = place.name
    if kind == "too_short" and value:  # its values are at fault, and told of
        return []
    if kind == "missing" and place.indices:  # of a list that is too short
        return [_list_length(dataclasses.replace(place, indices=place.indices[:-1]), value)]
    if kind == "too_long":
        return [_list_length(place, value)]
    if kind in TYPES:
        rule = TYPES[kind]
    elif kind == "literal_error":
        rule = f"one of ({context['expected'].replace(' or ', ', ')})"
    elif kind == "too_short":
        return [Problem(name, f"`{name}` must not be empty", value, (place.keys,))]
    elif kind == "multiple_of":
        rule = f"a multiple of {context['multiple_of']}"
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        rule = _bounds(place.field, context)
    else:
        rule = f"valid: {found['msg']}"
    where = f"`{name}`" if name else "the file"
    return [Problem(name, f"{where} must be {rule}", value, (place.keys,))]


def _list_length(place: Place, value: Any) -> Problem:
    kind = place.field.annotation
    for _ in place.indices:
        kind = typing.get_args(kind)[0]
    text = f"`{place.name}` must have {len(typing.get_args(kind))} values"
    return Problem(place.name, text, value, (place.keys,))


def _unknown_key(place: Place, value: Any) -> Problem:
    key, name = str(place.keys[-1]), place.name
    if any(key in arm.model_fields for arm in place.arms):
        kind = place.section.model_fields["format"].default
        return Problem(name, f"`{name}` is not read with `format: {kind}`", value, (place.keys,))
    close = difflib.get_close_matches(key, place.section.model_fields, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    return Problem(name, f"unknown key `{name}`{hint}", value, (place.keys,), shows_value=False)


def _unknown_format(place: Place, tree: Any) -> list[Problem]:
    """An unknown format, which is taken out with the paths, that only a format has."""
    name = f"{place.name}.format"
    arms = [a for a in sections_of(place.field.annotation) if issubclass(a, SplitConfig)]
    rule = f"`{name}` must be one of {tuple(_by_format(arms))}"
    split = tree
    for key in place.keys:
        split = split[key]
    paths = [key for key in split if any(key in arm.path_keys() for arm in arms)]
    taken_out = tuple((*place.keys, key) for key in ("format", *paths))
    return [Problem(name, rule, split["format"], taken_out)]
