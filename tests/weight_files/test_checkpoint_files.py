"""Files of weights: every format is read, and nothing that a file names is run."""

import collections
import copyreg
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from tf_panoptic_fpn.errors import WeightsError
from tf_panoptic_fpn.weight_files import checkpoint_files, unpickle
from tf_panoptic_fpn.weight_files.checkpoint_files import read_checkpoint
from tf_panoptic_fpn.weight_files.unpickle import LEGACY_MAGIC

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
        "meta": [1, 2.5, None, True, ("a", {"b"}, frozenset()), collections.OrderedDict(c=1)],
        "optimizer": {"state": {0: {"momentum": WEIGHT}}},
    }
    tree["model"]["nothing"] = np.zeros((0, 3))
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(tree, protocol))
    checkpoint = read_checkpoint(path)
    assert checkpoint.author == "someone"
    np.testing.assert_array_equal(checkpoint.arrays["weight"], WEIGHT)
    np.testing.assert_array_equal(checkpoint.arrays["big_endian"], WEIGHT)
    assert checkpoint.arrays["count"] == 7
    assert checkpoint.arrays["nothing"].shape == (0, 3)
    assert "name" not in checkpoint.arrays


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state", "blobs"])
def test_where_the_weights_are(tmp_path, key):
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"epoch": 3, key: {"module.weight": WEIGHT}}, 2))
    np.testing.assert_array_equal(read_checkpoint(path).arrays["weight"], WEIGHT)


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


def refuse(path, data, message):
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"{path.name}: .*{message}"):
        read_checkpoint(path)


def test_a_pickle_cannot_change_what_reads_it(tmp_path):
    """BUILD would set attributes of the functions that a pickle may call."""
    state = b"N}U\x0c__defaults__U\x05utf-8\x85s\x86b"
    data = b"\x80\x02c_codecs\nencode\n" + state + b"."
    refuse(tmp_path / "file.pkl", data, "change how arrays are read")
    assert unpickle.encode_latin1.__defaults__ == ("latin1",)


def test_a_pickle_cannot_take_an_object_from_the_extension_registry(tmp_path):
    """An extension that was loaded once is returned without a question."""
    marker = tmp_path / "marker"
    copyreg.add_extension("os", "system", 240)
    try:
        assert pickle.loads(b"\x80\x02\x82\xf0.") is os.system
        command = f"touch {marker}".encode()
        data = b"\x80\x02\x82\xf0(U" + bytes([len(command)]) + command + b"tR."
        refuse(tmp_path / "file.pkl", data, "asks for extension 240")
    finally:
        copyreg.remove_extension("os", "system", 240)
        copyreg.clear_extension_cache()
    assert not marker.exists()


