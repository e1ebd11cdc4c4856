"""Published models, by name."""

import dataclasses
import json
import os
import pathlib
from typing import TYPE_CHECKING

from tf_panoptic_fpn.weight_files.checkpoint_files import read_checkpoint
from tf_panoptic_fpn.weight_files.download import default_cache_dir, download
from tf_panoptic_fpn.weights.detectron2 import detectron2_source
from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.source import Source

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

BASE_URL = "https://dl.fbaipublicfiles.com/detectron2/"
LICENCE = "CC BY-SA 3.0"


@dataclasses.dataclass(frozen=True)
class PublishedModel:
    """A checkpoint of detectron2's model zoo.

    Attributes:
        path: of the file, below `BASE_URL`.
        metrics: figures that its authors publish for COCO val2017.
        dataset: what it was trained on, "coco" or "cityscapes": the categories of its classes.
        licence: of the weights.
    """

    path: str
    metrics: dict[str, float]
    dataset: str = "coco"
    licence: str = LICENCE


def _panoptic(name: str, file: str, box_ap: float, mask_ap: float, pq: float) -> PublishedModel:
    metrics = {"PQ": pq, "box AP": box_ap, "mask AP": mask_ap}
    return PublishedModel(f"COCO-PanopticSegmentation/{name}/{file}", metrics)


def _mask_rcnn(name: str, file: str, box_ap: float, mask_ap: float) -> PublishedModel:
    metrics = {"box AP": box_ap, "mask AP": mask_ap}
    return PublishedModel(f"COCO-InstanceSegmentation/{name}/{file}", metrics)


# Files and figures: detectron2's MODEL_ZOO.md.
MODEL_ZOO: dict[str, PublishedModel] = {
    "detectron2/panoptic_fpn_R_50_1x": _panoptic(
        "panoptic_fpn_R_50_1x", "139514544/model_final_dbfeb4.pkl", 37.6, 34.7, 39.4
    ),
    "detectron2/panoptic_fpn_R_50_3x": _panoptic(
        "panoptic_fpn_R_50_3x", "139514569/model_final_c10459.pkl", 40.0, 36.5, 41.5
    ),
    "detectron2/panoptic_fpn_R_101_3x": _panoptic(
        "panoptic_fpn_R_101_3x", "139514519/model_final_cafdb1.pkl", 42.4, 38.5, 43.0
    ),
    "detectron2/panoptic_fpn_R_101_dconv_cascade_gn_3x": PublishedModel(
        "Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x/139797668/model_final_be35db.pkl",
        {"PQ": 46.1, "box AP": 47.4, "mask AP": 41.3},
    ),
    "detectron2/mask_rcnn_R_50_FPN_1x": _mask_rcnn(
        "mask_rcnn_R_50_FPN_1x", "137260431/model_final_a54504.pkl", 38.6, 35.2
    ),
    "detectron2/mask_rcnn_R_50_FPN_3x": _mask_rcnn(
        "mask_rcnn_R_50_FPN_3x", "137849600/model_final_f10217.pkl", 41.0, 37.2
    ),
    "detectron2/mask_rcnn_R_101_FPN_3x": _mask_rcnn(
        "mask_rcnn_R_101_FPN_3x", "138205316/model_final_a3ec72.pkl", 42.9, 38.6
    ),
    "detectron2/mask_rcnn_X_101_32x8d_FPN_3x": _mask_rcnn(
        "mask_rcnn_X_101_32x8d_FPN_3x", "139653917/model_final_2d9806.pkl", 44.3, 39.5
    ),
}


def from_pretrained(
    name: str, cache_dir: str | os.PathLike | None = None, base_url: str = BASE_URL
) -> "PanopticFPN":
    """Downloads a published model once and returns it as a `PanopticFPN`.

    Beside the file, `NAME.json` records where it came from, its licence and its published figures.

    Args:
        name: a key of `MODEL_ZOO`, such as "detectron2/panoptic_fpn_R_50_1x".
        cache_dir: folder to keep the file in, by default `~/.cache/tf_panoptic_fpn`.
        base_url: where the files are, with a slash at the end; another one for a mirror.

    Returns:
        A `PanopticFPN` with the published weights.

    Raises:
        WeightsError: if the name is unknown, or the file cannot be had or does not fit.
    """
    source = published_source(name, cache_dir, base_url)
    from tf_panoptic_fpn.weights.infer_model import infer_model
    from tf_panoptic_fpn.weights.set_weights import set_weights

    model = infer_model(source)
    set_weights(model, source)
    return model


def published_source(
    name: str, cache_dir: str | os.PathLike | None = None, base_url: str = BASE_URL
) -> Source:
    """Downloads a published model once, and its record; returns it as a `Source`.

    Arguments and errors are those of `from_pretrained`.
    """
    if name not in MODEL_ZOO:
        raise WeightsError(f"No published model {name!r}. Known: {', '.join(MODEL_ZOO)}")
    published = MODEL_ZOO[name]
    url = base_url.rstrip("/") + "/" + published.path
    folder = pathlib.Path(cache_dir or default_cache_dir()) / name
    path = download(url, folder)
    record_path = path.with_suffix(".json")
    if not record_path.exists():  # the folder may be one that others filled and only they write to
        record = {"name": name, "url": url, **dataclasses.asdict(published)}
        del record["path"]
        unfinished = record_path.with_name(f"{record_path.name}.part")
        unfinished.write_text(json.dumps(record, indent=1), encoding="utf-8")
        unfinished.replace(record_path)
    source = detectron2_source(read_checkpoint(path))
    figures = ", ".join(f"{key} {value}" for key, value in published.metrics.items())
    source.notes.append(f"{name}: licence {published.licence}; published on COCO: {figures}.")
    return source
