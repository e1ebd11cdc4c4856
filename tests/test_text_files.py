"""Text files are opened by an encoding that is named, not by that of the machine's locale."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = [
    *sorted((ROOT / "tf_panoptic_fpn").rglob("*.py")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted((ROOT / "export").rglob("*.py")),
    ROOT / "setup.py",
    ROOT / "train.py",
]
# Whose `open` is not of text: images, videos, archives.
OTHERS = {"FileSystems", "Image", "_av", "archive", "os", "zarr"}
# Of methods of a path: how many arguments come before the encoding, by position.
BEFORE = {"read_text": 0, "write_text": 1}


def opens_by_locale(call):
    """Tells whether a call opens a text file without naming its encoding."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    is_method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if is_method else getattr(call.func, "id", None)
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & set(keywords))
    owner = call.func.value if is_method else None
    if name == "open" and getattr(owner, "attr", getattr(owner, "id", None)) in OTHERS:
        return False
    if name in BEFORE:
        return is_method and len(call.args) <= BEFORE[name]
    if name not in ("open", "fdopen"):
        return False
    place = 0 if is_method and name == "open" else 1  # of the mode
    mode = keywords.get("mode") or (call.args[place] if len(call.args) > place else None)
    values = [n.value for n in ast.walk(mode) if isinstance(n, ast.Constant)] if mode else []
    return not any("b" in str(value) for value in values)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("open(path, 'rb')", False),
        ("open(path, encoding='utf-8')", False),
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open('rb')", False),
        ("Image.open(path)", False),
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("write_text(path, text)", False),
        ("os.fdopen(handle, 'w')", True),
        ("os.fdopen(handle, 'wb')", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, text=True, encoding='utf-8')", False),
    ],
)
def test_what_is_found(text, found):
    assert opens_by_locale(ast.parse(text).body[0].value) == found


def test_encodings_are_named():
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_by_locale(node)
    ]
    assert found == []