@pytest.mark.parametrize("opcode", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
def test_a_pickle_cannot_ask_for_a_huge_memo(tmp_path, opcode):
    refuse(tmp_path / "file.pkl", b"\x80\x02}" + opcode + b".", "an object 2147483647")


def test_lists_of_the_same_lists_are_not_unfolded(tmp_path):
    """Twenty levels of ten: 10**20 numbers in some hundred bytes."""
    laughs = [0]
    for _ in range(20):
        laughs = [laughs] * 10
    itself = []
    itself.append(itself)
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": WEIGHT, "a": laughs}, "b": laughs, "c": itself}))
    assert list(read_checkpoint(path).arrays) == ["w"]


def test_zip_bombs(tmp_path, monkeypatch):
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", torch_pickle(one_tensor()))
        archive.writestr("weights/data/0", bytes(1 << 20))
    with pytest.raises(WeightsError, match=r"file\.pth: is compressed"):
        read_checkpoint(path)
    path = tmp_path / "file.npz"
    np.savez_compressed(path, weight=np.zeros(1 << 20))
    assert read_checkpoint(path).arrays["weight"].shape == (1 << 20,)
    monkeypatch.setattr(checkpoint_files, "EXPANDED_LIMIT", 1 << 20)
    with pytest.raises(WeightsError, match=r"file\.npz: says that it holds 0\.0078 GiB"):
        read_checkpoint(path)


def test_a_name_in_a_zip_is_never_a_path(tmp_path):
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    state = one_tensor(key="../../secret")
    path = write_torch_zip(tmp_path / "file.pth", state, {"0": WEIGHT.tobytes()})
    with pytest.raises(WeightsError, match=r"no item named 'weights/data/\.\./\.\./secret'"):
        read_checkpoint(path)


def test_damage_inside_of_a_compressed_file(tmp_path):
    path = tmp_path / "file.npz"
    np.savez_compressed(path, weight=np.random.default_rng(0).normal(size=1000))
    data = bytearray(path.read_bytes())
    data[200:230] = bytes(30)
    refuse(path, bytes(data), "truncated, or not a file of weights")
    data = bytearray(path.read_bytes())
    for start in (b"PK\x03\x04", b"PK\x01\x02"):  # says that it is encrypted
        data[data.index(start) + (6 if start[2] == 3 else 8)] |= 1
    refuse(path, bytes(data), "encrypted")


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


H5 = {
    "a link": lambda h5py, file, other: file.__setitem__(
        "a/kernel", h5py.ExternalLink(str(other), "secret")
    ),
    "raw numbers": lambda h5py, file, other: file.create_dataset(
        "a/kernel", (3, 4), "f4", external=[(str(other), 0, 48)]
    ),
    "a virtual dataset": lambda h5py, file, other: file.create_virtual_dataset(
        "a/kernel", virtual_layout(h5py, other)
    ),
    "a shape without data": lambda h5py, file, other: file.create_dataset(
        "a/kernel", (1 << 20, 1 << 20), "f4", chunks=(1 << 10, 1 << 10)
    ),
    "the same name twice": lambda h5py, file, other: [
        file.create_dataset(f"{i}/vars/0", data=WEIGHT) for i in range(2)
    ],
}


def virtual_layout(h5py, other):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource(str(other), "secret", (3, 4))
    return layout


@pytest.mark.parametrize("kind", H5)
def test_hdf5_that_reads_other_files_or_takes_all_memory(tmp_path, kind):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = WEIGHT
    with h5py.File(tmp_path / "file.h5", "w") as file:
        H5[kind](h5py, file, tmp_path / "other.h5")
    with pytest.raises(WeightsError, match=r"file\.h5: (keeps|holds|says)"):
        read_checkpoint(tmp_path / "file.h5")


def test_hdf5_of_a_whole_model(tmp_path):
    """What its optimizer remembers of a weight has the weight's name."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["model_weights/conv/conv/kernel:0"] = WEIGHT
        file["optimizer_weights/adam/conv/kernel:0"] = -WEIGHT
    np.testing.assert_array_equal(
        read_checkpoint(tmp_path / "file.h5").arrays["conv/kernel"], WEIGHT
    )


SAFETENSORS = {
    "F64": WEIGHT.astype("<f8"),
    "F32": WEIGHT,
    "F16": WEIGHT.astype("<f2"),
    "BF16": (WEIGHT.view("<u4") >> 16).astype("<u2"),  # eighths below 2 fit in 8 bits
    "I64": np.arange(12).reshape(3, 4),
    "U8": np.arange(12, dtype="u1").reshape(3, 4),
    "BOOL": np.eye(3, 4, dtype=bool),
}


def write_safetensors(path, values=WEIGHT, dtype="F32", **changes):
    """By the format's own description: the size of the header, the header, the numbers."""
    data = values.tobytes()
    entry = {"dtype": dtype, "shape": values.shape, "data_offsets": [0, len(data)], **changes}
    header = json.dumps({"module.weight": entry, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.mark.parametrize("dtype", SAFETENSORS)
def test_safetensors(tmp_path, dtype):
    path = tmp_path / "file.safetensors"
    write_safetensors(path, SAFETENSORS[dtype], dtype)
    checkpoint = read_checkpoint(path)
    expected = WEIGHT if dtype == "BF16" else SAFETENSORS[dtype]
    assert checkpoint.arrays["weight"].dtype == expected.dtype
    np.testing.assert_array_equal(checkpoint.arrays["weight"], expected)
    assert checkpoint.metadata == {"format": "pt"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_offsets": [0, 96]}, "not a file of weights"),
        ({"shape": (1 << 40, 1 << 40)}, "not a file of weights"),
        ({"dtype": "F8_E4M3", "shape": (48,)}, "holds module.weight as F8_E4M3, which is not read"),
    ],
)
def test_safetensors_that_lie(tmp_path, changes, message):
    path = tmp_path / "file.safetensors"
    write_safetensors(path, **changes)
    with pytest.raises(WeightsError, match=rf"file\.safetensors: .*{message}"):
        read_checkpoint(path)


WRITERS = {
    "npz": write_npz,
    "safetensors": write_safetensors,
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
    legacy = pickle.dumps(LEGACY_MAGIC, 2) + 2 * pickle.dumps(0, 2)
    view = b"(U\x01vK\x00K\x0ct"
    pid = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x0c" + view + b"tQ."
    refuse(path, legacy + b"\x80\x02" + pid, "views of storages")
