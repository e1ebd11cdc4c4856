"""Unpicklers that build arrays and plain containers, and run nothing that a file names.

What else a file asks for becomes a stand-in that does nothing: who reads the weights refuses it
there, and leaves it alone beside them.
"""

import collections
import dataclasses
import math
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable
from typing import IO, Any, Literal, Self

import numpy as np

from tf_panoptic_fpn.errors import WeightsError

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
MOST_STAND_INS = 1000  # each is a class
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of a file of PyTorch before 1.6


def do_nothing(*_: object) -> None:
    """What every method of a `StandIn` does."""


class StandIn:
    """Takes the place of a class or a function that is not admitted, and of what it would make.

    Attributes:
        problem: why it is refused among weights.
    """

    problem = ""

    def __new__(cls, *_: object, **__: object) -> Self:
        return super().__new__(cls)

    # All that a pickle may do to an object; static, as it may do the same to the class.
    __init__ = __setstate__ = __setitem__ = staticmethod(do_nothing)
    append = extend = add = staticmethod(do_nothing)


def refused(problem: str) -> StandIn:
    """A `StandIn` for a value that cannot be read."""
    value = StandIn()
    value.problem = problem
    return value


def problem_of(value: Any) -> str:
    """Why a value is refused among weights; "" if it is not."""
    is_class = isinstance(value, type) and issubclass(value, StandIn)
    return value.problem if is_class or isinstance(value, StandIn) else ""


class PendingDtype:
    """A numpy dtype while its pickle is read; `dtype` is None for anything but numbers."""

    def __init__(self, code: Any, *_: object) -> None:
        is_number = isinstance(code, str) and re.fullmatch(r"[<>|=]?([fiu][1248]|b1)", code)
        self.dtype = np.dtype(code) if is_number else None
        self.problem = f"asks for an array of dtype {code!r}; only numbers are read"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if self.dtype is not None and order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class Pending:
    """An array or a tensor that a pickle describes; `to_array` makes it."""


class PendingArray(Pending):
    """A numpy array while its pickle is read."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = array_from_bytes(data, dtype, shape, "F" if fortran else "C")

    def to_array(self) -> np.ndarray:
        if problem := problem_of(self.value):
            raise WeightsError(problem)
        return self.value


def widen_bfloat16(halves: np.ndarray) -> np.ndarray:
    """Numbers of 16 bits, each the upper half of a float32, as float32."""
    return (halves.astype("u4") << 16).view("f4")


class Storage:
    """A run of numbers that tensors are views of; a legacy file holds its bytes at the end."""

    def __init__(self, dtype: str, size: int, data: bytes = b"") -> None:
        self.dtype = dtype
        self.size = size
        self.data = data

    def to_array(self) -> np.ndarray:
        dtype = np.dtype("u2" if self.dtype == BFLOAT16 else self.dtype)
        if len(self.data) < self.size * dtype.itemsize:
            raise WeightsError("is truncated: a tensor is longer than its data")
        values = np.frombuffer(self.data, dtype.newbyteorder("<"), self.size)
        return widen_bfloat16(values) if self.dtype == BFLOAT16 else values


@dataclasses.dataclass(eq=False)  # an optimizer has tensors as keys
class PendingTensor(Pending):
    """A PyTorch tensor: a strided view of a storage."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple

    def to_array(self) -> np.ndarray:
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

    function: Callable

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise WeightsError("asks to change how arrays are read; refused, nothing was run")


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, text and containers of them; a `StandIn` for every other global.

    Args:
        file: binary file.
        load_storage: function of (key, storage dtype, size) that returns a `Storage`.
    """

    def __init__(self, file: IO[bytes], load_storage: Callable | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self.load_storage = load_storage
        self.stand_ins: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        full_name = f"{module}.{name}"
        problem = (
            f"asks for {full_name}, which is neither an array nor a plain container; "
            f"refused, nothing was run"
        )
        if len(self.stand_ins) >= MOST_STAND_INS:
            raise WeightsError(problem)
        if full_name not in self.stand_ins:
            self.stand_ins[full_name] = type("StandIn", (StandIn,), {"problem": problem})
        return self.stand_ins[full_name]

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, *rest = pid
        if problem_of(dtype):  # a storage of another kind, or the class of a module
            return dtype
        if self.load_storage is None or kind != "storage" or dtype not in STORAGE_DTYPES.values():
            raise WeightsError(f"asks for an unknown persistent object, {kind!r}")
        key, _, size, *view = rest
        if any(part is not None for part in view):
            raise WeightsError("holds views of storages, as PyTorch before 0.4 wrote them")
        return self.load_storage(key, dtype, size)


def encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as Python 3 writes them for protocol 2."""
    if encoding != "latin1":
        raise WeightsError(f"asks for the encoding {encoding!r}")
    return text.encode("latin1")


