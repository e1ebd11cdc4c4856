"""Unpicklers that build arrays and plain containers, and run nothing that a file names."""

import collections.abc
import dataclasses
import math
import pickle
import pickletools
import re
import zipfile

import numpy as np

from tf_panoptic_fpn.weights.report import WeightsError

BFLOAT16 = "bfloat16"
STORAGE_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of a file of PyTorch before 1.6


class PendingDtype:
    """A numpy dtype while its pickle is read."""

    def __init__(self, code, *_):
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?([fiu][1248]|b1)", code):
            raise WeightsError(f"asks for an array of dtype {code!r}; only numbers are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        order = state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class Pending:
    """An array or a tensor that a pickle describes; `to_array` makes it."""


class PendingArray(Pending):
    """A numpy array while its pickle is read."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.value = array_from_bytes(data, dtype, shape, "F" if fortran else "C")

    def to_array(self):
        return self.value


class Storage:
    """A run of numbers that tensors are views of; a legacy file holds its bytes at the end."""

    def __init__(self, dtype, size, data=None):
        self.dtype = dtype
        self.size = size
        self.data = data

    def to_array(self):
        dtype = np.dtype("u2" if self.dtype == BFLOAT16 else self.dtype)
        if len(self.data) < self.size * dtype.itemsize:
            raise WeightsError("is truncated: a tensor is longer than its data")
        values = np.frombuffer(self.data, dtype.newbyteorder("<"), self.size)
        if self.dtype == BFLOAT16:  # the upper half of a float32
            return (values.astype("u4") << 16).view("f4")
        return values


@dataclasses.dataclass
class PendingTensor(Pending):
    """A PyTorch tensor: a strided view of a storage."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple

    def to_array(self):
        values = self.storage.to_array()
        shape, strides = tuple(map(int, self.shape)), tuple(map(int, self.strides))
        count = math.prod(shape)
        last = self.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        inside = min((self.offset, *shape, *strides), default=0) >= 0 and last < len(values)
        if count and (not inside or count > len(values)):
            raise WeightsError("holds a tensor that reaches beyond its data")
        if not count:
            return np.zeros(shape, values.dtype)
        bytes_strides = [stride * values.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], shape, bytes_strides)
        return np.array(view)


@dataclasses.dataclass(frozen=True)
class Constructor:
    """A function that a pickle may call, and do nothing else with."""

    function: collections.abc.Callable

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __setstate__(self, state):
        raise WeightsError("asks to change how arrays are read; refused, nothing was run")


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, text and containers of them; refuses every other global by name.

    Args:
        file: binary file.
        load_storage: function of (key, storage dtype, size) that returns a `Storage`.
    """

    def __init__(self, file, load_storage=None):
        super().__init__(file, encoding="latin1")
        self.load_storage = load_storage

    def find_class(self, module, name):
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        raise WeightsError(
            f"asks for {module}.{name}, which is neither an array nor a plain container; "
            f"refused, nothing was run"
        )

    def persistent_load(self, pid):
        kind, dtype, key, _, size, *view = pid
        if self.load_storage is None or kind != "storage" or dtype not in STORAGE_DTYPES.values():
            raise WeightsError(f"asks for an unknown persistent object, {kind!r}")
        if any(part is not None for part in view):
            raise WeightsError("holds views of storages, as PyTorch before 0.4 wrote them")
        return self.load_storage(key, dtype, size)


def encode_latin1(text, encoding="latin1"):
    """Bytes, as Python 3 writes them for protocol 2."""
    if encoding != "latin1":
        raise WeightsError(f"asks for the encoding {encoding!r}")
    return text.encode("latin1")


def empty_bytes():
    """`bytes()`, as Python 3 writes it for protocol 2: the data of an empty array."""
    return b""


def make_tuple(values=()):
    return tuple(values)


def make_array(*_):
    return PendingArray()


def make_scalar(dtype, data):
    return array_from_bytes(data, dtype, ()).item()


def make_tensor(storage, offset, shape, strides, *_):
    return PendingTensor(storage, offset, shape, strides)


def make_parameter(tensor, *_):
    return tensor


def array_from_bytes(data, dtype, shape, order="C"):
    """Array of a buffer; Python 2 wrote buffers as text."""
    data = data.encode("latin1") if isinstance(data, str) else data
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    values = np.frombuffer(data, dtype.dtype, math.prod(shape))
    return values.reshape(shape, order=order).copy(order="C")


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): Constructor(encode_latin1),
    ("numpy", "dtype"): Constructor(PendingDtype),
    ("numpy", "ndarray"): "ndarray",
    ("torch", "Size"): Constructor(make_tuple),
    ("torch._utils", "_rebuild_tensor"): Constructor(make_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Constructor(make_tensor),
    ("torch._utils", "_rebuild_parameter"): Constructor(make_parameter),
    **{
        (module, name): Constructor(container)
        for module in ("builtins", "__builtin__")
        for name, container in {"set": set, "frozenset": frozenset, "bytes": empty_bytes}.items()
    },
    **{
        (f"{package}.{module}", name): Constructor(function)
        for package in ("numpy.core", "numpy._core")
        for module, name, function in (
            ("multiarray", "_reconstruct", make_array),
            ("multiarray", "scalar", make_scalar),
            ("numeric", "_frombuffer", array_from_bytes),
        )
    },
}


def unpickle(file, load_storage=None):
    """Reads one pickle, and leaves the file after it; see `ArrayUnpickler`."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        # An extension is found in a registry of this process, past `find_class`.
        if opcode.name.startswith("EXT"):
            raise WeightsError(f"asks for extension {argument} of this process; refused")
        # The memo is a list as long as the largest number in it.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > file.tell():
            raise WeightsError(f"numbers an object {argument}, more than it can hold")
    file.seek(start)
    return ArrayUnpickler(file, load_storage).load()


def load_pickle(file):
    """Reads a pickle of arrays, or a legacy PyTorch file: nested containers of `Pending`."""
    value = unpickle(file)
    return _load_legacy_torch(file) if value == LEGACY_MAGIC else value


def _load_legacy_torch(file):
    """Protocol version, system, the object, the keys of its storages, then each storage."""
    storages = {}

    def pending_storage(key, dtype, size):
        return storages.setdefault(key, Storage(dtype, size))

    for _ in range(2):
        unpickle(file)
    value = unpickle(file, pending_storage)
    for key in unpickle(file):
        storage = storages[key]
        itemsize = np.dtype("u2" if storage.dtype == BFLOAT16 else storage.dtype).itemsize
        storage.size = int.from_bytes(file.read(8), "little")
        storage.data = file.read(storage.size * itemsize)
    return value


def load_torch_zip(path):
    """Reads a PyTorch file (1.6 and later): a zip of a pickle and of raw storages."""
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise WeightsError("is compressed, which PyTorch's files are not")
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        names = set(archive.namelist())
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise WeightsError("holds big-endian numbers; only little-endian ones are read")
        storages = {}

        def read_storage(key, dtype, size):
            if key not in storages:
                storages[key] = Storage(dtype, size, archive.read(f"{folder}data/{key}"))
            return storages[key]

        with archive.open(pickled) as file:
            return unpickle(file, read_storage)
