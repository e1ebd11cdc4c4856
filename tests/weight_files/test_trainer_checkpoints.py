"""Checkpoints as trainers write them: loop state beside the weights, parts before their names."""

import argparse
import collections
import copy
import datetime
import enum
import pathlib
import random

import numpy as np
import pytest

from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint, read_checkpoint
from tf_panoptic_fpn.weight_files.unpickle import MOST_STAND_INS, StandIn, problem_of, unpickle
from tf_panoptic_fpn.weights import WeightsError
from tf_panoptic_fpn.weights.mmdet import mmdet_source
from tf_panoptic_fpn.weights.torchvision import torchvision_source

torch = pytest.importorskip("torch")

STEM = "backbone.conv1.weight"  # in mmdet's names
NAMES = {STEM, *(f"backbone.bn1.{key}" for key in ("weight", "bias", "running_mean"))}
NAMES |= {"backbone.bn1.running_var", "backbone.bn1.num_batches_tracked"}


class HistoryBuffer:
    """As mmengine's: arrays of any kind and a bound method."""

    def __init__(self):
        self.log = np.arange(3.0)
        self.when = np.array(["2026-01-01"], "M8[D]")
        self.anything = np.array([object()], dtype=object)
        self.statistics = {"mean": self.mean}

    def mean(self):
        return self.log.mean()


class History(collections.OrderedDict):
    """A dict of a class of its own."""


class Phase(enum.Enum):
    TRAIN = 1


@pytest.fixture(scope="module")
def network():
    """A stem that was trained for a step, and its optimizer."""
    layers = {"conv1": torch.nn.Conv2d(3, 4, 7, bias=False), "bn1": torch.nn.BatchNorm2d(4)}
    backbone = torch.nn.Sequential(collections.OrderedDict(layers))
    network = torch.nn.Sequential(collections.OrderedDict(backbone=backbone))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    return network, optimizer


@pytest.fixture
def state(network):
    return network[0].state_dict()


def loop_state(network, optimizer):
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    return {
        "message_hub": {"log_scalars": History(loss=HistoryBuffer()), "lr": np.array([0.1, 0.2])},
        "args": argparse.Namespace(lr=0.1, output_dir=pathlib.Path("out")),
        "optimizer": optimizer.state_dict(),
        "the optimizer itself": optimizer,
        "by tensor": {torch.ones(1): 1},
        "schedule": schedule.state_dict(),  # with a Counter
        "time": datetime.datetime(2026, 1, 2),
        "default": collections.defaultdict(list, {"a": [1]}),
        "phase": {Phase.TRAIN: Phase.TRAIN},
        "queue": collections.deque([1, 2], maxlen=3),
        "scalar": np.float32(1.5),
        "date": np.datetime64("2026-01-01"),
        "text": np.array(["a"]),
        "record": np.zeros(2, [("a", "f4")]),
        "types": [torch.float32, np.float64, np.dtype("f4"), torch.device("cpu"), range(3)],
        "function": np.mean,
        "random": [random.getstate(), torch.get_rng_state(), np.random.default_rng(0)],
        "complex": torch.zeros(2, dtype=torch.complex64),
        "sparse": torch.eye(2).to_sparse(),
        "the network": network,
    }


