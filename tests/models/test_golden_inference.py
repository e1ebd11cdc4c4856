"""Inference equals detectron2's, tensor by tensor."""

import json

import numpy as np
import pytest
from keras import ops
from small_model import XY, stack_images

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.ops.boxes import box_areas, clip_boxes, scale_boxes
from tf_panoptic_fpn.ops.masks import paste_masks
from tf_panoptic_fpn.ops.resize import resize_bilinear, upsample_bilinear
from tf_panoptic_fpn.ops.roi_align import roi_align, roi_levels

CASES = ("infer_a", "infer_b")


@pytest.fixture(scope="module", params=CASES)
def case(request, goldens_dir, noise, small_model):
    golden = dict(np.load(goldens_dir / f"{request.param}.npz"))
    images, sizes = stack_images(golden)
    return Case(golden, noise[request.param], small_model, images, sizes)


class Case:
    """A golden with the outputs of our model on its images."""

    def __init__(self, golden, noise, model, images, sizes):
        self.golden, self.noise, self.model = golden, noise, model
        self.images, self.sizes = images, sizes
        x, image_sizes = model.normalize(images, sizes)
        self.features = model.fpn(model.backbone(x))
        self.backbone = model.backbone(x)
        self.normalized = x
        self.rpn = model.rpn_head(self.features)
        self.proposals = model.proposals(self.features, *self.rpn, image_sizes)
        self.outputs = {
            name: ops.convert_to_numpy(value)
            for name, value in model({"images": images, "image_sizes": sizes}).items()
        }

    def check(self, key, value):
        """Asserts agreement within four times the reference's own rounding noise."""
        tolerance = 4 * self.noise[key.removesuffix("_sub2")]["max_abs_diff"]
        value = ops.convert_to_numpy(value)
        np.testing.assert_allclose(value, self.golden[key], rtol=0, atol=tolerance, err_msg=key)


def test_float64(goldens_dir, small_model_64):
    """Every tensor up to the box head's, without the rounding that `check` allows for."""
    inputs = dict(np.load(goldens_dir / "infer_a.npz"))
    golden = dict(np.load(goldens_dir / "infer_a_f64.npz"))
    dense = small_model_64.dense_outputs(*stack_images(inputs), training=False)
    received = {f"p{i}": nchw(dense["features"][f"P{i}"]) for i in range(2, 7)}
    received["sem_stride4"] = nchw(dense["semantic_logits"])
    for i, logits, deltas in zip(
        range(2, 7), dense["rpn_logits"], dense["rpn_deltas"], strict=True
    ):
        height, width = golden[f"p{i}"].shape[2:]
        received[f"rpn_logits_p{i}"] = nchw(ops.reshape(logits, (1, height, width, 3)))
        deltas = ops.reshape(deltas, (1, height, width, 3, 4))
        deltas = ops.reshape(ops.take(deltas, XY, axis=-1), (1, height, width, 12))
        received[f"rpn_deltas_p{i}"] = nchw(deltas)
    features = {name: dense["features"][name] for name in ("P2", "P3", "P4", "P5")}
    rois = inputs["proposal_boxes_0"][None][..., XY].astype("float64")
    logits, deltas = small_model_64.box_head(features, rois)
    received["cls_logits"] = logits[0]
    received["box_deltas"] = ops.reshape(ops.take(deltas[0], XY, axis=-1), (len(rois[0]), -1))
    assert set(received) == set(golden)
    for name, value in received.items():
        error = np.linalg.norm(ops.convert_to_numpy(value) - golden[name])
        assert error <= 1e-9 * np.linalg.norm(golden[name]), name  # measured: 2.6e-14


def nchw(x):
    return ops.transpose(x, (0, 3, 1, 2))


def test_dense_features(case):
    np.testing.assert_array_equal(nchw(case.normalized)[:, ::-1], case.golden["padded"])
    for key in ("res2", "res3", "res4", "res5"):
        if key in case.golden:
            case.check(key, nchw(case.backbone[f"C{key[-1]}"]))
    for level in range(2, 7):
        case.check(f"p{level}", nchw(case.features[f"P{level}"]))
    case.check("sem_stride4", nchw(case.model.semantic_head(case.features)))


