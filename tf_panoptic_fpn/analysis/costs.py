"""Parameters, multiply-adds and activations of a model, stage by stage."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.models.panoptic_fpn import ROI_LEVELS, PanopticFPN
from tf_panoptic_fpn.models.targets import ROI_FOREGROUND_FRACTION

WHOLE = "total"
ROI_HEADS = ("box_head", "mask_head")
ROI_ALIGN = re.compile(r"(box|mask)_head(_\d+)?/MatMul")  # products outside of the heads' layers


@dataclasses.dataclass
class Costs:
    """What a part of a network costs for one image.

    Attributes:
        parameters: weights, those of frozen and of normalisation layers among them.
        multiply_adds: of convolutions and matrix products; half of what others call FLOPs.
        activations: values that convolutions and matrix products put out, a measure of the memory
            of training.
    """

    parameters: int = 0
    multiply_adds: int = 0
    activations: int = 0

    def __add__(self, other: "Costs") -> "Costs":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Costs(*(a + b for a, b in pairs))


def count_costs(model: keras.Model, image_size: Sequence[int]) -> dict[str, Costs]:
    """Counts what one image costs in inference, as the paper counts it (Table 1a, Figure 5).

    The model is traced for the size, not run. RoIAlign, NMS, resizing, normalisation and
    element-wise layers are not counted.

    Args:
        model: a `PanopticFPN`, or any Keras model of one `[B, H, W, 3]` input.
        image_size: (height, width) in pixels.

    Returns:
        Dict stage -> `Costs`, in the order in which an image passes; `"total"` comes last. A stage
        is a layer of the model ("fpn", "box_head"), of a ResNet a stage of it ("res4").

    Raises:
        ConfigError: if a side is not positive, or the model does not take the size.
    """
    if min(image_size) < 1:
        raise ConfigError(f"image size: must be positive. Received: {tuple(image_size)}")
    stages = _products(_traced(model, model, image_size))
    for variable in model.weights:
        if variable.dtype.startswith("float"):
            stage = _stage_of(variable, model)
            stages[stage] = stages.get(stage, Costs()) + Costs(math.prod(variable.shape))
    return {**stages, WHOLE: sum(stages.values(), Costs())}


def count_training(model: PanopticFPN) -> tuple[float, float]:
    """Counts the multiply-adds of a training step: forward, and backward where weights train.

    The gradients to the inputs and to the weights of a layer take as many as its forward pass
    each. The heads have all their rois, and the mask head all that may be foreground.

    Returns:
        (those for each pixel of the canvas, those for each image).
    """

    def forward(inputs: dict[str, tf.Tensor]) -> None:
        with tf.name_scope(model.name):  # as where the model is called
            run(inputs)

    def run(inputs: dict[str, tf.Tensor]) -> None:
        dense = model.dense_outputs(inputs[schema.IMAGES], inputs[schema.IMAGE_SIZES])
        if model.box_head is None:
            return
        features = {name: dense["features"][name] for name in ROI_LEVELS}
        count = model.config["rois_per_image"]
        foreground = int(count * ROI_FOREGROUND_FRACTION)
        rois = tf.zeros((1, count, 4))
        of_cascade = (dense["image_sizes"],) if model.config["cascade_ious"] else ()
        model.box_head(features, rois, *of_cascade)
        classes = tf.zeros((1, foreground), tf.int32)
        model.mask_head(features, rois[:, :foreground], classes, tf.constant([foreground]))

    side = 128  # any will do: dense layers take as many for each pixel of every canvas
    products = _products(_traced(model, forward, (side, side)))
    trained = {_stage_of(variable, model) for variable in model.trainable_variables}
    whole = {
        stage: costs.multiply_adds * (3 if stage in trained else 1)
        for stage, costs in products.items()
    }
    of_rois = sum(count for stage, count in whole.items() if stage in ROI_HEADS)
    return (sum(whole.values()) - of_rois) / side**2, float(of_rois)


def _products(operations: Sequence[tf.Operation]) -> dict[str, Costs]:
    """The multiply-adds and activations of each stage."""
    stages: dict[str, Costs] = {}
    for operation in operations:
        path = operation.name.partition("/")[2]
        multiply_adds = _multiply_adds(operation)
        if multiply_adds and not ROI_ALIGN.match(path):
            activations = math.prod(operation.outputs[0].shape)
            stage = _stage(path)
            stages[stage] = stages.get(stage, Costs()) + Costs(0, multiply_adds, activations)
    return stages


def _traced(
    model: keras.Model, function: Callable[[Any], Any], image_size: Sequence[int]
) -> list[tf.Operation]:
    """The operations of a function of the model's inputs."""
    image = tf.TensorSpec((1, *image_size, 3), tf.float32)
    inputs: tf.TensorSpec | dict[str, tf.TensorSpec] = image
    if isinstance(model, PanopticFPN):
        inputs = {schema.IMAGES: image, schema.IMAGE_SIZES: tf.TensorSpec((1, 2), tf.int32)}
    # As for XLA, so that every shape is known; nothing is compiled before it runs.
    function = tf.function(function, [inputs], autograph=False, jit_compile=True)
    try:
        graph = function.get_concrete_function().graph
    except (ValueError, tf.errors.OpError) as error:
        size = " x ".join(map(str, image_size))
        raise ConfigError(f"image size: the model does not take {size}: {error}") from None
    return graph.get_operations()


def _multiply_adds(operation: tf.Operation) -> int:
    """0 of an operation that is no convolution or matrix product."""
    if operation.type in ("Conv2D", "DepthwiseConv2dNative"):
        height, width, channels, _ = operation.inputs[1].shape
        depthwise = operation.type != "Conv2D"
        taps = height * width * (1 if depthwise else channels)
        return math.prod(operation.outputs[0].shape) * taps
    if operation.type == "Conv2DBackpropInput":  # a transposed convolution: its input is the last
        height, width, channels, _ = operation.inputs[1].shape
        return math.prod(operation.inputs[2].shape) * height * width * channels
    if operation.type == "MatMul":
        left = operation.inputs[0].shape
        shared = left[0] if operation.get_attr("transpose_a") else left[1]
        return math.prod(operation.outputs[0].shape) * shared
    if operation.type in ("BatchMatMul", "BatchMatMulV2"):
        left = operation.inputs[0].shape
        shared = left[-2] if operation.get_attr("adj_x") else left[-1]
        return math.prod(operation.outputs[0].shape) * shared
    return 0


def _stage_of(variable: keras.Variable, model: keras.Model) -> str:
    return _stage(variable.path.removeprefix(f"{model.name}/"))


def _stage(path: str) -> str:
    """Stage of a weight's or an operation's path: "backbone_1/res4_3_1/conv1_1/..." -> "res4"."""
    first, _, rest = path.partition("/")
    first = re.sub(r"(_\d+)+$", "", first)
    if first == "backbone" and re.match(r"(stem|res\d)(_\d+)*(/|$)", rest):
        return _stage(rest)
    return first
