"""Files of weights: every format is read, and nothing that a file names is run."""

import collections
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from tf_panoptic_fpn.weights import WeightsError
from tf_panoptic_fpn.weights.files import read_checkpoint
from tf_panoptic_fpn.weights.unpickle import LEGACY_MAGIC

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "BoolStorage": "b1"}


class Tensor:
    """A tensor for `torch_pickle`: a view of a storage."""

    def __init__(self, key, kind, size, shape, strides, offset=0):
        self.key, self.kind, self.size = key, kind, size
        self.shape, self.strides, self.offset = shape, strides, offset


def torch_pickle(state, legacy=False):
    """The opcodes that `torch.save` writes for a dict of tensors, without PyTorch."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def integer(value):
        return b"J" + struct.pack("<i", value)

    def tuple_of(parts):
        return b"(" + b"".join(parts) + b"t"

    items = b""
    for name, tensor in state.items():
        pid = [text("storage"), f"ctorch\n{tensor.kind}\n".encode(), text(tensor.key), text("cpu")]
        pid = tuple_of([*pid, integer(tensor.size), *([b"N"] if legacy else [])])
        arguments = [
            pid + b"Q",
            integer(tensor.offset),
            tuple_of(map(integer, tensor.shape)),
            tuple_of(map(integer, tensor.strides)),
            b"\x89",  # requires_grad: False
            b"ccollections\nOrderedDict\n)R",  # hooks
        ]
        rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n" + tuple_of(arguments) + b"R"
        items += text(name) + rebuilt + b"s"
    return b"\x80\x02ccollections\nOrderedDict\n)R" + items + b"."


def write_torch_zip(path, state, storages, pickled=None, byteorder=b"little"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickled or torch_pickle(state))
        archive.writestr("weights/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"weights/data/{key}", data)
    return path


def write_torch_legacy(path, state, storages):
    header = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    with open(path, "wb") as file:
        file.write(b"".join(header) + torch_pickle(state, legacy=True))
        file.write(pickle.dumps(list(storages), 2))
        for key, data in storages.items():
            size = next(tensor.size for tensor in state.values() if tensor.key == key)
            file.write(struct.pack("<q", size) + data)
    return path


def one_tensor(kind="FloatStorage", **changes):
    tensor = {"key": "0", "kind": kind, "size": 12, "shape": (3, 4), "strides": (4, 1)}
    return {"weight": Tensor(**{**tensor, **changes})}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickle(tmp_path, protocol, order):
    tree = {
        "model": {
            "weight": np.asarray(WEIGHT, order=order),
            "big_endian": WEIGHT.astype(">f8"),
            "step": np.float32(2.5),
            "count": np.array(7),
            "name": "not an array",
        },
        "__author__": "someone",
        "meta": [1, 2.5, None, True, ("a", {"b"}), collections.OrderedDict(c=1)],
    }
    if protocol < 4:
        tree["meta"][4] = ("a", ["b"])  # sets are a global of builtins before protocol 4
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(tree, protocol))
    checkpoint = read_checkpoint(path)
    assert checkpoint.author == "someone"
    np.testing.assert_array_equal(checkpoint.arrays["weight"], WEIGHT)
    np.testing.assert_array_equal(checkpoint.arrays["big_endian"], WEIGHT)
    assert checkpoint.arrays["count"] == 7
    assert "name" not in checkpoint.arrays


def test_pickle_of_python_2(tmp_path):
    """Its bytes are text to Python 3; latin1 keeps them."""
    data = WEIGHT.tobytes()
    minus_one = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR"
    dtype += b"(K\x03U\x01<NNN" + minus_one + minus_one + b"K\x00tb"
    state = b"(K\x01(K\x03K\x04t" + dtype + b"\x89U" + bytes([len(data)]) + data + b"t"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR" + state + b"b"
    )
    path = tmp_path / "file.pkl"
    path.write_bytes(b"\x80\x02}U\x06weight" + array + b"s.")
    np.testing.assert_array_equal(read_checkpoint(path).arrays["weight"], WEIGHT)


@pytest.mark.parametrize("write", [write_torch_zip, write_torch_legacy])
@pytest.mark.parametrize("kind", STORAGES)
def test_torch_storages(tmp_path, write, kind):
    values = WEIGHT.astype(STORAGES[kind])
    path = write(tmp_path / "file.pth", one_tensor(kind), {"0": values.tobytes()})
    array = read_checkpoint(path).arrays["weight"]
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array, values)


@pytest.mark.parametrize("write", [write_torch_zip, write_torch_legacy])
def test_torch_bfloat16_and_views(tmp_path, write):
    upper_halves = (WEIGHT.view("<u4") >> 16).astype("<u2")  # eighths below 2 fit in 8 bits
    state = {
        **one_tensor("BFloat16Storage"),
        "module.transposed": Tensor("0", "BFloat16Storage", 12, (4, 3), (1, 4)),
        "part": Tensor("0", "BFloat16Storage", 12, (2, 2), (4, 1), offset=5),
        "scalar": Tensor("0", "BFloat16Storage", 12, (), (), offset=3),
        "empty": Tensor("0", "BFloat16Storage", 12, (0, 3), (3, 1)),
    }
    arrays = read_checkpoint(write(tmp_path / "file.pth", state, {"0": upper_halves.tobytes()}))
    arrays = arrays.arrays
    np.testing.assert_array_equal(arrays["weight"], WEIGHT)
    np.testing.assert_array_equal(arrays["transposed"], WEIGHT.T)
    np.testing.assert_array_equal(arrays["part"], WEIGHT[1:, 1:3])
    assert arrays["scalar"] == WEIGHT[0, 3]
    assert arrays["empty"].shape == (0, 3)


OUTSIDE = {
    "longer than its storage": {"shape": (4, 4)},
    "beyond the end": {"offset": 1},
    "before the start": {"offset": -1},
    "backwards": {"strides": (4, -1)},
    "negative shape": {"shape": (-3, -4)},
    "larger than its storage": {"shape": (1 << 20, 1 << 20), "strides": (0, 0)},
    "a storage without data": {"size": 13},
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_tensor_outside_of_its_storage(tmp_path, case):
    path = write_torch_zip(
        tmp_path / "file.pth", one_tensor(**OUTSIDE[case]), {"0": WEIGHT.tobytes()}
    )
    with pytest.raises(WeightsError, match=r"file\.pth: "):
        read_checkpoint(path)


def test_files_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.from_numpy(WEIGHT.copy())
    state = {
        "module.weight": torch.nn.Parameter(base),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "transposed": base.t(),
        "part": base[1:, 1:3],
        "steps": torch.tensor(3),
    }
    for new in (True, False):
        path = tmp_path / f"{new}.pth"
        tree = {"state_dict": state, "meta": {"epoch": 3}}
        torch.save(tree, path, _use_new_zipfile_serialization=new)
        arrays = read_checkpoint(path).arrays
        for name in ("weight", "half", "bfloat16"):
            np.testing.assert_array_equal(arrays[name], WEIGHT)
        np.testing.assert_array_equal(arrays["transposed"], WEIGHT.T)
        np.testing.assert_array_equal(arrays["part"], WEIGHT[1:, 1:3])
        assert arrays["steps"] == 3
        torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=new)
        with pytest.raises(WeightsError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
            read_checkpoint(path)


class RunsCommand:
    """What an attacker writes: unpickling it runs a shell command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class CallsEval(RunsCommand):
    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w')",)


