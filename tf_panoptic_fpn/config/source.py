"""A configuration as it is written: its tree, and the place and the text of each value."""

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
        node: the YAML node of it, or None where it is empty.
        tree: dicts, lists and values, overrides applied.
        overrides: dict: dotted key -> text, as given to `--set`.
    """

    def __init__(self, path, text: str, node: yaml.Node | None, tree: Any, overrides: dict):
        self.path = path
        self.text = text
        self.node = node
        self.tree = tree
        self.overrides = overrides

    def is_override(self, key: str) -> bool:
        """Whether a key, or a part of it, comes from `--set`."""
        return self._override(key) is not None

    def position(self, key: str) -> float:
        """The place of a key in the file, to sort by; those of `--set` come last."""
        node, _ = self._find(key)
        return float("inf") if node is None or self.is_override(key) else node.start_mark.index

    def line(self, problem: Problem) -> str:
        """Returns one line: the file and its line, the key, the rule, the value as written."""
        node, exact = self._find(problem.key)
        override = self._override(problem.key)
        if override is not None:
            place, node = "--set", None
        elif node is None or not exact:
            place = str(self.path)
        else:
            place = f"{self.path}:{node.start_mark.line + 1}"
        line = f"{place}: {problem.text}"
        if not problem.shows_value:
            return line
        return f"{line}. Received: {self._as_written(node if exact else None, problem.value)}"

    def _override(self, key):
        for name, text in self.overrides.items():
            if f"{key}.".replace("[", ".").startswith(f"{name}.") or name.startswith(f"{key}."):
                return text
        return None

    def _find(self, key):
        """The node at a dotted key, or the last above it, and whether it is the key's own."""
        node = self.node
        for part in key.replace("[", ".[").split(".") if key else []:
            child = _child(node, part)
            if child is None:
                return node, False
            node = child
        return node, True

    def _as_written(self, node, value):
        """Text is quoted; other values are shown as in the file, unless they are in a block."""
        in_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        if isinstance(value, str) or node is None or in_block:
            return repr(as_lists(value))
        return " ".join(self.text[node.start_mark.index : node.end_mark.index].split())


def _child(node, part):
    if isinstance(node, yaml.SequenceNode) and part.startswith("["):
        index = int(part[1:-1])
        return node.value[index] if index < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    return None


def parse(path, text: str, overrides: Sequence[str]) -> Source:
    """Reads the text of a YAML file and applies overrides.

    Raises:
        ConfigError: if the text is not YAML, has a key twice, or an override is not `a.b=value`.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_keys(path, node, "", set())
        tree = {} if node is None else loader.construct_document(node)
    except ConfigError:
        raise
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    given = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set takes a.b=value. Received: {override!r}")
        tree = _with_override(tree if tree is not None else {}, key, value)
        given[key] = value
    return Source(path, text, node, tree, given)


def _check_keys(path, node, prefix, above):
    """YAML takes the last of two equal keys without a word, and a value may hold itself."""
    if id(node) in above:
        raise ConfigError(
            f"{path}:{node.start_mark.line + 1}: `{prefix[:-1]}` must not hold itself"
        )
    above = {*above, id(node)}
    lines: dict[str, int] = {}
    for item in node.value if isinstance(node, yaml.CollectionNode) else ():
        key, value = item if isinstance(node, yaml.MappingNode) else (None, item)
        name = f"{prefix}{key.value}." if isinstance(key, yaml.ScalarNode) else prefix
        if name in lines:
            raise ConfigError(
                f"{path}:{key.start_mark.line + 1}: `{name[:-1]}` must be given once. Received: "
                f"again, after line {lines[name]}"
            )
        if name != prefix:
            lines[name] = key.start_mark.line + 1
        _check_keys(path, value, name, above)


def _with_override(tree, key, text):
    try:
        value = yaml.safe_load(text)
    except _NOT_YAML:
        raise ConfigError(f"--set {key}: the value is not YAML. Received: {text!r}") from None
    parents, leaf = key.split(".")[:-1], key.split(".")[-1]
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
