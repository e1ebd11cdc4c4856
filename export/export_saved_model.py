"""Exports a model for TF Serving; the same as `tf-panoptic-fpn export`.

python export/export_saved_model.py --workdir=DIR --output=DIR
"""

from tf_panoptic_fpn.__main__ import main

if __name__ == "__main__":
    main("export")
