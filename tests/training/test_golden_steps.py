"""Twelve steps of training equal detectron2's, in float64: warm-up, drop, decay and momentum."""

import numpy as np
import pytest
import tensorflow as tf
from float64 import float64
from keras import ops
from small_model import XY, make_small_model, stack_images, stack_semantic

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import OptimizerConfig
from tf_panoptic_fpn.models import targets
from tf_panoptic_fpn.training.optimizer import build_optimizer
from tf_panoptic_fpn.training.replicas import build_strategy
from tf_panoptic_fpn.training.step import make_train_step
from tf_panoptic_fpn.weights.detectron2 import load_detectron2
from tf_panoptic_fpn.weights.detectron2_layout import weight_plan

LOSSES = {
    "rpn_class": "loss_rpn_cls",
    "rpn_box": "loss_rpn_loc",
    "class": "loss_cls",
    "box": "loss_box_reg",
    "mask": "loss_mask",
    "semantic": "loss_sem_seg",
    "total": "loss_total",
    "gradient_norm": "grad_norm",
}
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

    def __init__(self, golden):
        self.golden = golden
        self.size = max(golden["num_foreground"].max(), 1)
        self.boxes = tf.Variable(np.zeros((2, self.size, 4)))
        self.masks = tf.Variable(np.zeros((2, self.size, 28, 28), np.float32))

    def set_step(self, step):
        boxes = self.golden[f"foreground_boxes_{step:02}"][:, XY]
        masks = np.unpackbits(self.golden[f"mask_targets_{step:02}"], axis=1).reshape(-1, 28, 28)
        rows, stored = np.zeros(self.boxes.shape), np.zeros(self.masks.shape)
        count = self.golden["num_foreground"][step - 1, 0]
        for i, part in enumerate((slice(None, count), slice(count, None))):
            rows[i, : len(boxes[part])], stored[i, : len(boxes[part])] = boxes[part], masks[part]
        self.boxes.assign(rows)
        self.masks.assign(stored)

    def crop(self, gt_masks, gt_boxes, matched_index, rois, size):
        distances = tf.reduce_sum(abs(rois[:, :, None] - self.boxes[:, None]), axis=-1)
        nearest = tf.argmin(distances, axis=-1)
        return tf.gather(self.masks, nearest, batch_dims=1)


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


@pytest.fixture(scope="module")
def trained(goldens_dir):
    """The golden, and ours: each step's outputs, the model and the optimizer after the last."""
    golden = dict(np.load(goldens_dir / "steps_f64.npz"))
    batches = {
        case: load_batch(dict(np.load(goldens_dir / f"{case}.npz"))) for case in set(golden["case"])
    }
    stored = StoredMasks(golden)
    with float64(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "crop_masks", stored.crop)
        strategy = build_strategy(1)
        with strategy.scope():
            model = make_small_model(**SAMPLES)
            load_detectron2(model, goldens_dir / "weights_small.npz")
            optimizer = build_optimizer(SOLVER)
            optimizer.build(model.trainable_variables)
        train_step = make_train_step(model, optimizer, strategy, clip_norm=SOLVER.clip_norm)
        rates, rows = [], []
        for step, case in enumerate(golden["case"], start=1):
            stored.set_step(step)
            rates.append(float(ops.convert_to_numpy(optimizer.learning_rate)))
            rows.append({k: float(v) for k, v in train_step(batches[case]).items()})
    return golden, rates, rows, model, optimizer


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