def test_rpn(case):
    for level, logits, deltas in zip(range(2, 7), *case.rpn, strict=True):
        golden = case.golden[f"rpn_logits_p{level}"]
        batch, anchors, height, width = golden.shape
        case.check(
            f"rpn_logits_p{level}",
            nchw(ops.reshape(logits, (batch, height, width, anchors))),
        )
        deltas = ops.reshape(deltas, (batch, height, width, anchors, 4))
        deltas = ops.take(deltas, XY, axis=-1)
        deltas = ops.reshape(deltas, (batch, height, width, anchors * 4))
        case.check(f"rpn_deltas_p{level}", nchw(deltas))


def test_proposals_in_the_same_order(case):
    boxes, scores, _ = case.proposals
    for i in range(len(case.images)):
        count = case.golden["num_proposals"][i]
        assert count == np.isfinite(ops.convert_to_numpy(scores[i])).sum()
        case.check(f"proposal_boxes_{i}", ops.take(boxes[i], XY, axis=-1)[:count])
        case.check(f"proposal_logits_{i}", scores[i][:count])


def test_box_head(case):
    boxes, _, _ = case.proposals
    features = {name: case.features[name] for name in ("P2", "P3", "P4", "P5")}
    logits, deltas = case.model.box_head(features, boxes)
    case.check("cls_logits", ops.reshape(logits, (-1, logits.shape[-1])))
    deltas = ops.take(deltas, XY, axis=-1)
    case.check("box_deltas", ops.reshape(deltas, (-1, deltas.shape[-2] * 4)))


def test_detections_in_the_same_order(case):
    for i in range(len(case.images)):
        count = case.outputs[schema.NUM_DETECTIONS][i]
        assert count == len(case.golden[f"det_boxes_{i}"])
        case.check(f"det_boxes_{i}", case.outputs[schema.BOXES][i, :count][:, XY])
        case.check(f"det_scores_{i}", case.outputs[schema.SCORES][i, :count])
        classes = case.outputs[schema.CLASSES][i, :count]
        np.testing.assert_array_equal(classes, case.golden[f"det_classes_{i}"])
        case.check(f"det_mask_probs_{i}", case.outputs[schema.MASK_PROBS][i, :count])


def test_panoptic_map(case):
    """The merge at the requested size: at most 10 pixels differ, and the segments are the same."""
    # Thing class k has the id k, the semantic class s the id 100 + s.
    categories = CategoryTable(
        tuple(Category(k, f"thing {k}", True) for k in range(5))
        + tuple(Category(100 + s, f"stuff {s}", False) for s in range(1, 5))
    )
    predictor = Predictor(case.model, categories, MergeConfig(stuff_area=256), SplitConfig())
    for i in range(len(case.images)):
        outputs = {name: value[i] for name, value in case.outputs.items()}
        outputs = {name: ops.convert_to_tensor(value) for name, value in outputs.items()}
        size = ops.convert_to_tensor(case.sizes[i])
        original = ops.convert_to_tensor(case.golden[f"out_hw_{i}"].astype(np.int32))
        merged = predictor._merge_image(
            predictor._semantic_map(outputs, size, original),
            predictor._instances(outputs, size, original),
        )
        semantic = ops.convert_to_numpy(merged[schema.SEMANTIC_MAP])
        assert (semantic != case.golden[f"out_sem_argmax_{i}"]).sum() <= 10
        panoptic = ops.convert_to_numpy(merged[schema.PANOPTIC_MAP])
        assert (panoptic != case.golden[f"out_panoptic_{i}"]).sum() <= 10
        expected = json.loads(str(case.golden[f"out_segments_json_{i}"]))
        count = int(merged[schema.NUM_SEGMENTS])
        ids = ops.convert_to_numpy(merged[schema.CATEGORY_IDS])[:count]
        assert [s["category_id"] + (0 if s["isthing"] else 100) for s in expected] == list(ids)


