"""From a YAML file and `--set a.b=value` to a `Config`, or to all of its faults, one a line."""

import difflib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from absl import logging
from pydantic import ValidationError

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.config.recipes import find_config, list_recipes
from tf_panoptic_fpn.config.root import Config
from tf_panoptic_fpn.config.source import Source
from tf_panoptic_fpn.config.wording import Problem, problems_of
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.section import Section, as_lists, as_tuples


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML configuration.

    Args:
        path: the YAML file, or the name of a shipped recipe, e.g. "quickstart"; a key that it
            leaves out keeps its default.
        overrides: strings `a.b=value`, value in YAML, e.g. `"model.backbone=resnet101"`.

    Returns:
        A `Config`. What is likely a slip is logged as a warning.

    Raises:
        ConfigError: if the file cannot be read, a key is unknown, a value has another type, or a
            value breaks a rule: a line for each, with the file, the key, the rule and the value.
    """
    source = _read(path, overrides)
    config, problems, faults = _validate(source.tree)
    _raise(source, problems + faults)
    for warning in config.warnings():
        logging.warning("%s: %s", source.path, warning)
    return config


def load_run_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Config:
    """Reads the configuration that a run has written, as `load_config`.

    The run is there: a rule between values that it breaks, because an earlier version did not have
    that rule, is logged as a warning.
    """
    source = _read(path, overrides)
    config, problems, faults = _validate(source.tree)
    named = [f for f in faults if source.is_override(f.key)]
    _raise(source, problems + named)
    for fault in faults:
        logging.warning("%s", source.line(fault))
    return config


def save_config(config: Config, path: str | os.PathLike) -> None:
    """Writes a `Config` as YAML that `load_config` reads back equal; whole, or not at all."""
    write_text(path, format_config(config))


def format_config(config: Config) -> str:
    """Returns a `Config` as YAML."""
    tree = as_lists(config.model_dump())
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _read(path: str | os.PathLike, overrides: Sequence[str]) -> Source:
    file = find_config(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}{_hint(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: cannot be read: not UTF-8") from None
    return Source(file, text, overrides)


def _hint(path: str | os.PathLike) -> str:
    name = str(path)
    if name.endswith((".yaml", ".yml")):
        return ""
    close = difflib.get_close_matches(name, list_recipes(), n=1)
    return f"; did you mean the recipe `{close[0]}`?" if close else "; no recipe has that name"


def _validate(tree: Any) -> tuple[Config, list[Problem], list[Problem]]:
    """Returns a `Config`, what is wrong with single values, and which rules between values break.

    What is wrong is taken out and the rest read again, until all is found; then the rules that do
    not read what was taken out are asked.
    """
    problems: list[Problem] = []
    tree = as_tuples(tree)
    while True:
        try:
            config = Config.model_validate(tree, context="rules later")
            break
        except ValidationError as error:
            found = problems_of(error, tree)
        problems += found
        for problem in found:
            for keys in problem.taken_out:
                tree = _without(tree, keys)
    for problem in problems:
        for keys in problem.taken_out:
            _take_out(config, keys)
    return config, problems, list(_broken_rules(config, "", bool(problems)))


def _without(tree: Any, keys: tuple) -> Any:
    """A copy of a tree without the value at `keys`; empty where that is all of it."""
    if not keys or not isinstance(tree, dict):
        return {}
    if len(keys) == 1:
        return {key: value for key, value in tree.items() if key != keys[0]}
    return {**tree, keys[0]: _without(tree.get(keys[0]), keys[1:])}


def _take_out(section: Any, keys: tuple) -> None:
    """Removes the default that stands for a value at fault, so that no rule reads it."""
    for key in keys[:-1]:
        if not isinstance(getattr(section, key, None), Section):  # an entry of a mapping
            return
        section = getattr(section, key)
    if keys:
        section.__dict__.pop(keys[-1], None)


def _broken_rules(section: Section, prefix: str, partial: bool) -> Iterator[Problem]:
    for fault in section.own_faults(partial):
        key = prefix + fault.key
        yield Problem(key, f"`{key}` must be {fault.rule}", fault.value)
    for name, value in vars(section).items():
        if isinstance(value, Section):
            yield from _broken_rules(value, f"{prefix}{name}.", partial)


def _raise(source: Source, problems: list[Problem]) -> None:
    if problems:
        ordered = sorted(problems, key=lambda problem: source.position(problem.key))
        raise ConfigError("\n".join(source.line(problem) for problem in ordered))
