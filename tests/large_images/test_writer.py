"""What is written of a stitched map holds the map."""

import numpy as np
import pytest
import tifffile
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.large_images import writer
from tf_panoptic_fpn.large_images.disk_map import DiskMap
from tf_panoptic_fpn.large_images.reader import open_large_image
from tf_panoptic_fpn.large_images.stitching import StitchedMap
from tf_panoptic_fpn.large_images.writer import things_of, write_id_tiff

GEO = [
    (33550, 12, 3, (0.5, 0.5, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 4000.0, 9000.0, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32632), True),
]


@pytest.fixture
def stitched(tmp_path):
    """A thing of many pixels, whose columns go on in the next, one of one pixel, and stuff."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((40, 50)) < 0.6, 1, -1).astype(np.int32)
    labels[:, 10:14] = 1
    labels[39, 49] = 2
    disk = DiskMap(tmp_path / "labels", labels.shape)
    disk.write(0, 0, labels)
    segments = [
        {"id": 1, "category_id": 7, "area": 0, "bbox": [0, 0, 50, 40], "score": 0.75},
        {"id": 2, "category_id": 7, "area": 1, "bbox": [49, 39, 1, 1], "score": 0.5},
        {"id": 3, "category_id": 9, "area": 0, "bbox": [0, 0, 50, 40]},
    ]
    yield StitchedMap(disk, np.array([3, 0, 1, 2], np.int32), 1, segments), labels
    disk.close()


def test_a_tiff_of_ids(stitched, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "PIECE", 16)
    stitched, labels = stitched
    write_id_tiff(stitched, tmp_path / "ids.tif", GEO)
    with tifffile.TiffFile(tmp_path / "ids.tif") as file:
        page = file.pages[0]
        assert (page.dtype, page.tile) == (np.int32, (16, 16))
        assert page.geotiff_tags["ModelPixelScale"] == [0.5, 0.5, 0.0]
        np.testing.assert_array_equal(page.asarray(), np.where(labels == -1, 3, labels))


def test_the_place_on_the_earth_is_kept(stitched, tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", np.zeros((40, 50), np.uint8), extratags=GEO)
    with open_large_image(tmp_path / "in.tif") as image:
        write_id_tiff(stitched[0], tmp_path / "out.tif", image.geo_tags)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].geotiff_tags["ModelTiepoint"] == [0.0, 0.0, 0.0, 4000.0, 9000.0, 0.0]
        assert file.pages[0].geotiff_tags["ProjectedCSTypeGeoKey"] == 32632


@pytest.mark.parametrize("pixels", [1, 200, 1 << 24])
def test_instance_results_have_the_pixels_of_the_map(stitched, monkeypatch, pixels):
    monkeypatch.setattr(writer, "_STRIP_PIXELS", pixels)
    stitched, labels = stitched
    results = list(things_of(stitched, 5))
    assert [(r["image_id"], r["category_id"], r["score"]) for r in results] == [
        (5, 7, 0.75),
        (5, 7, 0.5),
    ]
    for label, result in enumerate(results, 1):
        mask = np.asfortranarray(labels == label).astype(np.uint8)
        expected = coco_mask.encode(mask)
        assert result["segmentation"] == {"size": [40, 50], "counts": expected["counts"].decode()}
