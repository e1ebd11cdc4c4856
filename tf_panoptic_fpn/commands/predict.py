"""`predict`: segments image files."""

import json
import pathlib

from PIL import Image
from tqdm import tqdm

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.images import read_image, write_panoptic_png
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.evaluation.evaluator import segments_info
from tf_panoptic_fpn.runs import load_predictor
from tf_panoptic_fpn.visualize import draw_panoptic
from tf_panoptic_fpn.workdir import Workdir

SUMMARY = "segment image files"


def add_arguments(parser):
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run(arguments):
    predict_files(arguments.workdir, arguments.output, arguments.images)


def predict_files(workdir, output, images):
    """Segments image files.

    Writes for each image `STEM_panoptic.png` (ids, COCO's RGB code), `STEM.json` (the segments)
    and `STEM_overlay.png`. An image that cannot be read is reported and the others are done.

    Args:
        workdir: folder of the run.
        output: folder to write to.
        images: image files.

    Raises:
        PanopticError: two images share a stem, or, when the others are done, some were not read.
    """
    stems = [pathlib.Path(image).stem for image in images]
    for stem in stems:
        if stems.count(stem) > 1:
            raise PanopticError(f"Output is named after the image. Received {stem!r} twice")
    folder = Workdir(output)
    folder.create()
    predictor, _ = load_predictor(workdir)
    failed = []
    for path, stem in zip(tqdm(images, unit="image", disable=len(images) < 2), stems, strict=True):
        try:
            image = read_image(path)
        except PanopticError as error:
            failed.append(str(error))
            continue
        prediction = predictor(image)
        segments = segments_info(prediction)
        ids = prediction[schema.PANOPTIC_MAP]
        write_panoptic_png(ids, folder.path / f"{stem}_panoptic.png")
        document = {
            "file_name": pathlib.Path(path).name,
            "height": image.shape[0],
            "width": image.shape[1],
            "segments_info": segments,
        }
        (folder.path / f"{stem}.json").write_text(json.dumps(document, indent=1))
        overlay = draw_panoptic(image, ids, segments, predictor.categories)
        Image.fromarray(overlay).save(folder.path / f"{stem}_overlay.png")
    if failed:
        raise PanopticError("; ".join(failed))
