"""A model repository for NVIDIA's Triton Inference Server, which runs a SavedModel or ONNX file."""

import io
import os
import pathlib
import shutil
import struct
import typing
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.export.output_path import check_folder, output_path, replacing_folder
from tf_panoptic_fpn.export.saved_model import export_saved_model
from tf_panoptic_fpn.export.served_graph import ERROR
from tf_panoptic_fpn.export.triton_onnx import HELD, IMAGES, OnnxModel
from tf_panoptic_fpn.inference.load_predictor import predictor_of
from tf_panoptic_fpn.inference.model_source import EXPORTED, GRAPHS, ONNX, OPENVINO, ModelSource
from tf_panoptic_fpn.inference.onnx_runtime import onnx_categories
from tf_panoptic_fpn.inference.predictor import Predictor
from tf_panoptic_fpn.workdir import Workdir

Spec = tuple[str, Sequence[int | None]]  # dtype and shape
MODEL = "panoptic_fpn"  # the name under which it is served
SIGNATURE = "with_thresholds"
LIMIT = "serve.max_pixels"
MAX_BATCH, INSTANCES = 8, 1
# Of what waits so many images are run together: they are run one by one, and the requests that
# wait meanwhile should not wait long.
PREFERRED_BATCH = 2
# A request waits no longer than 7 s and is answered within 10: in front of it and with it are two
# batches, which may take 1.5 s each. No more than 64 wait.
QUEUE_SECONDS, QUEUE_SIZE = 7, 64
WARM_UP_SIZE = (48, 64)  # enlarged as all are, and less than any limit on pixels
_TYPES = {
    "string": "TYPE_STRING",
    "bool": "TYPE_BOOL",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
}
_CONFIG = """\
# Written by `export --format=triton`, to be changed by hand.
name: "{model}"
backend: "python"
max_batch_size: {max_batch}

# Encoded images, JPEG or PNG, [B, 1]; of each, thresholds of the merge other than the exported.
input [
{inputs}
]
output [
{outputs}
]

# What waits is run together. A request that would be one too many, or has waited too long, is
# refused; it may ask for less time itself. It is answered after the timeout and two batches at the
# latest.
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {timeout}
    allow_timeout_override: true
    max_queue_size: {queue_size}
  }}
}}

# Copies of the model, each in a process of its own.
instance_group [{{ count: {instances} kind: KIND_AUTO }}]

# The server is ready when this has been answered.
model_warmup [{{
  name: "a picture"
  batch_size: 1
  inputs {{
    key: "image_bytes"
    value: {{ data_type: TYPE_STRING dims: [1] input_data_file: "picture" }}
  }}
}}]
"""
_MAX_PIXELS = """
# Of an image; one whose head says more is refused.
parameters {{ key: "max_pixels" value: {{ string_value: "{}" }} }}
"""


def export_triton(source: ModelSource, output: str | os.PathLike | None = None) -> pathlib.Path:
    """Writes a model repository: `panoptic_fpn/config.pbtxt`, and `panoptic_fpn/1` with the model.

    Args:
        source: `ModelSource`; a SavedModel or an ONNX file is copied, and run as it is. Of any
            other model a SavedModel is written.
        output: folder of the repository, by default `triton` of the run. An earlier export that is
            there is replaced when the new one is complete.

    Returns:
        The folder, a `pathlib.Path`.

    Raises:
        ConfigError: if the model cannot be loaded, is OpenVINO's, is exported already and was to be
            changed by the configuration, or the folder holds anything else.
        PanopticError: if what was exported differs from the model; the folder is as it was.
    """
    if source.kind == OPENVINO:
        raise ConfigError(f"{source.name}: is exported already; give the model it was made of")
    _check_fixed(source)
    folder = output_path(source, output, lambda run: run.path / "triton")
    check_folder(folder, _is_export)
    Workdir(folder.parent).create()
    with replacing_folder(folder, _is_export) as written:
        version = written / MODEL / "1"
        version.mkdir(parents=True)
        if source.kind == ONNX and source.path:
            config = _hold_onnx(source.path, version, source.load_config().serve.max_pixels)
        else:
            config = _hold_saved_model(source, version / "saved_model")
        (written / MODEL / "config.pbtxt").write_text(config, encoding="utf-8")
        _write_rest(written / MODEL)
    return folder