def attack_pickle(path, evil, protocol=2):
    path.write_bytes(pickle.dumps({"model": {"weight": WEIGHT, "other": evil}}, protocol))


def attack_text(path, evil):
    attack_pickle(path, evil, protocol=0)


def attack_torch_zip(path, evil):
    write_torch_zip(path, {}, {}, pickle.dumps({"weight": evil}, 2))


def attack_torch_legacy(path, evil):
    path.write_bytes(pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(evil, 2))


ATTACKS = [attack_pickle, attack_text, attack_torch_zip, attack_torch_legacy]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", [RunsCommand, CallsEval])
def test_malicious_pickle_is_refused_by_name(tmp_path, attack, kind):
    marker, path = tmp_path / "marker", tmp_path / "file.pkl"
    attack(path, kind(marker))
    name = {RunsCommand: r"(posix|nt)\.system", CallsEval: r"(__builtin__|builtins)\.eval"}[kind]
    with pytest.raises(WeightsError, match=rf"file\.pkl: asks for {name}, .*nothing was run"):
        read_checkpoint(path)
    assert not marker.exists()


def test_pickled_npz_is_refused(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "file.npz"
    np.savez(path, weight=np.array([RunsCommand(marker)], dtype=object))
    with pytest.raises(WeightsError, match="allow_pickle=False"):
        read_checkpoint(path)
    assert not marker.exists()


def test_arrays_of_anything_but_numbers_are_refused(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "file.pkl"
    evil = np.array([RunsCommand(marker)], dtype=object)
    for array, dtype in ((np.array(["a"]), "U1"), (evil, "O8")):
        path.write_bytes(pickle.dumps({"weight": array}))
        with pytest.raises(WeightsError, match=f"dtype '{dtype}'; only numbers are read"):
            read_checkpoint(path)
    assert not marker.exists()


def write_h5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("conv1_conv/conv1_conv/kernel:0", data=WEIGHT)
        file.create_dataset("top/names", data=np.array([b"a"]))


def write_npz(path):
    np.savez(path, weight=WEIGHT)


WRITERS = {
    "npz": write_npz,
    "pkl": lambda path: path.write_bytes(pickle.dumps({"weight": WEIGHT}, 2)),
    "pth": lambda path: write_torch_zip(path, one_tensor(), {"0": WEIGHT.tobytes()}),
    "legacy.pth": lambda path: write_torch_legacy(path, one_tensor(), {"0": WEIGHT.tobytes()}),
    "h5": write_h5,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_whole_and_truncated(tmp_path, kind):
    path = tmp_path / f"file.{kind}"
    WRITERS[kind](path)
    name = "conv1_conv/kernel" if kind == "h5" else "weight"
    np.testing.assert_array_equal(read_checkpoint(path).arrays[name], WEIGHT)
    data = path.read_bytes()
    for size in {0, 1, 4, 10, len(data) // 3, len(data) // 2, len(data) - 5, len(data) - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(WeightsError, match=rf"file\.{kind}: ") as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8\xff\xe0 a photograph", "not a file of weights"),
        (b"PK\x03\x04 no archive", "not a file of weights"),
        (b"some text", "not a file of weights"),
        (pickle.dumps([1, 2, 3]), "holds no named arrays"),
        (pickle.dumps({"epoch": 3}), "holds no named arrays"),
    ],
)
def test_foreign_file(tmp_path, data, message):
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(path)


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pkl: no such file"):
        read_checkpoint(tmp_path / "absent.pkl")
    with pytest.raises(WeightsError, match="Is a directory"):
        read_checkpoint(tmp_path)


def test_big_endian_and_unknown_persistent_objects(tmp_path):
    path = tmp_path / "file.pth"
    write_torch_zip(path, one_tensor(), {"0": WEIGHT.tobytes()}, byteorder=b"big")
    with pytest.raises(WeightsError, match="big-endian"):
        read_checkpoint(path)
    write_torch_zip(path, {}, {}, b"\x80\x02(X\x06\x00\x00\x00moduleNNNNtQ.")
    with pytest.raises(WeightsError, match="unknown persistent object, 'module'"):
        read_checkpoint(path)
