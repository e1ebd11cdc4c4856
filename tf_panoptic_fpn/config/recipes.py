"""The recipes that are shipped, and the file that a name stands for."""

import os
import pathlib

from tf_panoptic_fpn.paths import expand

_PACKAGE = pathlib.Path(__file__).parent.parent


def recipes_folder() -> pathlib.Path:
    """Returns the folder of the recipes: in an installed package, or beside it in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def list_recipes() -> list[str]:
    """Returns the names of the shipped recipes, e.g. "quickstart" and "paper/table3a_coco_r50"."""
    folder = recipes_folder()
    files = sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return [file.relative_to(folder).with_suffix("").as_posix() for file in files]


def find_config(path: str | os.PathLike) -> pathlib.Path:
    """Returns the file that `--config` names: a path, or the name of a shipped recipe."""
    file = pathlib.Path(expand(path))
    shipped = recipes_folder() / f"{path}.yaml"
    return shipped if not file.is_file() and str(path) in list_recipes() else file