def _check_fixed(source: ModelSource) -> None:
    """Raises ConfigError for options that change nothing in what is copied."""
    if source.kind not in GRAPHS:
        return
    fixed = [o for o in source.overrides if source.kind != ONNX or not o.startswith(LIMIT)]
    if fixed or source.config or source.categories_file:
        raise ConfigError(
            f"{source.name}: is copied as it is: no --config, no --categories, and no --set "
            f"other than {LIMIT} of an ONNX file"
        )


def _hold_saved_model(source: ModelSource, folder: pathlib.Path) -> str:
    """Puts a SavedModel in a folder; returns the text of `config.pbtxt`."""
    if source.kind == EXPORTED and source.path:
        shutil.copytree(source.path, folder)
    else:
        predictor = typing.cast(Predictor, predictor_of(source))
        export_saved_model(predictor, folder, source.load_config(), check=True)
    loaded = tf.saved_model.load(str(folder))
    if SIGNATURE not in loaded.signatures:
        raise ConfigError(f"needs a SavedModel with the signature `{SIGNATURE}`: export it again")
    serve = loaded.signatures[SIGNATURE]
    inputs, outputs = serve.structured_input_signature[1], serve.structured_outputs
    return config_text(
        *(
            {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()}
            for specs in (inputs, outputs)
        )
    )


def _hold_onnx(file: pathlib.Path, folder: pathlib.Path, max_pixels: int) -> str:
    """Puts an ONNX file in a folder, with what of this package runs it there; returns as above."""
    onnx_categories(file)  # raises ConfigError if `export` did not write the file
    model = OnnxModel(file, max_pixels)
    shutil.copyfile(file, folder / "model.onnx")
    package = pathlib.Path(__file__).parent.parent
    for name in HELD:
        held = folder / package.name / name
        held.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, held)
        (held.parent / "__init__.py").touch()
    return config_text(model.inputs, model.outputs) + _MAX_PIXELS.format(max_pixels)


def _is_export(folder: pathlib.Path) -> bool:
    is_alone = all(entry.name == MODEL for entry in folder.iterdir())
    return is_alone and (folder / MODEL / "config.pbtxt").is_file()


def _write_rest(folder: pathlib.Path) -> None:
    """Writes what is beside the model and its configuration."""
    backend = pathlib.Path(__file__).with_name("triton_backend.py")
    shutil.copyfile(backend, folder / "1" / "model.py")
    (folder / "warmup").mkdir()
    picture = io.BytesIO()
    Image.fromarray(np.full((*WARM_UP_SIZE, 3), 128, np.uint8)).save(picture, "JPEG")
    # A string as Triton reads it from a file: its length before it.
    data = struct.pack("<I", len(picture.getvalue())) + picture.getvalue()
    (folder / "warmup" / "picture").write_bytes(data)


def config_text(inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> str:
    """Returns the text of `config.pbtxt`.

    Args:
        inputs, outputs: dicts name -> dtype and shape, with a leading B; None where a side varies.
            All inputs but `image_bytes` are optional; the output `error` becomes an error of
            Triton's.
    """
    return _CONFIG.format(
        model=MODEL,
        max_batch=MAX_BATCH,
        preferred=PREFERRED_BATCH,
        inputs=",\n".join(
            _tensor(name, spec, "" if name == IMAGES else " optional: true")
            for name, spec in sorted(inputs.items())
        ),
        outputs=",\n".join(
            _tensor(name, spec) for name, spec in sorted(outputs.items()) if name != ERROR
        ),
        timeout=QUEUE_SECONDS * 1_000_000,
        queue_size=QUEUE_SIZE,
        instances=INSTANCES,
    )


def _tensor(name: str, spec: Spec, more: str = "") -> str:
    """The entry of a tensor."""
    dtype, shape = spec
    dims = [-1 if side is None else side for side in shape[1:]]
    if not dims:  # Triton has none of B alone: it is sent as [B, 1]
        dims, more = [1], more or " reshape: { shape: [] }"
    return f'  {{ name: "{name}" data_type: {_TYPES[dtype]} dims: {dims}{more} }}'
