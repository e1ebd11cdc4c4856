"""From a file of another framework to a `.keras` file."""

import pathlib

from tf_panoptic_fpn.weights.detectron2 import detectron2_source
from tf_panoptic_fpn.weights.files import read_checkpoint
from tf_panoptic_fpn.weights.infer import infer_model
from tf_panoptic_fpn.weights.keras_applications import keras_applications_source
from tf_panoptic_fpn.weights.mmdet import mmdet_source
from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.torchvision import torchvision_source
from tf_panoptic_fpn.weights.transfer import transfer

SOURCES = {
    "detectron2": detectron2_source,
    "torchvision": torchvision_source,
    "mmdet": mmdet_source,
    "keras_applications": keras_applications_source,
}


# What a file does not say about itself, and the loader of its source takes.
OPTIONS = {"detectron2": "channel_order", "torchvision": "norm_epsilon", "mmdet": "style"}


def convert_weights(source, input_path, output_path, model=None, options=None, **allowed):
    """Reads a checkpoint, prints the report and writes the model.

    Args:
        source: a key of `SOURCES`.
        input_path: the checkpoint.
        output_path: the `.keras` file to write.
        model: a `PanopticFPN`, by default the one that a checkpoint of a whole detector fits.
        options: dict of the source's own options, such as {"style": "caffe"} of mmdet.
        **allowed: `allow_missing`, `allow_left_over`, `skip` and `allow_config` of the loaders.

    Returns:
        The `ImportReport`.

    Raises:
        WeightsError: if the source, a path or the weights are not as they must be.
    """
    if source not in SOURCES:
        raise WeightsError(f"source must be one of {', '.join(SOURCES)}. Received: {source!r}")
    output = pathlib.Path(output_path)
    if output.suffix != ".keras":
        raise WeightsError(f"The output must end in .keras. Received: {output_path}")
    options = options or {}
    for name in set(options) - {OPTIONS.get(source)}:
        raise WeightsError(f"{source} has no option `{name}`")
    checkpoint = SOURCES[source](read_checkpoint(input_path), **options)
    if model is None:
        model = infer_model(checkpoint)
    report = transfer(model, checkpoint, **allowed)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        model.save(output)
    except OSError as error:
        raise WeightsError(f"{output}: cannot be written: {error}") from None
    return report
