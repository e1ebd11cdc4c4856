"""Steps of training equal detectron2's, in float64: warm-up, drop, decay, momentum, clipping."""

import numpy as np
import pytest
import tensorflow as tf
from float64 import float64
from keras import ops
from small_model import (
    DETECTRON2_LOSSES,
    XY,
    make_small_model,
    stack_images,
    stack_semantic,
)

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.distribution.replicas import build_strategy
from tf_panoptic_fpn.models import targets
from tf_panoptic_fpn.training.optimizer import build_optimizer
from tf_panoptic_fpn.training.step import make_train_step
from tf_panoptic_fpn.weights.detectron2 import load_detectron2
from tf_panoptic_fpn.weights.detectron2_layout import weight_plan

LOSSES = {**DETECTRON2_LOSSES, "gradient_norm": "grad_norm"}
SOLVER = OptimizerConfig(
    learning_rate=0.0015,
    momentum=0.9,
    weight_decay=1e-4,
    warmup_steps=5,
    warmup_factor=0.1,
    drop_steps=(8,),
    drop_factor=0.1,
    clip_norm=0.0,
)
# More than there are: every labelled anchor and every roi is taken, so no draw decides anything.
SAMPLES = {"rpn_samples": 6144, "rois_per_image": 1024}
TOLERANCE = 1e-9


class StoredMasks:
    """The step's mask targets, in place of `crop_masks`.

    detectron2 reads them from whole bitmaps, we from bitmaps of 112x112 in the frame of their box,
    which differ in some cells (docs/decisions/0005).
    """

    def __init__(self, golden, prefix=""):
        self.golden, self.prefix = golden, prefix
        # A traced step reads them anew each time.
        self.boxes = tf.Variable(np.zeros((0, 4)), shape=[None, 4])
        self.masks = tf.Variable(np.zeros((0, 28, 28), np.float32), shape=[None, 28, 28])

    def set_step(self, step):
        boxes = self.golden[f"{self.prefix}foreground_boxes_{step:02}"][:, XY]
        bits = self.golden[f"{self.prefix}mask_targets_{step:02}"]
        # No box of one image is one of the other.
        assert len(np.unique(boxes, axis=0)) == len(boxes)
        self.boxes.assign(boxes)
        self.masks.assign(np.unpackbits(bits, axis=1).reshape(-1, 28, 28))

    def crop(self, gt_masks, gt_boxes, matched_index, rois, size):
        distances = tf.reduce_sum(abs(rois[:, :, None] - self.boxes), axis=-1)
        return tf.gather(self.masks, tf.argmin(distances, axis=-1))


def load_batch(golden):
    """A golden's images and ground truth as the input pipeline gives them."""
    images, sizes = stack_images(golden)
    boxes, classes = np.zeros((2, 6, 4), np.float32), np.full((2, 6), -1, np.int32)
    for i in range(2):
        count = len(golden.get(f"gt_boxes_{i}", ()))
        if count:
            boxes[i, :count] = golden[f"gt_boxes_{i}"][:, XY]
            classes[i, :count] = golden[f"gt_classes_{i}"]
    masks = np.zeros((2, 6, schema.GT_MASK_SIZE, schema.GT_MASK_SIZE), np.uint8)
    batch = {
        schema.IMAGES: images,
        schema.IMAGE_SIZES: sizes,
        schema.IMAGE_SEEDS: np.arange(2, dtype=np.int32),
        schema.GT_BOXES: boxes,
        schema.GT_CLASSES: classes,
        schema.GT_IS_CROWD: np.zeros((2, 6), bool),
        schema.GT_MASKS: masks,
        schema.SEMANTIC: stack_semantic(golden, sizes),
    }
    return {name: tf.constant(value) for name, value in batch.items()}


def train(goldens_dir, golden, stored, num_steps, clip_norm):
    """Our learning rate and outputs of each step, and the model and optimizer after the last."""
    batches = {
        case: load_batch(dict(np.load(goldens_dir / f"{case}.npz"))) for case in set(golden["case"])
    }
    with float64(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "crop_masks", stored.crop)
        strategy = build_strategy(1)
        with strategy.scope():
            model = make_small_model(**SAMPLES)
            load_detectron2(model, goldens_dir / "weights_small.npz")
            optimizer = build_optimizer(SOLVER)
            optimizer.build(model.trainable_variables)
        train_step = make_train_step(model, optimizer, strategy, clip_norm=clip_norm)
        rates, rows = [], []
        for step, case in enumerate(golden["case"][:num_steps], start=1):
            stored.set_step(step)
            rates.append(float(ops.convert_to_numpy(optimizer.learning_rate)))
            rows.append({k: float(v) for k, v in train_step(batches[case]).items()})
    return rates, rows, model, optimizer


@pytest.fixture(scope="module")
def trained(goldens_dir):
    """The golden, and ours: see `train`."""
    golden = dict(np.load(goldens_dir / "steps_f64.npz"))
    return golden, *train(goldens_dir, golden, StoredMasks(golden), 12, SOLVER.clip_norm)


def test_losses_and_gradient_norms(trained):
    golden, _, rows, _, _ = trained
    for name, key in LOSSES.items():
        received = [row[name] for row in rows]
        np.testing.assert_allclose(received, golden[key], rtol=TOLERANCE, err_msg=name)


def test_learning_rates(trained):
    golden, rates, _, _, _ = trained
    np.testing.assert_allclose(rates, golden["lr"], rtol=1e-14)


def test_weights_and_momentum_after_the_last_step(trained):
    golden, _, _, model, optimizer = trained
    velocities = dict(
        zip([v.path for v in model.trainable_variables], optimizer.velocities, strict=True)
    )
    checked = set()
    for variable, (name, *_), convert in weight_plan(model):
        if variable.path not in velocities:
            continue
        for value, kind in ((variable, "final"), (velocities[variable.path], "momentum")):
            expected = convert(golden[f"{kind}/{name}"])
            error = np.linalg.norm(ops.convert_to_numpy(value) - expected)
            assert error <= TOLERANCE * np.linalg.norm(expected), (kind, name)
        checked.add(name)
    assert checked == set(golden["param_names"])


@pytest.mark.slow
def test_clipped_steps(goldens_dir, monkeypatch):
    """Of each gradient more than 2 thirds, and of their momentum, are clipped away.

    torch scales by 10 / (norm + 1e-6), which alone would move the fourth losses by 9e-9.
    """
    golden = dict(np.load(goldens_dir / "steps_f64.npz"))
    norm = tf.linalg.global_norm
    monkeypatch.setattr(tf.linalg, "global_norm", lambda values: norm(values) + 1e-6)
    stored = StoredMasks(golden, "clip/")
    _, rows, model, _ = train(goldens_dir, golden, stored, 4, float(golden["clip/max_norm"]))
    for name, key in LOSSES.items():
        received = np.array([row[name] for row in rows]) - 1e-6 * (name == "gradient_norm")
        expected = golden[f"clip/{key}"]
        np.testing.assert_allclose(received, expected, rtol=TOLERANCE, err_msg=name)
    assert (golden["clip/grad_norm"] > golden["clip/max_norm"]).all()
    checked = 0
    for variable, (name, *_), convert in weight_plan(model):
        if f"clip/final/{name}" in golden:
            expected = convert(golden[f"clip/final/{name}"])
            error = np.linalg.norm(ops.convert_to_numpy(variable) - expected)
            assert error <= TOLERANCE * np.linalg.norm(expected), name
            checked += 1
    assert checked == 6
