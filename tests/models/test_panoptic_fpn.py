"""The model as other people's code uses it."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_model import TINY_OPTIONS, make_batch, make_tiny_model, short_resnets

from tf_panoptic_fpn import PanopticFPN, load_model, schema
from tf_panoptic_fpn.backbones.resnet import BLOCKS, ResNet
from tf_panoptic_fpn.training.optimizer import SGD


@pytest.fixture(scope="module")
def model():
    with short_resnets():
        return make_tiny_model()


def images_of(batch):
    return {key: batch[key] for key in (schema.IMAGES, schema.IMAGE_SIZES)}


def assert_equal_outputs(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)


def test_output_shapes_and_dtypes(model):
    outputs = model(np.zeros((2, 70, 97, 3), np.uint8))
    expected = {
        schema.BOXES: ((2, 7, 4), "float32"),
        schema.SCORES: ((2, 7), "float32"),
        schema.CLASSES: ((2, 7), "int32"),
        schema.NUM_DETECTIONS: ((2,), "int32"),
        schema.MASK_PROBS: ((2, 7, 28, 28), "float32"),
        schema.SEMANTIC_LOGITS: ((2, 24, 32, 5), "float32"),
    }
    received = {name: (tuple(v.shape), v.dtype.name) for name, v in outputs.items()}
    assert received == expected


def test_images_alone_are_the_whole_canvas(model):
    batch = make_batch(2, (64, 96))
    with_sizes = model(images_of(batch))
    assert_equal_outputs(with_sizes, model(batch[schema.IMAGES]), rtol=0, atol=0)
    assert_equal_outputs(with_sizes, model({"images": batch[schema.IMAGES]}), rtol=0, atol=0)
    assert_equal_outputs(
        with_sizes, model.predict(images_of(batch), verbose=0), rtol=1e-4, atol=1e-4
    )


def test_what_is_outside_the_image_does_not_matter(model):
    batch = make_batch(2, (64, 96))
    sizes = np.array([[64, 96], [50, 70]], np.int32)
    images = batch[schema.IMAGES].copy()
    images[1, 50:] = images[1, :, 70:] = 99
    filled = model({"images": images, "image_sizes": sizes})
    images[1, 50:] = images[1, :, 70:] = 0
    assert_equal_outputs(filled, model({"images": images, "image_sizes": sizes}), rtol=0, atol=0)
    assert (filled[schema.BOXES][1] <= [50, 70, 50, 70]).numpy().all()


def test_graph_equals_eager_with_unknown_size(model):
    images = make_batch(1, (64, 96))[schema.IMAGES]
    graph = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3])])
    assert_equal_outputs(model(images), graph(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_xla_equals_eager(model):
    images = make_batch(1, (64, 96))[schema.IMAGES]
    compiled = tf.function(lambda x: model(x), jit_compile=True)
    assert_equal_outputs(model(images), compiled(images), rtol=1e-3, atol=1e-3)


def test_saved_and_loaded_equal(model, tmp_path):
    images = make_batch(1, (64, 96))[schema.IMAGES]
    model.save(tmp_path / "model.keras")
    with short_resnets():
        loaded = load_model(tmp_path / "model.keras")
    assert_equal_outputs(model(images), loaded(images), rtol=0, atol=0)
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]


def test_every_argument_survives_the_config():
    changed = {
        **TINY_OPTIONS,
        "backbone": "resnext50_32x4d",
        "norm": "group_norm",
        "freeze_at": 1,
        "stride_in_1x1": False,
        "norm_groups": 16,
        "deformable_stages": (4, 5),
        "deformable_groups": 2,
        "deformable_modulated": True,
        "tasks": ("semantic", "instance"),
        "fpn_groups": 2,
        "fpn_norm": "group_norm",
        "box_head": "four_conv_one_fc",
        "box_head_channels": 16,
        "box_head_norm": "group_norm",
        "class_agnostic_boxes": True,
        "cascade_ious": (0.4, 0.5),
        "cascade_delta_weights": ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)),
        "mask_head_convolutions": 3,
        "mask_head_norm": "group_norm",
        "semantic_design": "two_conv",
        "semantic_fuse": "concat",
        "semantic_things": "all",
        "anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0),
        "anchor_ratios": (1.0, 3.0),
        "rpn_nms_iou": 0.6,
        "roi_sampling_ratio": 2,
        "nms_iou": 0.4,
        "pixel_mean": (1.0, 2.0, 3.0),
        "pixel_std": (4.0, 5.0, 6.0),
        "lambda_instance": 0.3,
        "lambda_semantic": 0.7,
    }
    parameters = inspect.signature(PanopticFPN).parameters
    names = {n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    names -= {"drop_path", "separable_heads"}  # not with ResNets, two groups: tests/backbones
    assert changed.keys() == names
    assert all(changed[name] != parameters[name].default for name in names)
    with short_resnets():
        model = PanopticFPN(**changed)
        config = PanopticFPN.from_config(model.get_config()).get_config()
    assert {name: config[name] for name in names} == changed
    assert model.proposals.anchor_ratios == (1.0, 3.0)
    head = model.box_head.stages[1]
    assert head.sampling_ratio == model.mask_head.sampling_ratio == 2
    assert (head.config["design"], head.config["channels"]) == ("four_conv_one_fc", 16)
    assert model.detections.delta_weights == (5.0, 6.0, 7.0, 8.0)
    assert len(model.mask_head.convs) == 3
    assert model.fpn.laterals[0].norm.groups == head.convs[0].norm.groups == 16
    offset = model.backbone.res4[0].conv2.conv.offset
    assert offset.filters == 2 * 27  # of 2 groups, an offset and a mask a tap
    assert model.normalize.std == (4.0, 5.0, 6.0)
    assert not any("stem" in v.path for v in model.trainable_variables)
    assert any("res2" in v.path for v in model.trainable_variables)


def test_fit_learns_and_reports_each_loss():
    """On batches of one's own too, which have no seeds."""
    with short_resnets():
        model = make_tiny_model()
    model.compile(SGD(0.003, momentum=0.9))
    batch = make_batch(2, (64, 96))
    del batch[schema.IMAGE_SEEDS]
    dataset = tf.data.Dataset.from_tensors((batch, batch)).repeat(6)
    history = model.fit(dataset, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    names = ("rpn_class", "rpn_box", "class", "box", "mask", "semantic")
    assert set(names) < set(history)
    evaluated = model.evaluate(dataset.take(1), return_dict=True, verbose=0)
    total = sum(evaluated[name] for name in names)
    np.testing.assert_allclose(evaluated["loss"], total, rtol=1e-5)


def test_layers_are_there(model):
    for name in ("backbone", "fpn", "rpn_head", "box_head", "mask_head", "semantic_head"):
        layer = getattr(model, name)
        assert isinstance(layer, keras.layers.Layer)
        assert layer.count_params() > 0


@pytest.mark.parametrize("depth", sorted(BLOCKS))
def test_backbone_depths(depth):
    """Parameters without the classifier, as published, less batch norm's two a channel kept."""
    backbone = ResNet(depth)
    backbone.build((None, None, None, 3))
    convolutions = sum(v.shape.num_elements() for v in backbone.variables if v.name == "kernel")
    expected = {18: 11166912, 34: 21267648, 50: 23454912, 101: 42394816, 152: 57992384}
    assert convolutions == expected[depth]
    shapes = backbone.compute_output_shape((2, 64, 96, 3))
    scale = 1 if depth < 50 else 4
    assert shapes == {
        "C2": (2, 16, 24, 64 * scale),
        "C3": (2, 8, 12, 128 * scale),
        "C4": (2, 4, 6, 256 * scale),
        "C5": (2, 2, 3, 512 * scale),
    }


def test_number_of_parameters():
    """detectron2's `panoptic_fpn_R_50_1x` has 45.97 M, its frozen batch norms not counted."""
    counted = [v for v in PanopticFPN().variables if v.name not in ("scale", "shift")]
    assert round(sum(v.shape.num_elements() for v in counted) / 1e6, 2) == 45.97


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg16"}, "`backbone` must be"),
        ({"backbone": "resnet42"}, "`depth` must be one of"),
        ({"backbone": "resnet18", "norm": "batch"}, "`norm` must be"),
        ({"anchor_sizes": (1.0, 2.0)}, "`anchor_sizes` must have one size for each"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        make_tiny_model(**changes)
