"""What the command line does with a finished run: evaluate, predict, export."""

import json
import pathlib
import sys

from PIL import Image
from tqdm import tqdm

from tf_panoptic_fpn import build, schema, serving
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.data.images import read_image, write_panoptic_png
from tf_panoptic_fpn.data.pipeline import evaluation_samples
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.evaluation.evaluator import evaluate, segments_info
from tf_panoptic_fpn.visualize import draw_panoptic
from tf_panoptic_fpn.workdir import Workdir


def load_predictor(workdir, overrides=()):
    """Loads the `Predictor` of a finished run.

    Args:
        workdir: folder of the run.
        overrides: `a.b=value` strings on its configuration.

    Returns:
        The `Predictor` and the run's `Config`.

    Raises:
        ConfigError: if the folder holds no finished run.
    """
    files = Workdir(workdir)
    files.check_trained()
    config = load_config(files.config, overrides)
    model = build.load_model(files.model)
    categories = CategoryTable.load(files.categories)
    return serving.Predictor(model, categories, config.merge, config.data.validation), config


def evaluate_run(workdir, output=None, overrides=()):
    """Evaluates a finished run on its validation split.

    Writes `results.json` and `predictions/` in `output`.

    Args:
        workdir: folder of the run.
        output: folder, by default the workdir.
        overrides: `a.b=value` strings, e.g. `merge.stuff_area=512` or another data set's paths.

    Returns:
        The results, see `evaluation.evaluator.evaluate`.
    """
    files = Workdir(output or workdir)
    files.create()
    predictor, config = load_predictor(workdir, overrides)
    split = build.load_split(config.data, "validation")
    build.check_categories(config, split.categories, config.data.validation.panoptic_json)
    results = evaluate(
        predictor,
        tqdm(evaluation_samples(split), "evaluate", len(split.images), unit="image"),
        split.categories,
        files.predictions,
        semantic_things=config.model.semantic_things,
    )
    files.results.write_text(json.dumps(results, indent=1))
    return results


def export_run(workdir, output=None):
    """Exports a finished run; returns the folder: `output` or `workdir/saved_model/1`."""
    folder = pathlib.Path(output) if output else Workdir(workdir).saved_model
    Workdir(folder.parent).create()
    predictor, _ = load_predictor(workdir)
    serving.export_saved_model(predictor, folder)
    return folder


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


def exit_on_error(main):
    """Runs `main()`; an error that the user can mend becomes one line and exit status 2."""
    try:
        main()
    except PanopticError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
