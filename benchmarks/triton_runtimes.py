"""Seconds that the backends of exports for Triton take for a request, in one process and in turn.

python benchmarks/triton_runtimes.py --image=IMAGE [--images=1] [--rounds=12] REPOSITORY...

Each REPOSITORY is what `export --format=triton` wrote, of a SavedModel or of an ONNX file. What the
server itself adds, between a client and its backend, is not in it.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import re
import sys
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import measure
import numpy as np


class Tensor:
    def __init__(self, name, value):
        self.name, self._value = name, value

    def as_numpy(self):
        return self._value


class Request(dict):
    """Tensors by name, which asks for all outputs."""

    def __init__(self, tensors, outputs):
        super().__init__(tensors)
        self.requested_output_names = lambda: outputs


def stand_in():
    """What the model of a backend needs of Triton's module."""
    return types.SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: request.get(name),
        Tensor=Tensor,
        InferenceResponse=lambda tensors=(), error=None: error or tensors,
        TritonError=types.SimpleNamespace(INVALID_ARG=0),
    )


def open_model(repository):
    """The backend's model of a repository, and the names of its outputs."""
    (folder,) = pathlib.Path(repository).glob("panoptic_fpn*")
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    limit = re.search(r'"max_pixels" value: ({.*?})', text)
    parameters = {"max_pixels": {"string_value": limit[1].split('"')[1]}} if limit else {}
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    config = json.dumps({"parameters": parameters})
    place = {"model_repository": str(folder), "model_version": "1", "model_config": config}
    model.initialize(place)
    return model, re.findall(r'name: "(\w+)"', text.partition("output [")[2].partition("\n]")[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("repositories", nargs="+", metavar="REPOSITORY")
    parser.add_argument("--image", required=True)
    parser.add_argument("--images", type=int, default=1, help="of a request")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    sys.modules["triton_python_backend_utils"] = stand_in()
    models = {path: open_model(path) for path in arguments.repositories}
    line = {"benchmark": "triton_runtimes", **measure.machine("tensorflow", "onnxruntime")}
    data = np.array([[pathlib.Path(arguments.image).read_bytes()]] * arguments.images, object)
    stages = measure.Stages()
    for round_ in range(arguments.rounds + 1):
        for path, (model, outputs) in models.items():
            request = Request({"image_bytes": Tensor("image_bytes", data)}, outputs)
            if round_ == 0:  # warms up
                model.execute([request])
            else:
                (answer,) = stages.run(path, model.execute, [request])
    line |= {"images": arguments.images, "outputs": len(answer)}
    measure.report(line, stages)


if __name__ == "__main__":
    main()
