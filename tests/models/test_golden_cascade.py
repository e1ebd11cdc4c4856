"""The authors' strongest model, in small: losses, gradients and detections equal detectron2's.

In float64, where nothing but the arithmetic decides; see docs/decisions/0005.
"""

import json

import numpy as np
import pytest
from float64 import float64
from golden_training import losses_and_gradients
from keras import ops
from small_model import XY, make_cascade_model, stack_images

from tf_panoptic_fpn import load_config, schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.training.optimizer import decays
from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint
from tf_panoptic_fpn.weights import MODEL_ZOO
from tf_panoptic_fpn.weights.detectron2 import detectron2_source, load_detectron2
from tf_panoptic_fpn.weights.detectron2_layout import _INVERSES, weight_plan
from tf_panoptic_fpn.weights.infer_model import infer_model

TOLERANCE = 1e-9  # measured: losses 3e-15, gradients 9e-14, maps and boxes of the stages 2e-13
STAGES = range(3)
LOSSES = {"rpn_class": "rpn_cls", "rpn_box": "rpn_loc", "mask": "mask", "semantic": "sem_seg"}
LOSSES |= {f"class_stage{i}": f"cls_stage{i}" for i in STAGES}
LOSSES |= {f"box_stage{i}": f"box_reg_stage{i}" for i in STAGES}


@pytest.fixture(scope="module")
def folder(goldens_dir):
    return goldens_dir / "detectron2_cascade"


@pytest.fixture(scope="module")
def model_64(folder):
    with float64():
        model = make_cascade_model()
    load_detectron2(model, folder / "weights.npz")
    return model


@pytest.fixture(scope="module")
def model_32(folder):
    model = make_cascade_model()
    load_detectron2(model, folder / "weights.npz")
    return model


def check(name, received, expected, tolerance=TOLERANCE):
    """The norm of the difference over the norm."""
    error = np.linalg.norm(ops.convert_to_numpy(received) - expected)
    assert error <= tolerance * np.linalg.norm(expected), (name, error)


def load_inputs(path):
    """A golden's inputs with the names that the plain model's goldens have for the rois."""
    with np.load(path) as file:
        return {name.replace("stage0_", "roi_"): file[name] for name in file}


@pytest.mark.parametrize("case", ["train_a", "train_b"])
def test_losses_and_gradients(case, folder, model_64):
    """Of `train_b`, whose second image has no instances, every seventh number of each gradient."""
    golden = dict(np.load(folder / f"{case}_f64.npz"))
    inputs = load_inputs(folder / f"{case}.npz")
    weighted, total, gradients = losses_and_gradients(model_64, inputs)
    assert set(weighted) == set(LOSSES)
    for name, key in LOSSES.items():
        np.testing.assert_allclose(weighted[name], golden[f"loss_{key}"], rtol=TOLERANCE)
    np.testing.assert_allclose(total, golden["loss_total"], rtol=TOLERANCE)
    norms = dict(zip(golden["grad_names"], golden["grad_norms"], strict=True))
    checked = set()
    for variable, (name, *_), convert in weight_plan(model_64):
        if variable.path not in gradients:
            continue
        received, expected = np.asarray(gradients[variable.path]), golden[f"grad/{name}"]
        np.testing.assert_allclose(np.linalg.norm(received), norms[name], rtol=TOLERANCE)
        if case == "train_b":
            places = np.arange(received.size).reshape(torch_shape(variable, name))
            received = received.ravel()[convert(places).argsort(axis=None)][::7]
        else:
            expected = convert(expected)
        check(name, received, expected)
        checked.add(name)
    assert checked == set(golden["grad_names"])
    assert len(checked) == 245


def torch_shape(variable, name):
    shape = variable.shape
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def test_weight_decay(folder, model_64):
    """Of all but the norms' scales and shifts; of the offsets' biases too."""
    groups = json.loads(str(np.load(folder / "train_a.npz")["opt_groups_json"]))
    decayed = [decays(variable) for variable in model_64.trainable_variables]
    counts = {group["weight_decay"]: group["num_params"] for group in groups}
    assert {1e-4: sum(decayed), 0.0: len(decayed) - sum(decayed)} == counts == {1e-4: 123, 0: 122}


def test_float32(folder, model_32):
    """What training runs: losses within four times what detectron2's own float32 is off by.

    A loss is one number, whose noise may be small by chance: the largest relative one counts. A
    ReLU whose input is within rounding of 0 may turn a cell's gradient on or off.
    """
    noise = json.loads((folder / "fp64_noise.json").read_text())["train_a"]
    golden = dict(np.load(folder / "train_a_f64.npz"))
    weighted, total, gradients = losses_and_gradients(model_32, load_inputs(folder / "train_a.npz"))
    assert total.dtype == "float32"
    keys = {key: f"loss_{key}" for key in LOSSES.values()}
    tolerance = 4 * max(noise[key]["max_abs_diff"] / golden[key] for key in keys.values())
    assert tolerance < 2e-6
    for name, key in LOSSES.items():
        np.testing.assert_allclose(weighted[name], golden[keys[key]], rtol=tolerance)
    tolerance = 4 * noise["loss_total"]["max_abs_diff"]
    np.testing.assert_allclose(total, golden["loss_total"], rtol=0, atol=tolerance)
    for variable, (name, *_), convert in weight_plan(model_32):
        if variable.path in gradients:  # measured: 9e-4
            check(name, gradients[variable.path], convert(golden[f"grad/{name}"]), 2e-2)


