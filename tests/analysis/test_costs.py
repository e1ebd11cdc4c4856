"""Costs by hand, and beside what the papers print."""

import keras
import pytest

from tf_panoptic_fpn.analysis.costs import Costs, count_costs, count_training
from tf_panoptic_fpn.analysis.feature_resolution import dilated_network, symmetric_decoder
from tf_panoptic_fpn.backbones.resnet import make_backbone
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN


def test_layers_by_hand():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", name="conv_1"),
            layers.DepthwiseConv2D(5, padding="same", name="depthwise"),
            layers.Conv2D(16, 1, groups=1, use_bias=False, name="point"),
            layers.Conv2DTranspose(4, 2, strides=2, name="deconv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="dense"),
        ]
    )
    assert count_costs(model, (6, 10)) == {
        "conv": Costs(3 * 9 * 8 + 8, 3 * 5 * 8 * 27, 3 * 5 * 8),
        "depthwise": Costs(25 * 8 + 8, 3 * 5 * 8 * 25, 3 * 5 * 8),
        "point": Costs(8 * 16, 3 * 5 * 16 * 8, 3 * 5 * 16),
        "deconv": Costs(16 * 4 * 4 + 4, 3 * 5 * 16 * 4 * 4, 6 * 10 * 4),
        "dense": Costs(50, 40, 10),
        "total": Costs(224 + 208 + 128 + 260 + 50, 120 * 27 + 120 * 25 + 1920 + 3840 + 40, 730),
    }


@pytest.mark.parametrize(
    ("backbone", "printed"),
    [
        ("resnet50", 3.8),  # arXiv:1512.03385, Table 1, with the classifier's 2 M
        ("resnext50_32x4d", 4.2),  # arXiv:1611.05431, Table 1
    ],
)
def test_backbones_of_their_papers(backbone, printed):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, make_backbone(backbone, "frozen_affine", 0, True)(image))
    multiply_adds = count_costs(model, (224, 224))["total"].multiply_adds
    # Both papers print one digit behind the point.
    assert multiply_adds / 1e9 == pytest.approx(printed, abs=0.06)


def test_heads_by_hand():
    model = PanopticFPN(
        num_thing_classes=2,
        num_stuff_classes=3,
        backbone="resnet18",
        fpn_channels=32,
        semantic_channels=32,
        box_head_units=16,
        mask_head_channels=8,
        rpn_top_k_test=(50, 20),
        max_detections=10,
    )
    stages = count_costs(model, (64, 64))
    rois = 20
    layers = 7 * 7 * 32 * 16 + 16 * 16 + 16 * 3 + 16 * 8
    assert stages["box_head"] == Costs(
        layers + 16 + 16 + 3 + 8, rois * layers, rois * (16 + 16 + 3 + 8)
    )
    cells = 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2 + 1
    anchors = 3 * cells
    assert stages["rpn_head"].multiply_adds == cells * 32 * (32 * 9 + 3 + 12)
    assert stages["rpn_head"].activations == cells * 32 + 5 * anchors
    assert list(stages)[:6] == ["stem", "res2", "res3", "res4", "res5", "fpn"]
    assert stages["total"].parameters == model.count_params()

    # In training, 512 rois and 128 with a mask; the stem and res2 are frozen, the rest costs three
    # forward passes.
    of_pixel, of_image = count_training(model)
    mask = 14 * 14 * 9 * (32 * 8 + 3 * 8 * 8) + 14 * 14 * 8 * 8 * 4
    mask += 28 * 28 * 8 + 2 * (8 + 1)  # the predictor of one class, which a product picks
    assert of_image == 3 * (512 * layers + 128 * mask)
    frozen = sum(stages[name].multiply_adds for name in ("stem", "res2"))
    names = ("res3", "res4", "res5", "fpn", "rpn_head", "semantic_head")
    # The coarsest level has a cell more than its share of so small an image.
    coarsest = 32 * (32 * 9 + 3 + 12)
    trained = sum(stages[name].multiply_adds for name in names) - coarsest + coarsest / 4
    assert of_pixel == pytest.approx((frozen + 3 * trained) / 64**2, rel=1e-3)


def test_resolution_by_hand():
    small = (64, 128)
    sixteen, eight = (count_costs(dilated_network(50, stride), small) for stride in (16, 8))
    standard = count_costs(symmetric_decoder(50), small)
    # Without its stride a stage has four times the positions.
    assert sixteen["res5"].multiply_adds == 4 * standard["res5"].multiply_adds
    assert eight["res4"].multiply_adds == 4 * standard["res4"].multiply_adds
    assert eight["res5"].multiply_adds == 16 * standard["res5"].multiply_adds
    assert eight["total"].parameters == sixteen["total"].parameters
    # A stage of the decoder has the encoder's blocks without projection or stride, and one 1x1.
    cells = 16 * 32
    block = cells * (256 * 64 + 9 * 64 * 64 + 64 * 256)
    assert standard["decoder2"].multiply_adds == 3 * block + cells // 4 * 512 * 256


def test_dilated_features_are_what_a_dilated_convolution_gives():
    model = dilated_network(50, 8)
    assert model.compute_output_shape((1, 64, 96, 3)) == (1, 8, 12, 2048)
    rates = {
        layer.name: layer.conv2.conv.dilation_rate[0]
        for layer in model.layers
        if hasattr(layer, "conv2")
    }
    assert {name[:4]: rate for name, rate in rates.items()} == {
        "res2": 1,
        "res3": 1,
        "res4": 2,
        "res5": 4,
    }
    with pytest.raises(ValueError, match="must be 8 or 16"):
        dilated_network(50, 4)


@pytest.mark.parametrize("size", [(0, 5), (-1, 64)])
def test_sizes_that_are_none(size):
    with pytest.raises(ConfigError, match="image size: must be positive"):
        count_costs(keras.Sequential(), size)
