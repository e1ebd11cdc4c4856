"""Weights of a backbone of Keras Applications or KerasHub: published, of a file or of a folder."""

import pathlib

from tf_panoptic_fpn.weights.source import BOTTOM_UP, Source

PRETRAINED = "pretrained"  # in place of a file: those that Keras publishes for the backbone
APPLICATIONS, HUB = "keras_applications/", "keras_hub/"
NEW = f"{BOTTOM_UP}.pyramid."  # of the backbone, but of no checkpoint


def is_pretrained(name: str, backbone: object) -> bool:
    """Whether `train.initial_weights` is for `pretrained_source`, with a backbone of some name."""
    if name == PRETRAINED:
        return True
    if not isinstance(backbone, str):
        return False
    is_file = backbone.startswith(APPLICATIONS) and name.endswith(".h5")
    return is_file or (
        backbone.startswith(HUB)
        and pathlib.Path(name, "config.json").is_file()
        and not pathlib.Path(name, "config.yaml").is_file()
    )


def pretrained_source(name: str, backbone: str) -> Source:
    """A backbone's weights as a `Source`.

    Args:
        name: "pretrained"; a file that Keras wrote for the network without its classifier; or the
            folder of a preset of KerasHub.
        backbone: "keras_applications/NAME" or "keras_hub/PRESET_OR_FOLDER".

    Raises:
        ConfigError: if the backbone is of neither, or KerasHub is not installed.
        WeightsError: if the weights cannot be had or do not fit.
    """
    # Keras takes its seconds to import.
    from keras import ops

    from tf_panoptic_fpn.backbones.make_backbone import pretrained_backbone
    from tf_panoptic_fpn.weights.detectron2_layout import backbone_names

    layer = pretrained_backbone(backbone, "" if name == PRETRAINED else name)
    named = backbone_names(layer)
    arrays = {n: ops.convert_to_numpy(v) for n, v in named.items() if not n.startswith(NEW)}
    source = Source(arrays, {n: (named[n].path,) for n in arrays})
    source.expects = {"pixel_mean": layer.pixel_mean, "pixel_std": layer.pixel_std}
    return source
