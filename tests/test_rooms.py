"""The rooms of the package: who may import whom, how large they are, and what is shown."""

import ast
import pathlib
import subprocess
import sys

import pytest

import tf_panoptic_fpn

PACKAGE = pathlib.Path(__file__).parent.parent / "tf_panoptic_fpn"
# From the ground up: a room imports from rooms further up in this list and from nothing below.
ROOMS = (
    "version",
    "cpu_memory",
    "errors",
    "messages",
    "schema",
    "garbage_collection",
    "atomic_write",
    "paths",
    "folders",
    "section",
    "workdir",
    "ops",
    "masks",
    "categories",
    "formats",
    "known_categories",
    "weight_files",
    "config",
    "visualize",
    "backbones",
    "models",
    "weights",
    "metrics",
    "results",
    "large_images",
    "media",
    "data",
    "datatools",
    "convert",
    "inference",
    "onnx_graph",
    "evaluation",
    "export",
    "batch",
    "demo",
    "distribution",
    "analysis",
    "training",
    "commands",
)
FILES_ALONE = {
    "version",
    "cpu_memory",
    "errors",
    "messages",
    "schema",
    "garbage_collection",
    "atomic_write",
    "paths",
    "folders",
    "section",
    "workdir",
    "masks",
    "categories",
    "formats",
    "known_categories",
    "weight_files",
    "config",
    "visualize",
    "metrics",
    "results",
    "large_images",
    "media",
}
FRAMEWORKS = {"tensorflow", "keras"}
LARGE = {"data", "evaluation"}
MAX_ROOM, MAX_FILE, MAX_FUNCTION = 2500, 400, 60  # lines; a function's without its docstring


def files_of(room):
    file = PACKAGE / f"{room}.py"
    return [file] if file.exists() else sorted((PACKAGE / room).rglob("*.py"))


def imported(path):
    """Dotted names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            if node.module == "tf_panoptic_fpn":
                yield from (f"tf_panoptic_fpn.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_file_is_in_a_room():
    listed = {file for room in ROOMS for file in files_of(room)}
    assert {PACKAGE / "__init__.py", PACKAGE / "__main__.py"} == set(PACKAGE.rglob("*.py")) - listed


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down(room):
    below = ROOMS[: ROOMS.index(room)]
    assert files_of(room)
    for file in files_of(room):
        for module in imported(file):
            package, _, rest = module.partition(".")
            if package == "tf_panoptic_fpn":
                assert rest.split(".")[0] in (*below, room), f"{file}: must not import {module}"


@pytest.mark.parametrize("room", sorted(FILES_ALONE))
def test_rooms_of_files_need_no_framework(room):
    for file in files_of(room):
        for module in imported(file):
            package, _, rest = module.partition(".")
            assert package not in FRAMEWORKS, f"{file}: must not import {module}"
            if package == "tf_panoptic_fpn":
                assert rest.split(".")[0] in FILES_ALONE, f"{file}: must not import {module}"


@pytest.mark.parametrize("room", ROOMS)
def test_sizes(room):
    total = 0
    for file in files_of(room):
        text = file.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        total += lines
        assert lines <= MAX_FILE, f"{file}: {lines} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = node.end_lineno - body[0].lineno + 1 if body else 0
                assert length <= MAX_FUNCTION, f"{file}: {node.name} has {length} lines"
    assert total <= MAX_ROOM or room in LARGE, f"{room}: {total} lines"


def public_functions(body):
    """The functions and methods of a module or class that have no private name."""
    for node in body:
        name = getattr(node, "name", "_")
        if name.startswith("_") and not name.endswith("__"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


# mypy demands as much, and of private functions too, where it is not told otherwise.
@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_have_hints(room):
    for file in files_of(room):
        for node in public_functions(ast.parse(file.read_text(encoding="utf-8")).body):
            known = node.args
            arguments = [*known.posonlyargs, *known.args, *known.kwonlyargs]
            arguments += filter(None, (known.vararg, known.kwarg))
            bare = [
                a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")
            ]
            assert not bare and node.returns, f"{file}: {node.name} lacks hints: {bare or 'return'}"


def test_public_names():
    assert all(hasattr(tf_panoptic_fpn, name) for name in tf_panoptic_fpn.__all__)
    assert len(set(tf_panoptic_fpn.__all__)) == len(tf_panoptic_fpn.__all__)


def test_import_brings_no_framework():
    program = (
        "import sys, tf_panoptic_fpn; from tf_panoptic_fpn import load_config; "
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