def test_rois_given(case):
    """RoIAlign, box head and mask head on given boxes, some degenerate or outside the image."""
    if "roi_fixed_boxes" not in case.golden:
        pytest.skip("stored for one case only")
    features = {name: case.features[name] for name in ("P2", "P3", "P4", "P5")}
    rois = case.golden["roi_fixed_boxes"][None][..., XY]
    np.testing.assert_array_equal(roi_levels(rois[0]), case.golden["roi_fixed_level"])
    pooled = roi_align(features, rois, 7, 0)
    case.check("roi_fixed_7", nchw(pooled[0]))
    case.check("roi_fixed_14", nchw(roi_align(features, rois, 14, 0)[0]))
    head = case.model.box_head
    case.check("roi_fixed_fc2", head.fc2(head.fc1(ops.reshape(pooled, (32, -1)))))
    logits, deltas = head(features, rois)
    case.check("roi_fixed_cls_logits", logits[0])
    case.check("roi_fixed_box_deltas", ops.reshape(ops.take(deltas[0], XY, axis=-1), (32, -1)))
    case.check("roi_fixed_mask_logits", nchw(all_mask_logits(case.model, features, rois[:, ::3])))


def all_mask_logits(model, features, rois):
    """The mask head's logits of every class: `[R, 28, 28, K]`."""
    x = roi_align(features, rois, 14, 0)[0]
    for conv in model.mask_head.convs:
        x = conv(x)
    return model.mask_head.predictor(model.mask_head.deconv(x))


def test_mask_logits_of_the_detections(case):
    if "mask_logits" not in case.golden:
        pytest.skip("stored for one case only")
    features = {name: case.features[name] for name in ("P2", "P3", "P4", "P5")}
    rois = case.outputs[schema.BOXES][:1]
    case.check("mask_logits", nchw(all_mask_logits(case.model, features, rois)))


def test_semantic_branches(case):
    if "sem_branch_p2_sub4" not in case.golden:
        pytest.skip("stored for one case only")
    for level, branch in enumerate(case.model.semantic_head.branches, start=2):
        x = case.features[f"P{level}"]
        for conv in branch:
            x = conv(x)
            x = x if level == 2 else upsample_bilinear(x, 2)
        case.check(f"sem_branch_p{level}_sub4", nchw(x)[:, :, 1::4, 1::4])


def test_outputs_at_the_requested_size(case):
    for i in range(len(case.images)):
        size, count = case.golden[f"out_hw_{i}"], case.outputs[schema.NUM_DETECTIONS][i]
        boxes = case.outputs[schema.BOXES][i, :count]
        boxes = clip_boxes(scale_boxes(boxes, (size / case.sizes[i]).astype(np.float32)), size)
        kept = ops.convert_to_numpy(box_areas(boxes)) > 0
        boxes = ops.convert_to_numpy(boxes)[kept]
        case.check(f"out_boxes_{i}", boxes[:, XY])
        case.check(f"out_scores_{i}", case.outputs[schema.SCORES][i, :count][kept])
        classes = case.outputs[schema.CLASSES][i, :count][kept]
        np.testing.assert_array_equal(classes, case.golden[f"out_classes_{i}"])
        probs = case.outputs[schema.MASK_PROBS][i, :count][kept]
        masks = ops.convert_to_numpy(paste_masks(probs, boxes, tuple(size))) >= 0.5
        different = (masks != case.golden[f"out_masks_{i}"]).sum()
        assert different <= 4 * case.noise[f"out_masks_{i}"]["mismatches"]

        logits = upsample_bilinear(case.outputs[schema.SEMANTIC_LOGITS][i : i + 1], 4)
        height, width = case.sizes[i]
        logits = nchw(resize_bilinear(logits[:, :height, :width], tuple(size)))[0]
        if f"out_sem_logits_{i}" in case.golden:
            case.check(f"out_sem_logits_{i}", logits)
        else:
            case.check(f"out_sem_logits_{i}_sub2", logits[:, ::2, ::2])