@pytest.mark.parametrize("new", [True, False])
def test_loop_state_is_left_alone(tmp_path, network, state, new):
    beside = loop_state(*network)
    if not new:
        del beside["complex"], beside["sparse"]  # the older format cannot skip them
    path = tmp_path / "last.pth"
    torch.save({"state_dict": state, **beside}, path, _use_new_zipfile_serialization=new)
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.arrays) == NAMES
    np.testing.assert_array_equal(checkpoint.arrays[STEM], state[STEM].numpy())
    assert checkpoint.notes[0] == "The weights are those of 'state_dict'."
    assert checkpoint.notes[1].startswith("Beside them, and left alone: args, ")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda state, network: {"state_dict": {**state, "x": HistoryBuffer()}}, "HistoryBuffer"),
        (lambda state, network: {"state_dict": {**state, "x": [{"y": Phase}]}}, "Phase"),
        (lambda state, network: {"state_dict": History(state)}, "History"),
        (lambda state, network: {**state, "args": argparse.Namespace()}, "argparse.Namespace"),
        (lambda state, network: {"args": argparse.Namespace(), "model": network}, "Sequential"),
        (lambda state, network: {"model": {"x": network}, "a": HistoryBuffer()}, "Sequential"),
        (lambda state, network: network, "Sequential"),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_a_foreign_class_among_the_weights_is_refused_by_name(
    tmp_path, network, state, make, name, new
):
    path = tmp_path / "last.pth"
    torch.save(make(state, network[0]), path, _use_new_zipfile_serialization=new)
    with pytest.raises(WeightsError, match=rf"last\.pth: asks for [\w.]*{name}, .*nothing was run"):
        read_checkpoint(path)


def averaged(state):
    return {name: value * 2 for name, value in state.items()}


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


WHERE = {
    "Lightning": (lambda s: {"state_dict": prefixed(s, "model."), "loops": {}}, 1),
    "torchvision": (lambda s: {"model": s, "model_ema": prefixed(averaged(s), "module.")}, 1),
    "timm": (lambda s: {"state_dict": s, "state_dict_ema": averaged(s)}, 1),
    "mmengine": (
        lambda s: {"state_dict": s, "ema_state_dict": {"steps": torch.tensor(3)} | averaged(s)},
        1,
    ),
    "DeepSpeed": (lambda s: {"module": s, "optimizer": {"state": {0: {"m": torch.ones(3)}}}}, 1),
    "Composer": (lambda s: {"state": {"model": prefixed(s, "module.")}, "rng": []}, 1),
    "parallel and compiled": (lambda s: {"model": prefixed(s, "module._orig_mod.model.")}, 1),
    "compiled and parallel": (lambda s: prefixed(s, "_orig_mod.module."), 1),
    "a name of its own": (lambda s: {"detector": prefixed(s, "net.detector."), "epoch": 3}, 1),
    "a counter beside the dict": (lambda s: {"net": s, "step": torch.tensor(3)}, 1),
    "an average alone": (
        lambda s: {"model_ema": {"n_averaged": torch.tensor(1)} | prefixed(averaged(s), "module.")},
        2,
    ),
    "an average of DETR": (lambda s: {"ema": {"module": averaged(s), "updates": 3}}, 2),
    "an average under its name": (lambda s: prefixed(averaged(s), "ema_model."), 2),
    "averages of mmcv": (
        lambda s: s | {f"ema_{n.replace('.', '_')}": v for n, v in averaged(s).items()},
        1,
    ),
    "averages of Lightning": (
        lambda s: {
            "state_dict": prefixed(s, "model.") | prefixed(averaged(s), "ema_model.module.")
        },
        1,
    ),
}


@pytest.mark.parametrize("case", WHERE)
def test_where_the_weights_are_and_what_stands_before_their_names(tmp_path, state, case):
    make, factor = WHERE[case]
    torch.save(make(copy.copy(dict(state))), tmp_path / "last.pth")
    source = mmdet_source(read_checkpoint(tmp_path / "last.pth"), style="caffe")
    assert len(source.arrays) == len(NAMES) - 1
    stem = source.arrays["backbone.bottom_up.stem.conv1.weight"]
    np.testing.assert_array_equal(stem, factor * state[STEM].numpy())


def test_averages_are_said(tmp_path, state):
    path = tmp_path / "last.pth"
    torch.save({"model": state, "model_ema": averaged(state), "epoch": 3}, path)
    assert read_checkpoint(path).notes == (
        "The weights are those of 'model'.",
        "'model_ema' holds a moving average of the weights, which is not read.",
        "Beside them, and left alone: epoch.",
    )
    torch.save({"ema": {"module": state}}, path)
    assert read_checkpoint(path).notes == (
        "The weights are those of 'ema.module'.",
        "They are a moving average; the file holds no others.",
    )


