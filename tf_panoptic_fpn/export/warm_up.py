"""Requests that TF Serving sends a model before the first user does."""

import pathlib

import numpy as np
import tensorflow as tf

WARM_UP = "assets.extra/tf_serving_warmup_requests"  # where TF Serving looks


def write_warm_up(folder: pathlib.Path, model_name: str, signatures: list[str]) -> None:
    """Writes a request of one grey image for each signature that takes image bytes alone.

    Args:
        folder: of the SavedModel.
        model_name: str; TF Serving ignores it here.
        signatures: their names.

    Reference: `PredictionLog` of tensorflow/serving, apis/prediction_log.proto.
    """
    image = tf.io.encode_jpeg(np.full((480, 640, 3), 128, np.uint8)).numpy()
    path = folder / WARM_UP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            writer.write(prediction_log(model_name, signature, image))


def prediction_log(model_name: str, signature: str, image: bytes) -> bytes:
    """A `PredictionLog` of a `PredictRequest` with one image as `image_bytes`, serialised.

    The package that has these messages, tensorflow-serving-api, is not needed to export.
    """
    tensor = tf.make_tensor_proto([image], tf.string).SerializeToString()
    spec = _field(1, model_name.encode()) + _field(3, signature.encode())  # ModelSpec
    entry = _field(1, b"image_bytes") + _field(2, tensor)  # of the map `inputs`
    request = _field(1, spec) + _field(2, entry)
    return _field(6, _field(1, request))  # PredictionLog.predict_log, PredictLog.request


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, a text or a message in the wire format of protocol buffers."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size % 128 + 128)
        size //= 128
    return bytes([number * 8 + 2, *length, size]) + content
