"""Exports a model as an ONNX file; the same as `tf-panoptic-fpn export --format=onnx`.

python export/export_onnx.py --workdir=DIR --output=FILE.onnx
"""

import sys

from tf_panoptic_fpn.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "--format=onnx")
    main("export")
