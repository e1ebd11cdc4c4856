"""Networks of Keras as ONNX nodes give what the networks give."""

import keras
import numpy as np
import pytest
from small_model import TINY_MIT, TINY_SWIN

from tf_panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.backbones.drop_path import DropPath
from tf_panoptic_fpn.backbones.keras_hub import from_instance
from tf_panoptic_fpn.backbones.mix_transformer import mix_network
from tf_panoptic_fpn.backbones.network import NetworkBackbone
from tf_panoptic_fpn.backbones.swin_transformer import swin_network
from tf_panoptic_fpn.errors import ConfigError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from tf_panoptic_fpn.export.onnx_file import check_held  # noqa: E402
from tf_panoptic_fpn.onnx_graph.graph import Graph  # noqa: E402
from tf_panoptic_fpn.onnx_graph.network import check_network, network  # noqa: E402
from tf_panoptic_fpn.onnx_graph.vision_transformer import vision_transformer  # noqa: E402

ACTIVATIONS = ("relu", "relu6", "silu", "hard_silu", "gelu", "sigmoid", "leaky_relu")


def block(x, i):
    """A stride of 2 by each kind of padding and convolution, then a squeeze and a residual."""
    layers = keras.layers
    if i % 2:
        x = layers.DepthwiseConv2D(3, 2, "same", name=f"down{i}")(x)
    else:
        x = layers.Conv2D(8, 3, 2, name=f"down{i}")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
    x = layers.BatchNormalization()(x)
    x = layers.Activation(ACTIVATIONS[i])(x)
    y = layers.Conv2D(8, 3, padding="same", dilation_rate=2)(x)
    y = layers.LayerNormalization()(layers.Conv2D(8, 3, padding="same", groups=2)(y))
    y = layers.Dense(8, activation=ACTIVATIONS[(i + 1) % len(ACTIVATIONS)])(y)
    squeezed = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    squeezed = layers.ReLU(6.0)(layers.Conv2D(8, 1)(squeezed) + 3.0) * (1.0 / 6.0)
    y = DropPath(0.1)(layers.Multiply()([y, squeezed]))
    y = layers.Concatenate()(keras.ops.split(y, 2, axis=-1)[::-1])
    return layers.Add()([x, y])


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    x = image = keras.Input((None, None, 3))
    for i in range(5):
        x = block(x, i) if i else keras.layers.Conv2D(8, 3, 2, "same")(x)
    pooled = keras.layers.MaxPooling2D(3, 1, "same")(x)
    x = keras.layers.Concatenate()([x, pooled, keras.layers.AveragePooling2D(1)(x)])
    x = keras.Sequential([keras.layers.Conv2D(5, 1), keras.layers.LeakyReLU(0.3)])(x)
    result = NetworkBackbone(keras.Model(image, x), norm="sync_batch_norm", bgr=True)
    rng = np.random.default_rng(0)
    for variable in result.network.weights:
        if variable.name not in ("kernel", "seed_generator_state"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return result


def check_same(write, backbone, atol):
    """What is written gives the backbone's maps, which it returns, but for `atol` of their size."""
    g = Graph()
    x = g.input("x", "float32", ["batch", 3, "height", "width"])
    for name, value in write(g, x, backbone).items():
        g.output(value, name, "float32", ["batch", "c" + name, "h" + name, "w" + name])
    model = g.model("network", {})
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = np.random.default_rng(1).normal(size=(2, 64, 96, 3)).astype("float32")
    received = session.run(None, {"x": images.transpose(0, 3, 1, 2)})
    expected = backbone(images)
    assert list(expected) == ["C2", "C3", "C4", "C5"]
    for value, (name, other) in zip(received, expected.items(), strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(
            value.transpose(0, 2, 3, 1), other, atol=atol * scale, err_msg=name
        )
    return expected


def test_pads_are_of_all_axes(backbone):
    """onnxruntime overlooks the axes where it moves a transposition past a pad."""
    g = Graph()
    network(g, g.input("x", "float32", ["batch", 3, "height", "width"]), backbone)
    graph = g.model("network", {}).graph
    lengths = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    pads = [node.input for node in graph.node if node.op_type == "Pad"]
    assert [(lengths[names[1]], lengths[names[3]]) for names in pads] == [(8, 4)] * 2


def test_a_network_gives_the_same(backbone):
    assert check_same(network, backbone, 1e-5)["C5"].shape[-1] == 5


@pytest.mark.parametrize("make, arguments", [(mix_network, TINY_MIT), (swin_network, TINY_SWIN)])
def test_a_hierarchical_transformer_gives_the_same(make, arguments):
    made = make(arguments, 0.1)
    rng = np.random.default_rng(0)
    for variable in made.weights:
        variable.assign(rng.uniform(-0.3, 0.5, variable.shape))
    check_same(network, NetworkBackbone(made), 1e-5)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("DINOV2Backbone", {"num_register_tokens": 3}),
        ("DINOV2Backbone", {"use_swiglu_ffn": True}),
        ("DINOV3Backbone", {"use_key_bias": False}),
        ("DINOV3Backbone", {"use_gated_mlp": True, "hidden_activation": "silu"}),
    ],
)
def test_a_vision_transformer_gives_the_same(kind, options):
    hub = pytest.importorskip("keras_hub", reason="pip install .[keras_hub]")
    patch = 14 if kind == "DINOV2Backbone" else 16
    options = {**options, "patch_size": patch, "image_shape": (4 * patch, 4 * patch, 3)}
    if kind == "DINOV2Backbone":  # a grid of 4 x 4, interpolated to one of 4 x 6
        options["position_embedding_shape"] = options["image_shape"]
    transformer = getattr(hub.models, kind)(
        num_layers=1, hidden_dim=16, num_heads=2, intermediate_dim=32, **options
    )
    rng = np.random.default_rng(0)
    for variable in transformer.weights:
        variable.assign(rng.uniform(-0.3, 0.5, variable.shape))
    check_same(vision_transformer, from_instance(transformer, "frozen_affine", 0, 0.0), 1e-4)


def test_what_cannot_be_written_is_named(backbone):
    x = image = keras.Input((None, None, 3))
    for _ in range(5):
        x = keras.layers.Conv2D(2, 3, 2, "same")(x)
    strange = keras.Model(image, keras.layers.GaussianNoise(0.1, name="strange")(x))
    with pytest.raises(ConfigError, match=r"no layer of type GaussianNoise.*: strange"):
        check_network(strange)
    options = {"num_thing_classes": 2, "num_stuff_classes": 2, "tasks": ("semantic",)}
    check_held(PanopticFPN(backbone=backbone, **options, separable_heads=True))
    with pytest.raises(ConfigError, match="GaussianNoise"):
        check_held(PanopticFPN(backbone=NetworkBackbone(strange), **options))
