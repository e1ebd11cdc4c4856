"""Sends images to TF Serving's gRPC interface and writes the panoptic PNGs.

pip install 'tf-panoptic-fpn[serving]'
python export/tf_serving/grpc_client.py --server=localhost:8500 --output=DIR IMAGE...
"""

import argparse
import pathlib
import sys

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

# The maps of large images are larger than the 4 MB that gRPC takes by default.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--server", default="localhost:8500", help="address of the server")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    arguments = parser.parse_args()

    request = predict_pb2.PredictRequest(output_filter=["panoptic_png_bytes", "error"])
    request.model_spec.name = "panoptic_fpn"
    files = [pathlib.Path(path).read_bytes() for path in arguments.images]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string))
    with grpc.insecure_channel(arguments.server, OPTIONS) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = service.Predict(request, timeout=60)
    pngs = answer.outputs["panoptic_png_bytes"].string_val
    errors = answer.outputs["error"].string_val
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    for path, png, error in zip(arguments.images, pngs, errors, strict=True):
        if error:
            print(f"{path}: {error.decode()}", file=sys.stderr)
            continue
        target = output / f"{pathlib.Path(path).stem}_panoptic.png"
        target.write_bytes(png)
        print(target)
    sys.exit(any(errors))


if __name__ == "__main__":
    main()
