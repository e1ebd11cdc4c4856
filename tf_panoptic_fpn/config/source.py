"""A configuration as it is written: its tree, and the place and the text of each value."""

import os
from collections.abc import Sequence
from typing import Any

import yaml

from tf_panoptic_fpn.config.wording import Problem
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.section import as_lists

# Beside its own errors, the loader lets through those of a tag whose text does not fit it.
_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class Source:
    """A configuration before it is checked.

    Args:
        path: its file.
        text: what the file holds.
        overrides: strings `a.b=value`.

    Attributes:
        tree: dicts, lists and values, overrides applied.

    Raises:
        ConfigError: if the text is not YAML, has a key twice, or an override is not `a.b=value`.
    """

    def __init__(self, path: str | os.PathLike, text: str, overrides: Sequence[str]) -> None:
        self.path = path
        self._text = text
        self._nodes: dict[str, yaml.Node] = {}  # dotted key -> node
        self._overrides: list[str] = []  # their keys
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            self._add_nodes(root, "", set())
            self.tree: Any = None if root is None else loader.construct_document(root)
        except ConfigError:
            raise
        except _NOT_YAML as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        if self.tree is None:  # an empty file
            self.tree = {}
        for override in overrides:
            key, separator, value = override.partition("=")
            if not separator or not key:
                raise ConfigError(f"--set takes a.b=value. Received: {override!r}")
            self.tree = _with_override(self.tree, key, value)
            self._overrides.append(key)

    def _add_nodes(self, node: Any, key: str, above: set[int]) -> None:
        """YAML takes the last of two equal keys without a word, and a value may hold itself."""
        if id(node) in above:
            raise ConfigError(f"{self.path}:{_line(node)}: `{key}` must not hold itself")
        if key in self._nodes:
            raise ConfigError(
                f"{self.path}:{_line(node)}: `{key}` must be given once. Received: again, after "
                f"line {_line(self._nodes[key])}"
            )
        self._nodes[key] = node
        above = {*above, id(node)}
        if isinstance(node, yaml.SequenceNode):
            for i, child in enumerate(node.value):
                self._add_nodes(child, f"{key}[{i}]", above)
        if isinstance(node, yaml.MappingNode):
            for name, child in node.value:
                self._add_nodes(child, f"{key}.{name.value}".lstrip("."), above)

    def is_override(self, key: str) -> bool:
        """Whether a key, or a part of it, comes from `--set`."""
        parts = f"{key.replace('[', '.')}."
        return any(parts.startswith(f"{o}.") or o.startswith(f"{key}.") for o in self._overrides)

    def position(self, key: str) -> float:
        """The place of a key in the file, to sort by; those of `--set` come last."""
        node = self._nodes.get(key)
        if self.is_override(key):
            return float("inf")
        return -1 if node is None else node.start_mark.index

    def line(self, problem: Problem) -> str:
        """Returns one line: the file and its line, the key, the rule, the value as written."""
        node = self._nodes.get(problem.key)
        place = str(self.path) if node is None else f"{self.path}:{_line(node)}"
        if self.is_override(problem.key):
            place, node = "--set", None
        line = f"{place}: {problem.text}"
        if not problem.shows_value:
            return line
        return f"{line}. Received: {self._as_written(node, problem.value)}"

    def _as_written(self, node: Any, value: Any) -> str:
        """Text is quoted; other values are shown as in the file, unless they are in a block."""
        in_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        if isinstance(value, str) or node is None or in_block:
            return repr(as_lists(value))
        return " ".join(self._text[node.start_mark.index : node.end_mark.index].split())


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _with_override(tree: Any, key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except _NOT_YAML:
        raise ConfigError(f"--set {key}: the value is not YAML. Received: {text!r}") from None
    *parents, leaf = key.split(".")
    tree = dict(tree) if isinstance(tree, dict) else tree
    node = tree
    for name in parents:
        child = node.get(name) or {} if isinstance(node, dict) else None
        if not isinstance(child, dict):
            raise ConfigError(f"--set {key}: `{name}` is not a section")
        node[name] = dict(child)
        node = node[name]
    if isinstance(node, dict):
        node[leaf] = value
    return tree