def empty_bytes() -> bytes:
    """`bytes()`, as Python 3 writes it for protocol 2: the data of an empty array."""
    return b""


def make_tuple(values: Iterable = ()) -> tuple:
    return tuple(values)


def make_array(*_: object) -> PendingArray:
    return PendingArray()


def make_scalar(dtype: Any, data: Any = b"") -> Any:
    value = array_from_bytes(data, dtype, ())
    return value if problem_of(value) else value.item()


def make_tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *_: object) -> Any:
    return storage if problem_of(storage) else PendingTensor(storage, offset, shape, strides)


def make_parameter(tensor: Any, *_: object) -> Any:
    return tensor


def array_from_bytes(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"] = "C") -> Any:
    """Array of a buffer, which Python 2 wrote as text; a `StandIn` for anything but numbers."""
    if problem := problem_of(dtype):
        return refused(problem)
    if dtype.dtype is None:
        return refused(dtype.problem)
    data = data.encode("latin1") if isinstance(data, str) else data
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    values = np.frombuffer(data, dtype.dtype, math.prod(shape))
    return values.reshape(shape, order=order).copy(order="C")


BUILTINS: dict[str, Callable] = {"set": set, "frozenset": frozenset, "bytes": empty_bytes}
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
        for name, container in BUILTINS.items()
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


def unpickle(file: IO[bytes], load_storage: Callable | None = None) -> Any:
    """Reads one pickle, and leaves the file after it; see `ArrayUnpickler`."""
    start = file.tell()
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        # An extension is found in a registry of this process, past `find_class`.
        if opcode.name.startswith("EXT"):
            raise WeightsError(f"asks for extension {argument} of this process; refused")
        # The memo is a list as long as the largest number in it.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > file.tell():
            raise WeightsError(f"numbers an object {argument}, more than it can hold")
    file.seek(start)
    return ArrayUnpickler(file, load_storage).load()


def check_admitted(values: Iterable) -> None:
    """Raises `WeightsError` if a `StandIn` is among values or in the containers below them."""
    seen, left = set(), list(values)
    while left:
        value = left.pop()
        if problem := problem_of(value):
            raise WeightsError(problem)
        if isinstance(value, dict | list | tuple | set | frozenset) and id(value) not in seen:
            seen.add(id(value))
            left.extend(value)
            left.extend(value.values() if isinstance(value, dict) else ())


def load_pickle(file: IO[bytes]) -> Any:
    """Reads a pickle of arrays, or a legacy PyTorch file.

    Args:
        file: binary file.

    Returns:
        Nested containers of `Pending`, numbers and text, with a `StandIn` for all else.
    """
    value = unpickle(file)
    return _load_legacy_torch(file) if value == LEGACY_MAGIC else value


def _load_legacy_torch(file: IO[bytes]) -> Any:
    """Protocol version, system, the object, the keys of its storages, then each storage."""
    storages: dict[str, Storage] = {}

    def pending_storage(key: str, dtype: str, size: int) -> Storage:
        return storages.setdefault(key, Storage(dtype, size))

    for _ in range(2):
        check_admitted([unpickle(file)])
    value = unpickle(file, pending_storage)
    for key in unpickle(file):
        if key not in storages:
            raise WeightsError("holds a storage of a kind that is not read")
        storage = storages[key]
        itemsize = np.dtype("u2" if storage.dtype == BFLOAT16 else storage.dtype).itemsize
        storage.size = int.from_bytes(file.read(8), "little")
        storage.data = file.read(storage.size * itemsize)
    return value


def load_torch_zip(path: str | os.PathLike) -> Any:
    """Reads a PyTorch file (1.6 and later): a zip of a pickle and of raw storages."""
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise WeightsError("is compressed, which PyTorch's files are not")
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        names = set(archive.namelist())
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise WeightsError("holds big-endian numbers; only little-endian ones are read")
        storages: dict[str, Storage] = {}

        def read_storage(key: str, dtype: str, size: int) -> Storage:
            if key not in storages:
                storages[key] = Storage(dtype, size, archive.read(f"{folder}data/{key}"))
            return storages[key]

        with archive.open(pickled) as file:
            return unpickle(file, read_storage)
