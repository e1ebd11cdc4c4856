"""Sends images to TF Serving's REST interface and writes the panoptic PNGs.

python export/tf_serving/client.py --url=http://localhost:8501 --output=DIR IMAGE...
"""

import argparse
import base64
import json
import pathlib
import sys
import urllib.request


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--url", default="http://localhost:8501", help="of the server")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    arguments = parser.parse_args()

    encoded = [base64.b64encode(pathlib.Path(path).read_bytes()) for path in arguments.images]
    request = urllib.request.Request(
        f"{arguments.url}/v1/models/panoptic_fpn:predict",
        json.dumps({"inputs": {"image_bytes": [{"b64": e.decode()} for e in encoded]}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        outputs = json.load(response)["outputs"]
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    rows = zip(arguments.images, outputs["panoptic_png_bytes"], outputs["error"], strict=True)
    for path, png, error in rows:
        if error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        target = output / f"{pathlib.Path(path).stem}_panoptic.png"
        target.write_bytes(base64.b64decode(png["b64"]))
        print(target)
    sys.exit(any(outputs["error"]))


if __name__ == "__main__":
    main()
