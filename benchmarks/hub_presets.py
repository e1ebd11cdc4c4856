"""Small networks of KerasHub, one a family: the arguments of its classes."""

from tf_panoptic_fpn.backbones.keras_hub import ARCHITECTURES, SWIN

VIT = {"num_layers": 2, "hidden_dim": 64, "num_heads": 2, "intermediate_dim": 128}
HUB = {
    "ResNetBackbone": ARCHITECTURES["resnet_18_imagenet"][1],
    "DenseNetBackbone": {"stackwise_num_repeats": [2, 2, 2, 2], "growth_rate": 16},
    "CSPNetBackbone": {
        "stem_filters": 16,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 1, 1, 1, 1],
        "stackwise_strides": [2, 2, 2, 2, 2],
        "stackwise_num_filters": [16, 32, 64, 64, 64],
        "block_type": "dark_block",
        "stage_type": "csp",
        "stem_padding": "same",
        "block_ratio": [0.5],
    },
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0] * 5,
        "stackwise_depth_coefficients": [1.0] * 5,
        "stackwise_kernel_sizes": [3, 3, 5, 3, 5],
        "stackwise_num_repeats": [1, 1, 1, 1, 1],
        "stackwise_input_filters": [16, 16, 24, 32, 48],
        "stackwise_output_filters": [16, 24, 32, 48, 64],
        "stackwise_expansion_ratios": [1, 4, 4, 4, 4],
        "stackwise_strides": [1, 2, 2, 2, 2],
        "stackwise_squeeze_and_excite_ratios": [0.25] * 5,
        "stackwise_block_types": ["v1"] * 5,
        "stackwise_force_input_filters": [0] * 5,
        "stackwise_nores_option": [False] * 5,
        "num_features": 64,
    },
    "MiTBackbone": {
        **ARCHITECTURES["mit_b0_ade20k_512"][1],
        "layerwise_depths": [1, 1, 1, 1],
        "max_drop_path_rate": 0.0,
    },
    SWIN: {"embed_dim": 32, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": 4},
    "DINOV2Backbone": {**VIT, "patch_size": 14},
    "DINOV3Backbone": {**VIT, "patch_size": 16},
}
SQUARES = {"MiTBackbone": 224, SWIN: 256, "DINOV2Backbone": 224, "DINOV3Backbone": 224}


def make_hub_backbone(name):
    """A `keras_hub.models.Backbone`, without weights."""
    import keras_hub

    arguments = dict(HUB[name])
    if name in SQUARES:
        arguments["image_shape"] = (SQUARES[name], SQUARES[name], 3)
    return getattr(keras_hub.models, name)(**arguments)
