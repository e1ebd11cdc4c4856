"""Writes `config.schema.json` and `configuration.md` from the models of the configuration.

python docs/render_configuration.py
"""

import json
import pathlib

from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.config.wording import bounds, bounds_text, sections_of
from tf_panoptic_fpn.section import as_lists

DOCS = pathlib.Path(__file__).parent
HEADER = """\
# Configuration
A YAML file holds what differs from the defaults below; `--set a.b=value`, the value in YAML, changes one
more. A key that is unknown, a value of another type or out of its bounds, and values that do not fit each
other are errors: all of a file at once, a line each, with the line of the file and the value as written.

```
python -m tf_panoptic_fpn config --list
python -m tf_panoptic_fpn config --config=quickstart --set train.steps=100
```

`--list` names the recipes that are shipped; such a name stands for its file wherever a `--config` is taken.
The second command prints the configuration whole, defaults included, as the `config.yaml` of a run is.
`~` and `$VARIABLE` are expanded in every path.

The first line of a recipe, `# yaml-language-server: $schema=...`, names the
[JSON schema](config.schema.json): editors that know it complete the keys, explain them and mark what is
wrong.

This page and the schema are written by `docs/render_configuration.py`.
"""


def schema() -> str:
    """Returns the JSON schema of a configuration file."""
    tree = Config.model_json_schema()
    tree["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    tree["title"] = "Configuration of tf_panoptic_fpn"
    _relax(tree)
    return json.dumps(tree, indent=1) + "\n"


def _relax(node):
    """A file may leave out `format`, and a section that it names may be empty."""
    if isinstance(node, list):
        for child in node:
            _relax(child)
    if isinstance(node, dict):
        if "oneOf" in node:  # without a format, more than one fits
            node["anyOf"] = node.pop("oneOf")
            node.pop("discriminator", None)
        for child in list(node.values()):
            _relax(child)


def page() -> str:
    """Returns the page of the documentation."""
    parts = [HEADER]
    for name, field in Config.model_fields.items():
        parts += _section(f"`{name}`: {field.description}", name, sections_of(field.annotation)[0])
    return "\n".join(parts)


def _section(title, prefix, section, shared=()):
    within = []
    parts = [f"## {title}", f"{section.__doc__.strip()}\n".replace("\n    ", "\n")]
    rows = ["| key | default | value | meaning |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        sections = sections_of(field.annotation)
        if key in shared:
            continue
        if sections:
            within.append((key, field, sections))
        else:
            default = json.dumps(as_lists(field.default))
            rows.append(f"| `{key}` | `{default}` | {_value(field)} | {field.description} |")
    parts.append("\n".join(rows) + "\n")
    for key, field, sections in within:
        if len(sections) == 1:
            parts += _section(f"`{prefix}.{key}`: {field.description}", prefix, sections[0])
    splits = next((sections for _, _, sections in within if len(sections) > 1), ())
    if splits:
        parts += _section(
            f"`{prefix}.train` and `{prefix}.validation`, of every format", prefix, splits[0].__base__
        )
    for split in splits:
        name = split.model_fields["format"].default
        parts += _section(f"`format: {name}`", prefix, split, ("format", *_shared(split)))
    return parts


def _shared(split):
    return split.__base__.model_fields


def _value(field):
    """The type and the bounds of a field, in words."""
    kind = Config.model_json_schema
    return str(kind) and _kind(field.annotation, bounds(field))


def _kind(annotation, found):
    return f"{annotation} {bounds_text(found) if found else ''}"


def main():
    (DOCS / "config.schema.json").write_text(schema(), encoding="utf-8")
    (DOCS / "configuration.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