def test_a_dict_of_another_name_is_told_from_averages_and_optimizers(tmp_path, state):
    path = tmp_path / "last.pth"
    optimizer = {"backbone.conv1.weight": {"exp_avg": torch.ones(3)}}
    tree = {"ema": averaged(state), "optimizer": optimizer, "semantic_fpn": state}
    torch.save(tree, path)
    np.testing.assert_array_equal(read_checkpoint(path).arrays[STEM], state[STEM].numpy())


def test_what_was_left_out_is_said(state):
    arrays = prefixed({n: v.numpy() for n, v in state.items()}, "module.net.")
    arrays |= {"module.net.criterion.weight": np.ones(3), "n_averaged": np.array(3)}
    arrays |= {"ema.net.backbone.conv1.weight": np.ones((4, 3, 7, 7))}
    checkpoint = read_checkpoint(arrays)
    assert checkpoint.notes == ("`module.` is left out of 7 name(s).",)
    source = mmdet_source(checkpoint)
    assert source.notes[1:] == [
        "`net.` is left out of 7 name(s).",
        "1 name(s) are a moving average's, which is not read.",
    ]
    assert source.origins["criterion.weight"] == ("criterion.weight",)
    assert {"n_averaged", "ema.net.backbone.conv1.weight"} < set(source.unused)


def test_a_name_of_both_kinds_is_refused(state):
    with pytest.raises(WeightsError, match=r"holds a\.w twice, once of them as module\.a\.w"):
        read_checkpoint({"a.w": np.ones(3), "module.a.w": np.ones(3)})


def test_two_sets_of_weights_are_ambiguous(tmp_path, state):
    torch.save({"generator": state, "critic": state}, tmp_path / "gan.pth")
    with pytest.raises(WeightsError, match="holds weights under 'generator', 'critic'; save "):
        read_checkpoint(tmp_path / "gan.pth")


def test_names_of_another_source_lose_no_prefix():
    """Their ends are those of a ResNet in torchvision, each after parts of its own."""
    names = [f"backbone.bottom_up.res{i}.0.conv1.weight" for i in range(2, 6)]
    source = torchvision_source(Checkpoint({name: np.ones((1, 1, 1, 1)) for name in names}))
    assert list(source.arrays) == names


def test_stand_ins_do_nothing(tmp_path):
    """Every opcode that acts on an object, on a class that is not admitted and on its instance."""
    made = b"cos\nsystem\n(U\x04exittR"
    acts = b"}U\x01aU\x01bsb(K\x01K\x02eK\x01aU\x01aK\x01s(U\x01bK\x02u"
    (tmp_path / "made.pkl").write_bytes(b"\x80\x02" + made + acts + b".")
    (tmp_path / "set.pkl").write_bytes(b"\x80\x04" + made + b"(K\x01\x90.")
    (tmp_path / "class.pkl").write_bytes(b"\x80\x02cos\nsystem\n}U\x01aU\x01bsb.")
    for name in ("made", "set", "class"):
        with open(tmp_path / f"{name}.pkl", "rb") as file:
            value = unpickle(file)
        assert problem_of(value).startswith("asks for os.system, ")
        assert not vars(value) if name != "class" else not hasattr(value, "a")
    assert not vars(StandIn()) and StandIn.problem == ""


def test_a_pickle_cannot_make_classes_without_end(tmp_path):
    path = tmp_path / "many.pkl"
    names = b"".join(b"cos\nx%d\n0" % i for i in range(MOST_STAND_INS + 1))
    path.write_bytes(b"\x80\x02" + names + b"}.")
    with pytest.raises(WeightsError, match=rf"asks for os\.x{MOST_STAND_INS}, "):
        read_checkpoint(path)