def nchw(x):
    return ops.transpose(x, (0, 3, 1, 2))


def test_inference_in_float64(folder, model_64):
    golden = dict(np.load(folder / "infer_a_f64.npz"))
    images, sizes = stack_images(dict(np.load(folder / "infer_a.npz")))
    dense = model_64.dense_outputs(images, sizes, training=False)
    for level in range(2, 7):
        check(f"p{level}", nchw(dense["features"][f"P{level}"]), golden[f"p{level}"])
    check("sem_stride4", nchw(dense["semantic_logits"]), golden["sem_stride4"])
    features = {name: dense["features"][name] for name in ("P2", "P3", "P4", "P5")}

    head, rois = model_64.box_head, golden["stage0_boxes_0"][None][..., XY]
    given = rois
    for i, stage in enumerate(head.stages):
        check(f"stage{i}_boxes", rois[0], golden[f"stage{i}_boxes_0"][:, XY])
        logits, deltas = stage(features, rois)
        check(f"stage{i}_logits", logits[0], golden[f"stage{i}_cls_logits"])
        check(f"stage{i}_deltas", deltas[0, :, 0], golden[f"stage{i}_box_deltas"][:, XY])
        rois = head.moved(i, rois, deltas, sizes)

    scores = np.zeros((1, 200))
    boxes, scores, classes, count = model_64.detect(features, given, scores, sizes)
    assert count[0] == 40
    check("det_boxes", boxes[0], golden["det_boxes_0"][:, XY])
    check("det_scores", scores[0], golden["det_scores_0"])
    np.testing.assert_array_equal(classes[0], golden["det_classes_0"])
    logits = model_64.mask_head(features, boxes, classes, count)
    masks = golden["mask_logits"][np.arange(40), golden["det_classes_0"]]
    check("mask_logits", logits[0], masks)


def test_inference_in_float32(folder, model_32):
    """Discrete outputs are equal, the others within four times the rounding noise."""
    noise = json.loads((folder / "fp64_noise.json").read_text())["infer_a"]
    golden = dict(np.load(folder / "infer_a.npz"))
    images, sizes = stack_images(golden)
    outputs = model_32({schema.IMAGES: images, schema.IMAGE_SIZES: sizes})
    assert outputs[schema.NUM_DETECTIONS][0] == 40
    np.testing.assert_array_equal(outputs[schema.CLASSES][0], golden["det_classes_0"])
    boxes = ops.convert_to_numpy(outputs[schema.BOXES][0])[:, XY]
    semantic = nchw(outputs[schema.SEMANTIC_LOGITS])
    pairs = {"det_boxes_0": boxes, "sem_stride4": semantic}
    pairs["det_scores_0"] = outputs[schema.SCORES][0]
    # A probability moves by a quarter of its logit at most.
    probs, limit = outputs[schema.MASK_PROBS][0], noise["mask_logits"]["max_abs_diff"]
    np.testing.assert_allclose(probs, golden["det_mask_probs_0"], rtol=0, atol=limit)
    for key, value in pairs.items():
        tolerance = 4 * noise[key]["max_abs_diff"]
        np.testing.assert_allclose(value, golden[key], rtol=0, atol=tolerance, err_msg=key)

    categories = CategoryTable(
        tuple(Category(k, f"thing {k}", True) for k in range(5))
        + tuple(Category(100 + s, f"stuff {s}", False) for s in range(1, 5))
    )
    predictor = Predictor(model_32, categories, MergeConfig(stuff_area=256), SplitConfig())
    outputs = {name: ops.convert_to_tensor(value[0]) for name, value in outputs.items()}
    size = ops.convert_to_tensor(sizes[0])
    original = ops.convert_to_tensor(golden["out_hw_0"].astype(np.int32))
    merged = predictor._merge_image(
        predictor._semantic_map(outputs, size, original),
        predictor._instances(outputs, size, original),
    )
    np.testing.assert_array_equal(merged[schema.PANOPTIC_MAP], golden["out_panoptic_0"])
    expected = json.loads(str(golden["out_segments_json_0"]))
    ids = ops.convert_to_numpy(merged[schema.CATEGORY_IDS])[: int(merged[schema.NUM_SEGMENTS])]
    assert [s["category_id"] + (0 if s["isthing"] else 100) for s in expected] == list(ids)


@pytest.mark.slow
def test_the_published_model(folder):
    """Read off its names and shapes, it is the recipe's, with the same names and shapes."""
    zoo = json.loads((folder / "zoo_model.json").read_text())
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in zoo["shapes"].items()}
    assert "detectron2/panoptic_fpn_R_101_dconv_cascade_gn_3x" in MODEL_ZOO
    model = infer_model(detectron2_source(Checkpoint(arrays)))
    received, frozen = {}, set()
    for variable, (name, *_), convert in weight_plan(model):
        value = np.broadcast_to(np.float32(0), variable.shape)
        received[name] = list(_INVERSES[convert](value).shape)
        if not variable.trainable:
            frozen.add(name)
    assert received == zoo["shapes"]
    assert len(received) == 465
    assert frozen == set(zoo["frozen"])
    assert model.count_params() == zoo["parameters"] == 93950192
    recipe = load_config("coco_r101_dconv_cascade_gn_3x").model.model_dump()
    assert {**recipe, "rpn_top_k_train": (2000, 1000)} == model.config
