"""Large images, with a predictor that labels the regions of a tile."""

import argparse
import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from regions_predictor import CATEGORIES, Regions, drawn

from tf_panoptic_fpn.commands import predict
from tf_panoptic_fpn.errors import ConfigError, PanopticError
from tf_panoptic_fpn.inference import tiles
from tf_panoptic_fpn.inference.tiles import predict_large_files, tile_labels
from tf_panoptic_fpn.large_images.reader import SLIDE_SUFFIXES
from tf_panoptic_fpn.large_images.stitching import Stitcher
from tf_panoptic_fpn.media.sources import find_inputs


def save(path, image):
    tifffile.imwrite(path, image, photometric="rgb", tile=(16, 16), compression="zlib")
    return path


def same_partition(a, b):
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})


def segments_by_category(segments):
    return sorted((s["category_id"], s["area"], s.get("score")) for s in segments)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([(16, 4), (24, 12), (64, 8)]),
    st.integers(0, 1000),
    st.sampled_from([0, 300]),
    st.integers(1, 3),
)
def test_tiles_give_what_the_whole_gives(
    tmp_path_factory, size, tile_sizes, seed, stuff_area, batch_size
):
    folder = tmp_path_factory.mktemp("tiles")
    image = drawn(size, seed, coarse=5)
    save(folder / "image.tif", image)
    predictor = Regions(stuff_area)
    tile, overlap = tile_sizes
    predictor.predict_large(
        folder / "image.tif", folder / "out", tile=tile, overlap=overlap, batch_size=batch_size
    )
    assert all(shape[0] <= batch_size for shape in predictor.batches)
    whole = predictor(image)
    ids = tifffile.imread(folder / "out/image_panoptic.tif")
    assert same_partition(ids, whole.panoptic_map)
    document = json.loads((folder / "out/image.json").read_text(encoding="utf-8"))
    assert (document["file_name"], document["height"], document["width"]) == ("image.tif", *size)
    assert segments_by_category(document["segments_info"]) == segments_by_category(whole.segments)
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["image.json", "image_panoptic.tif"]


def test_coco_results_of_large_images(tmp_path):
    Image.fromarray(drawn((40, 70), 1)).save(tmp_path / "a.png")
    (tmp_path / "deep").mkdir()
    save(tmp_path / "deep/b.tif", drawn((60, 50), 2))
    out = tmp_path / "out"
    inputs = find_inputs([tmp_path], out)
    predict_large_files(Regions(), inputs, out, 32, 8, write=("coco",))
    panoptic = json.loads((out / "panoptic.json").read_text(encoding="utf-8"))
    assert [i["file_name"] for i in panoptic["images"]] == ["a.png", "deep/b.tif"]
    assert panoptic["categories"] == CATEGORIES.to_coco()
    results = json.loads((out / "instances.json").read_text(encoding="utf-8"))
    for annotation in panoptic["annotations"]:
        ids = tifffile.imread(out / annotation["file_name"])
        areas = {s["id"]: s["area"] for s in annotation["segments_info"]}
        assert areas == dict(zip(*np.unique(ids[ids > 0], return_counts=True), strict=True))
        things = [s for s in annotation["segments_info"] if "score" in s]
        found = [r for r in results if r["image_id"] == annotation["image_id"]]
        for segment, result in zip(things, found, strict=True):
            mask = coco_mask.decode(result["segmentation"])
            np.testing.assert_array_equal(mask, ids == segment["id"])
            assert result["category_id"] == segment["category_id"]
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert names == ["a_panoptic.tif", "deep/b_panoptic.tif", "instances.json", "panoptic.json"]


def test_damaged_files_are_named_at_the_end_and_the_others_done(tmp_path):
    path = save(tmp_path / "a.tif", drawn((64, 64)))
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[9]
    content = bytearray(path.read_bytes())
    content[offset : offset + 30] = bytes(30)
    path.write_bytes(content)
    (tmp_path / "b.png").write_bytes(b"nothing")
    save(tmp_path / "c.tif", drawn((64, 64)))
    out = tmp_path / "out"
    with pytest.raises(PanopticError, match=r"a\.tif: .*decoded.*; .*b\.png: .*decoded"):
        predict_large_files(Regions(), find_inputs([tmp_path], out), out, 32, 8)
    assert sorted(p.name for p in out.iterdir()) == ["c.json", "c_panoptic.tif"]


def test_a_full_disk_ends_it_in_one_line(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Stitcher, "add", no_space)
    out = tmp_path / "out"
    inputs = find_inputs([save(tmp_path / "a.tif", drawn((64, 64)))], out)
    with pytest.raises(PanopticError, match="out: cannot be written: No space left on device"):
        predict_large_files(Regions(), inputs, out, 32, 8)
    assert [*out.iterdir()] == []


def test_images_that_cocos_results_cannot_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "_COCO_PIXELS", 64 * 64)
    out = tmp_path / "out"
    inputs = find_inputs([save(tmp_path / "a.tif", drawn((64, 64)))], out)
    with pytest.raises(PanopticError, match=r"a\.tif: COCO's results .*Received: 64x64"):
        predict_large_files(Regions(), inputs, out, 32, 8, write=("coco",))
    predict_large_files(Regions(), inputs, out, 32, 8, write=("tif",))


def test_stuff_of_a_branch_that_tells_things_apart():
    """The semantic classes of stuff follow those of the two things."""
    predictor = Regions(stuff_area=1000)
    predictor.categories = CATEGORIES.with_semantic_things("all")
    result = predictor(drawn((16, 16)))
    semantic = result.semantic_map
    result.semantic_map = np.where(semantic > 0, semantic + 1, 0)
    labels, category_ids, scores = tile_labels(result)
    np.testing.assert_array_equal(np.maximum(-labels, 0), semantic)
    np.testing.assert_array_equal(np.maximum(labels, 0), result.panoptic_map)
    assert category_ids == [segment["category_id"] for segment in result.segments]
    assert scores == [0.75] * len(category_ids)


def command(*arguments):
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    predict.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile=64", "--overlap=64"], "a tile of 64 and an overlap of 64"),
        (["--tile=15"], "a tile of 15 and an overlap of 1"),
        (["--overlap=8"], "--overlap is that of tiles: give --tile. Received: 8"),
        (["--tile=64", "--write=tif,png"], "--write with --tile takes tif, json, coco. .*: png"),
        (["--write=tif"], "--write takes overlay, png, json, coco, labelme. Received: tif"),
    ],
)
def test_options_of_tiles(options, message):
    with pytest.raises(ConfigError, match=message):
        command("--model=absent", "--output=out", *options, "image.tif")


def test_slides_are_images_of_a_folder(tmp_path):
    for name in ("a.svs", "b.tif"):
        save(tmp_path / name, drawn((20, 20)))
    for suffixes, stems in ((SLIDE_SUFFIXES, ["a", "b"]), ((), ["b"])):
        inputs = find_inputs([tmp_path], tmp_path / "out", suffixes)
        assert [entry.stem for entry in inputs] == stems


def test_a_video_has_no_tiles(tmp_path):
    (tmp_path / "clip.mp4").touch()
    inputs = find_inputs([tmp_path / "clip.mp4"], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"clip\.mp4: a video is not segmented in tiles"):
        predict_large_files(Regions(), inputs, tmp_path / "out")
