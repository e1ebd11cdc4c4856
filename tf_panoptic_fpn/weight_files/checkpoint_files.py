"""Files of weights, of any origin, as a flat dict of arrays."""

import collections
import dataclasses
import os
import zipfile
from typing import Any

import numpy as np

from tf_panoptic_fpn.errors import WeightsError
from tf_panoptic_fpn.weight_files.trainer_wrapping import (
    STATE_KEYS,
    WRAPPERS,
    find_state,
    state_notes,
    without_wrappers,
)
from tf_panoptic_fpn.weight_files.unpickle import (
    PendingArray,
    PendingTensor,
    check_admitted,
    load_pickle,
    load_torch_zip,
    widen_bfloat16,
)

PICKLE_STARTS = (b"\x80", b"(", b"}", b"]", b"c")  # protocols 2 and later, then 0 and 1
# A compressed file may hold 4 GiB, or 20 times its size: weights do not compress that well.
EXPANDED_LIMIT = 1 << 32
EXPANSION_LIMIT = 20
SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "BOOL": "b1",
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        arrays: dict of name -> array.
        author: the file's `__author__`, "" where there is none.
        notes: sentences for the report: which part of the file was read.
        metadata: dict of text -> text, of a `.safetensors` file.
    """

    arrays: dict[str, np.ndarray]
    author: str = ""
    notes: tuple[str, ...] = ()
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)


def read_checkpoint(source: str | os.PathLike | dict) -> Checkpoint:
    """Reads a file of weights; the contents tell the format, not the name.

    `.npz`, `.safetensors`, pickles of arrays (`.pkl`), PyTorch files (`.pth`, both formats, read
    without PyTorch) and HDF5 files of Keras (`.h5`). Nothing that the file names is run: the
    weights may hold arrays and plain containers only, and what a trainer saved beside them is left
    alone.

    Args:
        source: path, or a dict of name -> array.

    Returns:
        A `Checkpoint`.

    Raises:
        WeightsError: naming the file, if it is absent, truncated, of another kind or asks for
            anything but arrays and containers among the weights.
    """
    if isinstance(source, dict):
        arrays, notes = _arrays(source)
        return Checkpoint(arrays, notes=notes)
    try:
        return _read_file(source)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    except FileNotFoundError:
        raise WeightsError(f"{source}: no such file") from None
    except Exception as error:  # a damaged file may raise anything in the libraries that read it
        text = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{source}: truncated, or not a file of weights: {text}") from None


def _read_file(path: str | os.PathLike) -> Checkpoint:
    if is_safetensors_file(path):
        return _read_safetensors(path)
    tree = _read_tree(path)
    if not isinstance(tree, dict):
        check_admitted([tree])
        raise WeightsError("holds no named arrays")
    state, keys = find_state(tree, _is_weight)
    if state is tree:  # what should be the weights may be what is refused
        check_admitted(tree[key] for key in STATE_KEYS if key in tree)
    arrays, wrapping = _arrays(state)
    if not arrays:
        raise WeightsError("holds no named arrays")
    author = tree.get("__author__")
    notes = (*state_notes(tree, keys), *wrapping)
    return Checkpoint(arrays, author if isinstance(author, str) else "", notes)


def _is_weight(value: object) -> bool:
    """Whether a value is an array of one axis or more; a single number may be a counter."""
    if isinstance(value, PendingTensor):
        return len(value.shape) > 0
    value = value.value if isinstance(value, PendingArray) else value
    return isinstance(value, np.ndarray) and value.ndim > 0


def _read_tree(path: str | os.PathLike) -> Any:
    with open(path, "rb") as file:
        start = file.read(8)
        file.seek(0)
        if start[:1] in PICKLE_STARTS:
            return load_pickle(file)
    if start[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            is_torch = any(name.endswith("data.pkl") for name in archive.namelist())
            is_keras = "model.weights.h5" in archive.namelist()
            size = sum(info.file_size for info in archive.infolist())
        if is_keras:
            raise WeightsError("is a whole Keras model, of which load_tf_panoptic_fpn reads ours")
        if is_torch:
            return load_torch_zip(path)
        _check_size(path, size)
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    if start == b"\x89HDF\r\n\x1a\n":
        return _read_hdf5(path)
    raise WeightsError(
        f"not a file of weights: neither .npz, .safetensors, .pkl, .pth nor .h5 starts with "
        f"{start!r}"
    )


def _check_size(path: str | os.PathLike, size: int) -> None:
    """Raises `WeightsError` before a small file takes all memory."""
    if size > max(EXPANDED_LIMIT, EXPANSION_LIMIT * os.path.getsize(path)):
        raise WeightsError(f"says that it holds {size / 2**30:.2g} GiB, which no weights would")


def _read_hdf5(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Datasets by their last two names, such as "conv1_conv/kernel"."""
    import h5py  # comes with Keras, which imports it only when it reads HDF5

    arrays, size = {}, 0

    def visit(
        name: str, node: Any
    ) -> None:  # is not called for links, which may lead to other files
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


def is_safetensors_file(path: str | os.PathLike) -> bool:
    """Whether a file begins like a `.safetensors` file: the size of its header, and JSON."""
    try:
        with open(path, "rb") as file:
            header_size, brace = int.from_bytes(file.read(8), "little"), file.read(1)
        return brace == b"{" and header_size <= os.path.getsize(path) - 8
    except OSError:
        return False


def _read_safetensors(path: str | os.PathLike) -> Checkpoint:
    import safetensors  # its functions for numpy know no bfloat16

    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    with open(path, "rb") as file:
        views = safetensors.deserialize(file.read())
    state = {}
    for name, view in views:
        if view["dtype"] not in SAFETENSORS_DTYPES:
            raise WeightsError(f"holds {name} as {view['dtype']}, which is not read")
        values = np.frombuffer(view["data"], SAFETENSORS_DTYPES[view["dtype"]])
        values = widen_bfloat16(values) if view["dtype"] == "BF16" else values
        state[name] = values.reshape(view["shape"])
    arrays, notes = _arrays(state)
    if not arrays:
        raise WeightsError("holds no named arrays")
    return Checkpoint(arrays, notes=notes, metadata=metadata)


def _arrays(state: dict) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays of a state dict without the parts that `WRAPPERS` are, and notes about those."""
    check_admitted(state.values())
    arrays: dict[str, np.ndarray] = {}
    wrapped: collections.Counter[str] = collections.Counter()
    for key, value in state.items():
        value = value.to_array() if isinstance(value, (PendingArray, PendingTensor)) else value
        if hasattr(value, "__array__"):
            name = without_wrappers(str(key))
            if name in arrays:
                raise WeightsError(f"holds {name} twice, once of them as {key}")
            arrays[name] = np.asarray(value)
            wrapped.update(WRAPPERS & set(str(key).split(".")))
    notes = (f"`{part}.` is left out of {n} name(s)." for part, n in sorted(wrapped.items()))
    return arrays, tuple(notes)
