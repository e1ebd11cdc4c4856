"""Files of weights, of any origin, as a flat dict of arrays."""

import dataclasses
import pickle
import struct
import zipfile

import numpy as np

from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.unpickle import load_pickle, load_torch_zip

STATE_KEYS = ("model", "state_dict", "model_state_dict")  # where training frameworks put weights
PICKLE_STARTS = (b"\x80", b"(", b"}", b"]", b"c")  # protocols 2 and later, then 0 and 1
BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, OverflowError, RecursionError),
    *(MemoryError, StopIteration, NotImplementedError),
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        arrays: dict of name -> array.
        author: the file's `__author__`, "" where there is none.
    """

    arrays: dict[str, np.ndarray]
    author: str = ""


def read_checkpoint(source):
    """Reads a file of weights; the contents tell the format, not the name.

    `.npz`, pickles of arrays (`.pkl`), PyTorch files (`.pth`, both formats, read without PyTorch)
    and HDF5 files of Keras (`.h5`). Nothing that the file names is run: a pickle may hold arrays
    and plain containers only.

    Args:
        source: path, or a dict of name -> array.

    Returns:
        A `Checkpoint`.

    Raises:
        WeightsError: naming the file, if it is absent, truncated, of another kind or asks for
            anything but arrays and containers.
    """
    if isinstance(source, dict):
        return Checkpoint(_arrays(source))
    try:
        tree = _read_tree(source)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    except FileNotFoundError:
        raise WeightsError(f"{source}: no such file") from None
    except BROKEN as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{source}: truncated, or not a file of weights: {text}") from None
    author = tree.get("__author__", "") if isinstance(tree, dict) else ""
    state = tree
    for key in STATE_KEYS:
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            state = tree[key]
            break
    arrays = _arrays(state) if isinstance(state, dict) else {}
    if not arrays:
        raise WeightsError(f"{source}: holds no named arrays")
    return Checkpoint(arrays, author if isinstance(author, str) else "")


def _read_tree(path):
    with open(path, "rb") as file:
        start = file.read(8)
        file.seek(0)
        if start[:1] in PICKLE_STARTS:
            return load_pickle(file)
    if start[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            is_torch = any(name.endswith("data.pkl") for name in archive.namelist())
        if is_torch:
            return load_torch_zip(path)
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    if start == b"\x89HDF\r\n\x1a\n":
        return _read_hdf5(path)
    raise WeightsError(
        f"not a file of weights: neither .npz, .pkl, .pth nor .h5 starts with {start!r}"
    )


def _read_hdf5(path):
    """Datasets by their last two names, such as "conv1_conv/kernel"."""
    import h5py  # comes with Keras, which imports it only when it reads HDF5

    arrays = {}

    def visit(name, node):
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub":
            parts = [part.removesuffix(":0") for part in name.split("/")]
            arrays["/".join(parts[-2:])] = node[()]

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return arrays


def _arrays(state):
    """The arrays of a state dict, without the prefix that data-parallel training adds."""
    arrays = {name: np.asarray(v) for name, v in state.items() if hasattr(v, "__array__")}
    return {str(name).removeprefix("module."): value for name, value in arrays.items()}
