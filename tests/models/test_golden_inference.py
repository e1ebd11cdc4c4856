"""Inference equals detectron2's, tensor by tensor."""

import json

import numpy as np
import pytest
from keras import ops
from small_model import XY, stack_images

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.serving import Predictor

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
        tolerance = 4 * self.noise[key]["max_abs_diff"]
        value = ops.convert_to_numpy(value)
        np.testing.assert_allclose(value, self.golden[key], rtol=0, atol=tolerance, err_msg=key)


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
        merged = predictor._merge_image(
            {name: ops.convert_to_tensor(value) for name, value in outputs.items()},
            ops.convert_to_tensor(case.sizes[i]),
            ops.convert_to_tensor(case.golden[f"out_hw_{i}"].astype(np.int32)),
        )
        semantic = ops.convert_to_numpy(merged[schema.SEMANTIC_MAP])
        assert (semantic != case.golden[f"out_sem_argmax_{i}"]).sum() <= 10
        panoptic = ops.convert_to_numpy(merged[schema.PANOPTIC_MAP])
        assert (panoptic != case.golden[f"out_panoptic_{i}"]).sum() <= 10
        expected = json.loads(str(case.golden[f"out_segments_json_{i}"]))
        count = int(merged[schema.NUM_SEGMENTS])
        ids = ops.convert_to_numpy(merged[schema.CATEGORY_IDS])[:count]
        assert [s["category_id"] + (0 if s["isthing"] else 100) for s in expected] == list(ids)
