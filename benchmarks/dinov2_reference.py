"""How far the tokens of a DINOv2-small from a seed lie from those of `transformers`, at full size.

pip install transformers torch
python benchmarks/dinov2_reference.py [--side=518]

The weights go through KerasHub's own converter. With a side other than 518 the position embeddings
are interpolated: here and in KerasHub with Keys' a = -0.5, in `transformers` with -0.75.
"""

import argparse
import json

import numpy as np

SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
NAMES = {  # those of transformers 5, which the converter does not know
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


class Loader:
    """What the converter reads, of a model's weights by name."""

    def __init__(self, state):
        self.state = state

    def port_weight(self, keras_variable, hf_weight_key, hook_fn=None):
        name = hf_weight_key
        if name not in self.state:
            for old, new in NAMES.items():
                name = name.replace(old, new)
        value = self.state[name].numpy()
        keras_variable.assign(hook_fn(value, list(keras_variable.shape)) if hook_fn else value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--side", type=int, default=518, help="of the image, a multiple of 14")
    side = parser.parse_args().side
    import torch
    import transformers
    from keras_hub.models import DINOV2Backbone
    from keras_hub.src.utils.transformers import convert_dinov2

    from tf_panoptic_fpn.backbones.keras_hub import from_instance

    torch.manual_seed(0)
    config = transformers.Dinov2Config(image_size=518, patch_size=14, **SMALL)
    theirs = transformers.Dinov2Model(config).eval()
    network = DINOV2Backbone(**convert_dinov2.convert_backbone_config(config.to_dict()))
    convert_dinov2.convert_weights(network, Loader(theirs.state_dict()), config.to_dict())
    image = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype("float32")
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    expected = outputs.last_hidden_state.numpy()
    received = from_instance(network, "frozen_affine", 0, 0.0).tokens(image)
    line = {
        "benchmark": "dinov2_reference",
        "side": side,
        "tokens": list(expected.shape),
        "largest": float(np.abs(expected).max()),
        "largest_difference": float(np.abs(np.asarray(received) - expected).max()),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
