"""What an evaluation leaves for other programs: COCO's server and Cityscapes' scripts."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.evaluation.cityscapes_results import read_instance_results, write_cityscapes
from tf_panoptic_fpn.evaluation.result_files import write_submission
from tf_panoptic_fpn.evaluation.threshold_sweep import sweep_overrides
from tf_panoptic_fpn.results.result import Result

ROAD, SKY, PERSON, CAR = 7, 23, 24, 26
TABLE = CategoryTable(
    (
        Category(ROAD, "road", False),
        Category(SKY, "sky", False),
        Category(PERSON, "person", True),
        Category(CAR, "car", True),
    )
)


def test_a_submission_holds_what_the_server_wants(tmp_path):
    (tmp_path / "panoptic").mkdir()
    for name in ("a.png", "stale.png"):
        (tmp_path / "panoptic" / name).write_bytes(name.encode())
    annotations = [{"image_id": 3, "file_name": "a.png", "segments_info": []}]
    document = {"images": [{"id": 3}], "annotations": annotations, "categories": []}
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    (tmp_path / "instances.json").write_text('[{"image_id": 3}]')
    panoptic, detections = write_submission(tmp_path, "test-dev2017_mine")
    assert panoptic.name == "panoptic_test-dev2017_mine_results.zip"
    assert detections.name == "detections_test-dev2017_mine_results.zip"
    stem = "panoptic_test-dev2017_mine_results"
    with zipfile.ZipFile(panoptic) as archive:
        assert archive.namelist() == [f"{stem}.json", f"{stem}/a.png"]
        assert json.loads(archive.read(f"{stem}.json")) == {"annotations": annotations}
        assert archive.read(f"{stem}/a.png") == b"a.png"
    with zipfile.ZipFile(detections) as archive:
        (name,) = archive.namelist()
        assert name == "detections_test-dev2017_mine_results.json"
        assert json.loads(archive.read(name)) == [{"image_id": 3}]


@pytest.mark.parametrize("semantic_things", ["other", "all"])
def test_cityscapes_files(tmp_path, semantic_things):
    ids = np.array([[1, 1, 2, 0], [3, 3, 2, 0]], np.int32)
    segments = [
        {"id": 1, "category_id": SKY},
        {"id": 2, "category_id": CAR},
        {"id": 3, "category_id": ROAD},
    ]
    if semantic_things == "other":  # other, road, sky
        semantic = np.array([[2, 2, 0, 0], [1, 1, 2, 0]])
        expected = [[SKY, SKY, CAR, 0], [ROAD, ROAD, SKY, 0]]
    else:  # person, car, road, sky
        semantic = np.array([[3, 3, 1, 0], [2, 2, 3, 1]])
        expected = [[SKY, SKY, CAR, PERSON], [ROAD, ROAD, SKY, CAR]]
    masks = np.zeros((2, 2, 4), np.uint8)
    masks[0, :, 2] = 1
    masks[1, 1, 3] = 1
    results = [
        {
            "category_id": category_id,
            "score": score,
            "segmentation": mask_api.encode(np.asfortranarray(mask)),
        }
        for category_id, score, mask in zip((CAR, PERSON), (0.1 + 0.2, 0.25), masks, strict=True)
    ]
    result = Result(ids, segments, TABLE, instances=results, semantic_map=semantic)
    name = "bonn/bonn_000001_000019_leftImg8bit.png"
    write_cityscapes(tmp_path, name, result, TABLE.with_semantic_things(semantic_things))
    labels = Image.open(tmp_path / "semantic" / "bonn_000001_000019_pred_labelIds.png")
    assert labels.mode == "L"
    np.testing.assert_array_equal(np.asarray(labels), expected)
    path = tmp_path / "instances" / "bonn_000001_000019_pred.txt"
    read = list(read_instance_results(path, tmp_path))
    assert [(label_id, score) for _, label_id, score in read] == [(CAR, 0.1 + 0.2), (PERSON, 0.25)]
    for (mask, _, _), expected_mask in zip(read, masks, strict=True):
        np.testing.assert_array_equal(mask, expected_mask)


def test_cityscapes_files_of_models_of_one_task(tmp_path):
    """Without a semantic map labels are those of the panoptic map; without instances no text."""
    ids = np.array([[0, 5]], np.int32)
    segments = [{"id": 5, "category_id": CAR}]
    result = Result(ids, segments, TABLE)
    write_cityscapes(tmp_path, "x_leftImg8bit.png", result, TABLE)
    labels = Image.open(tmp_path / "semantic" / "x_pred_labelIds.png")
    np.testing.assert_array_equal(np.asarray(labels), [[0, CAR]])
    assert not (tmp_path / "instances").exists()


def test_sweeps_are_products():
    flags = ["merge.score_threshold=0.3,0.5", "merge.stuff_area=64,128,256"]
    assert sweep_overrides([]) == []
    settings = sweep_overrides(flags)
    assert len(settings) == 6
    assert settings[0] == ["merge.score_threshold=0.3", "merge.stuff_area=64"]
    assert settings[-1] == ["merge.score_threshold=0.5", "merge.stuff_area=256"]
    assert sweep_overrides(flags[:1]) == [["merge.score_threshold=0.3"], [flags[0][:22] + "0.5"]]
    for wrong in (["model.nms_iou=0.3"], ["merge.stuff_area"], ["merge.stuff_area=1,,2"]):
        with pytest.raises(ConfigError, match=r"--sweep takes merge\.KEY=VALUE"):
            sweep_overrides(wrong)
    with pytest.raises(ConfigError, match=r"takes merge\.stuff_area once"):
        sweep_overrides(["merge.stuff_area=1", "merge.stuff_area=2"])
