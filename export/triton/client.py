"""Segments an image on Triton's server, over gRPC.

python export/triton/client.py IMAGE OUTPUT.png [--url=localhost:8001]

Needs tritonclient alone (`pip install 'tritonclient[grpc]'`).
"""

import argparse
import pathlib
import sys

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

SEGMENTS = ("num_segments", "category_ids", "scores", "areas", "boxes")


def predict(client, images, names=("panoptic_png_bytes", *SEGMENTS)):
    """Runs encoded images.

    Args:
        client: `tritonclient.grpc.InferenceServerClient`.
        images: list of bytes, JPEG or PNG files.
        names: of the outputs that are wanted.

    Returns:
        dict name -> array with a leading axis of the images.
    """
    value = tritonclient.grpc.InferInput("image_bytes", [len(images), 1], "BYTES")
    value.set_data_from_numpy(np.array(images, object)[:, None])
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in names]
    answer = client.infer("panoptic_fpn", [value], outputs=outputs)
    return {name: answer.as_numpy(name) for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("image")
    parser.add_argument("output", help="the PNG of segment ids, R + 256 G + 65536 B")
    parser.add_argument("--url", default="localhost:8001")
    arguments = parser.parse_args()
    client = tritonclient.grpc.InferenceServerClient(arguments.url)
    try:
        answer = predict(client, [pathlib.Path(arguments.image).read_bytes()])
    except InferenceServerException as error:
        sys.exit(f"error: {arguments.image}: {error.message()}")
    pathlib.Path(arguments.output).write_bytes(answer["panoptic_png_bytes"][0, 0])
    for row in range(int(answer["num_segments"][0, 0])):
        number, score = answer["category_ids"][0, row], answer["scores"][0, row]
        print(f"{row + 1}: category {number}, score {score:.3f}, {answer['areas'][0, row]} pixels")


if __name__ == "__main__":
    main()
