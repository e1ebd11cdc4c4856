"""Writes `config.schema.json` and `configuration.md` from the models of the configuration.

python docs/render_configuration.py
"""

import json
import pathlib

from tf_panoptic_fpn.config import Config

DOCS = pathlib.Path(__file__).parent
TYPES = {
    "integer": "int",
    "number": "float",
    "boolean": "`true`, `false`",
    "string": "text",
    "null": "`null`",
}
PATHS = ("images",)  # has another meaning in each format
SPLITS = """\
`format`, `coco_panoptic` by default, says which paths there are. Paths are taken from `data.root`.
Without others, `data.train` has `short_sides: [640, 672, 704, 736, 768, 800]` and
`flip_probability: 0.5`. What the formats are: [Data formats](data_formats.md)."""
HEADER = """\
# Configuration
A YAML file holds what differs from the defaults below; `--set a.b=value`, the value in YAML,
changes one more. A key that is unknown, a value of another type or out of its bounds, and values
that do not fit each other are errors: all of a file at once, a line each, with the line of the file
and the value as written.

```sh
tf-panoptic-fpn config --list
tf-panoptic-fpn config --config=quickstart --set train.batch_size=2
```

`--list` names the recipes that are shipped; such a name stands for its file wherever a `--config`
is taken. The second command prints the configuration whole, defaults included, as the `config.yaml`
of a run is. `~` and `$VARIABLE` are expanded in every path.

The first line of a recipe, `# yaml-language-server: $schema=...`, names the
[JSON schema](config.schema.json): editors that know it complete the keys, explain them and mark
what is wrong.

This page and the schema are written by `docs/render_configuration.py`.
"""


def schema() -> dict:
    """Returns the JSON schema of a configuration file."""
    tree = Config.model_json_schema()
    _simplify(tree)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of tf_panoptic_fpn",
        **tree,
    }


def _simplify(node):
    """Drops titles, which repeat the keys, and admits a split without a format, and no value for a
    section.
    """
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, (dict, list)):
            _simplify(child)
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        if "oneOf" in node:  # more than one format fits where none is named
            node["anyOf"] = node.pop("oneOf")
            del node["discriminator"]
        if node.get("type") == "object" and "properties" in node:
            node["type"] = ["object", "null"]


def page() -> str:
    """Returns the page of the documentation."""
    whole = schema()
    sections = whole["$defs"]
    parts = [HEADER]
    for key, field in whole["properties"].items():
        parts += _section(f"`{key}`: {field['description']}", sections[_name(field)], sections)
    splits = [_name(arm) for arm in sections["DataConfig"]["properties"]["train"]["anyOf"]]
    first, *others = (sections[name]["properties"] for name in splits)
    common = [key for key in first if all(key in other for other in others) and key not in PATHS]
    title = "`data.train`, `data.validation`"
    parts += [f"## {title}\n\n{SPLITS}\n", *_table({key: first[key] for key in common[1:]})]
    for name in splits:
        own = {k: v for k, v in sections[name]["properties"].items() if k not in common}
        parts.append(f"### `format: {sections[name]['properties']['format']['const']}`\n")
        parts += [f"{_text(sections[name])}\n", *_table(own)]
    return "\n".join(parts)


def _section(title, section, sections):
    parts = [f"## {title}\n", f"{_text(section)}\n"]
    fields = {k: v for k, v in section["properties"].items() if _is_value(v)}
    parts += _table(fields) if fields else []
    for key, field in section["properties"].items():
        name = _name(field)
        if name and name.endswith("Config"):
            parts += _section(f"`data.{key}`: {field['description']}", sections[name], sections)
    return parts


def _name(field):
    """The name of the section that a field holds, or None."""
    arms = [field, *field.get("anyOf", ())]
    return next((arm["$ref"].split("/")[-1] for arm in arms if "$ref" in arm), None)


def _is_value(field):
    return _name(field) is None


def _text(section):
    return section["description"].replace("\n    ", "\n").strip()


def _table(fields):
    rows = [
        f"| `{key}` | `{json.dumps(field['default'])}` | {_value(field)} | {field['description']} |"
        for key, field in fields.items()
    ]
    return ["| key | default | value | meaning |", "|---|---|---|---|", *rows, ""]


def _value(field):
    """The type and the bounds of a value, in words."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return ", or ".join(_value(choice) for choice in field["anyOf"])
    if "pattern" in field:
        return f"text that matches `{field['pattern'].replace('|', chr(92) + '|')}`"
    if "prefixItems" in field:
        items = [_value(item) for item in field["prefixItems"]]
        return f"{len(items)} of {items[0]}"
    if field["type"] == "object":
        return f"a mapping of text to {_value(field['additionalProperties'])}"
    if field["type"] == "array":
        return f"list of {_value(field['items'])}{', not empty' if 'minItems' in field else ''}"
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    start = f"[{low}" if above is None else f"({above}"
    end = f"{field['maximum']}]" if "maximum" in field else f"{field.get('exclusiveMaximum')})"
    if not end.startswith("None"):
        bounds = f" in {start}, {end}"
    else:
        bounds = "" if low is None else f", {low} or above"
        bounds += "" if above is None else f" above {above}"
    multiple = f", a multiple of {field['multipleOf']}" if "multipleOf" in field else ""
    return f"{TYPES[field['type']]}{bounds}{multiple}"


def main():
    text = json.dumps(schema(), indent=1) + "\n"
    (DOCS / "config.schema.json").write_text(text, encoding="utf-8")
    (DOCS / "configuration.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
