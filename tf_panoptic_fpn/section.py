"""What the sections of a configuration have in common: frozen, strict, and rules of their own."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from tf_panoptic_fpn.paths import expand


class Fault(NamedTuple):
    """A broken rule: the dotted key, what its value must be, and the value."""

    key: str
    rule: str
    value: Any

    def __str__(self) -> str:
        return f"`{self.key}` must be {self.rule}. Received: {as_lists(self.value)!r}"


Broken = tuple[str, str] | None  # what a rule returns: the key and what its value must be


def rule(method: Any) -> Any:
    """Marks a method of a `Section` that returns `(key, rule)` where several values do not fit.

    `key` is that of the value to mend, dotted where it lies in a section below.
    """
    method.is_rule = True
    return method


class Section(pydantic.BaseModel):
    """A section of a configuration: fields, and rules between them.

    Raises:
        pydantic.ValidationError: a ValueError that lists every field at fault or, if there is none,
            every rule that is broken.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _as_written(cls, tree: Any) -> Any:
        """YAML has lists for tuples, and nothing for a section that is left empty."""
        return {} if tree is None else as_tuples(tree)

    @pydantic.model_validator(mode="after")
    def _keeps_its_rules(self, info: pydantic.ValidationInfo) -> "Section":
        if info.context != "rules later":
            faults = list(self.own_faults())
            if faults:
                raise ValueError("; ".join(map(str, faults)))
        return self

    def own_faults(self, partial: bool = False) -> Iterator[Fault]:
        """Yields a `Fault` for each rule that is broken; those of the sections within are theirs.

        Args:
            partial: whether values are missing because they are at fault themselves: a rule that
                reads one is passed over.
        """
        methods = [getattr(self, name) for name in vars(type(self)) if _is_rule(type(self), name)]
        for method in methods:
            try:
                broken = method()
            except AttributeError:
                if not partial:
                    raise
                continue
            if broken:
                key, must_be = broken
                yield Fault(key, must_be, value_at(self, key))


def _is_rule(kind: type, name: str) -> bool:
    return getattr(vars(kind).get(name), "is_rule", False)


def value_at(section: Any, key: str) -> Any:
    """Returns the value at a dotted key below a section."""
    for part in key.split("."):
        section = getattr(section, part)
    return section


def as_tuples(tree: Any) -> Any:
    """Returns a tree with tuples for lists, and text for keys, which YAML may read as numbers."""
    if isinstance(tree, (list, tuple)):
        return tuple(map(as_tuples, tree))
    return {str(k): as_tuples(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def as_lists(tree: Any) -> Any:
    """Returns a tree with lists for tuples, as YAML writes them."""
    if isinstance(tree, (list, tuple)):
        return list(map(as_lists, tree))
    return {k: as_lists(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def _number(value: Any) -> Any:
    """YAML reads `1e-4`, without a dot, as text."""
    if isinstance(value, str) and value[:1] in "+-.0123456789" and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def setting(default: Any, meaning: str, **bounds: Any) -> Any:
    """A field of a `Section`: its default, its meaning and its bounds, on one line."""
    return Field(default, description=meaning, **bounds)


_NUMBER = BeforeValidator(_number)
Float = Annotated[float, _NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _NUMBER]
Positive = Annotated[float, Field(gt=0), _NUMBER]
NotNegative = Annotated[float, Field(ge=0), _NUMBER]
Count = Annotated[int, Field(gt=0)]
Path = Annotated[str, AfterValidator(expand)]
