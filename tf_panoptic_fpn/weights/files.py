"""Files of weights, of any origin, as a flat dict of arrays."""

import dataclasses
import os
import zipfile

import numpy as np

from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.unpickle import Pending, load_pickle, load_torch_zip

# Where training frameworks put weights; pycls has `model_state`, Caffe2's detectors `blobs`.
STATE_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "blobs")
PICKLE_STARTS = (b"\x80", b"(", b"}", b"]", b"c")  # protocols 2 and later, then 0 and 1
# A compressed file may hold 4 GiB, or 20 times its size: weights do not compress that well.
EXPANDED_LIMIT = 1 << 32
EXPANSION_LIMIT = 20


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
        tree = tree if isinstance(tree, dict) else {}
        states = (tree.get(key) for key in STATE_KEYS)
        arrays = _arrays(next((state for state in states if isinstance(state, dict)), tree))
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    except FileNotFoundError:
        raise WeightsError(f"{source}: no such file") from None
    except Exception as error:  # a damaged file may raise anything in the libraries that read it
        text = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{source}: truncated, or not a file of weights: {text}") from None
    if not arrays:
        raise WeightsError(f"{source}: holds no named arrays")
    author = tree.get("__author__")
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
            size = sum(info.file_size for info in archive.infolist())
        if is_torch:
            return load_torch_zip(path)
        _check_size(path, size)
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    if start == b"\x89HDF\r\n\x1a\n":
        return _read_hdf5(path)
    raise WeightsError(
        f"not a file of weights: neither .npz, .pkl, .pth nor .h5 starts with {start!r}"
    )


def _check_size(path, size):
    """Raises `WeightsError` before a small file takes all memory."""
    if size > max(EXPANDED_LIMIT, EXPANSION_LIMIT * os.path.getsize(path)):
        raise WeightsError(f"says that it holds {size / 2**30:.2g} GiB, which no weights would")


def _read_hdf5(path):
    """Datasets by their last two names, such as "conv1_conv/kernel"."""
    import h5py  # comes with Keras, which imports it only when it reads HDF5

    arrays, size = {}, 0

    def visit(name, node):  # is not called for links, which may lead to other files
        nonlocal size
        if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "fiub":
            return
        if name.startswith("optimizer_weights/"):
            return
        if node.external or node.is_virtual:
            raise WeightsError(f"keeps {name} in another file")
        size += node.nbytes
        _check_size(path, size)
        key = "/".join(part.removesuffix(":0") for part in name.split("/")[-2:])
        if key in arrays:
            raise WeightsError(f"holds {key} twice; it is not one of Keras Applications")
        arrays[key] = node[()]

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return arrays


def _arrays(state):
    """The arrays of a state dict, without the prefix that data-parallel training adds."""
    arrays = {}
    for name, value in state.items():
        value = value.to_array() if isinstance(value, Pending) else value
        if hasattr(value, "__array__"):
            arrays[str(name).removeprefix("module.")] = np.asarray(value)
    return arrays
