"""`predict`: which files it takes, and what it writes."""

import argparse
import json
import struct

import av
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from threshold_predictor import CATEGORIES, Threshold, outputs_of, picture

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.commands import predict
from tf_panoptic_fpn.errors import ConfigError, DamagedFileError, DataError, PanopticError
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.inference import files as result_files
from tf_panoptic_fpn.inference.files import predict_files
from tf_panoptic_fpn.media.sources import find_inputs
from tf_panoptic_fpn.media.video import VideoReader, VideoWriter
from tf_panoptic_fpn.results.result import segments_info
from tf_panoptic_fpn.visualize import draw_panoptic


def save(path, size=(48, 64), bright=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(size, bright)).save(path)
    return path


def save_video(path, num_frames=10, size=(48, 64), rate=12):
    with VideoWriter(path, rate) as video:
        for number in range(num_frames):
            video.write(picture(size, 150 + number % 10 * 10))
    return path


def stems(inputs):
    return [entry.stem for entry in inputs]


def test_files_folders_and_patterns(tmp_path):
    for name in ("a/x.jpg", "a/deep/y.PNG", "a/notes.txt", "a/deep/clip.mp4", "b/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    out = tmp_path / "out"
    folder = find_inputs([tmp_path / "a"], out)
    assert stems(folder) == ["deep/clip", "deep/y", "x"]
    assert [entry.is_video for entry in folder] == [True, False, False]
    assert [entry.file_name for entry in folder] == ["deep/clip.mp4", "deep/y.PNG", "x.jpg"]
    assert stems(find_inputs([f"{tmp_path}/*/x.jpg"], out)) == ["a/x", "b/x"]
    assert stems(find_inputs([f"{tmp_path}/a/**/*.PNG"], out)) == ["deep/y"]
    assert stems(find_inputs([tmp_path / "a" / "deep" / "y.PNG"], out)) == ["y"]


def test_outputs_never_share_a_name(tmp_path):
    files = [save(tmp_path / name) for name in ("a/x.jpg", "b/x.jpg", "b/x.png", "b/y.png")]
    assert stems(find_inputs(files, tmp_path / "out")) == ["a/x", "b/x.jpg", "b/x.png", "y"]
    folders = [tmp_path / "a", tmp_path / "b"]
    assert stems(find_inputs(folders, "out")) == ["a/x", "b/x.jpg", "b/x.png", "y"]


def test_a_file_is_taken_once_and_outputs_are_no_inputs(tmp_path):
    file = save(tmp_path / "x[1].png")
    save(tmp_path / "out" / "x[1]_overlay.png")
    patterns = [file, tmp_path, f"{tmp_path}/*.png"]
    assert stems(find_inputs(patterns, tmp_path / "out")) == ["x[1]"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("absent.jpg", "no such file or folder"),
        ("*.jpg", "no image or video there"),
        (".", "no image or video there"),
    ],
)
def test_a_pattern_that_stands_for_nothing(tmp_path, monkeypatch, pattern, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^{'[.]' if pattern == '.' else ''}.*{message}"):
        find_inputs([pattern], "out")


def test_what_is_left_out_of_a_folder_is_said_by_kind(tmp_path, caplog):
    save(tmp_path / "in/x.png")
    for name in ("a.HEIC", "b.heic", "x.json", ".hidden"):
        (tmp_path / "in" / name).touch()
    assert stems(find_inputs([tmp_path / "in"], tmp_path / "out")) == ["x"]
    assert caplog.messages == [
        f"{tmp_path}/in: left out: 2 .heic files, e.g. a.HEIC: needs a plugin (pillow-heif)",
        f"{tmp_path}/in: left out: 1 .json file, e.g. x.json: no kind of file that is read here",
    ]
    with pytest.raises(DataError, match=r"no image or video there: 1 .heic file, e.g. b.heic"):
        find_inputs([f"{tmp_path}/in/*.heic"], tmp_path / "out")


def test_what_is_written_of_images(tmp_path):
    images = {"x": (500, 600), "deep/y": (48, 64)}
    for stem, size in images.items():
        save(tmp_path / "in" / f"{stem}.png", size)
    inputs = find_inputs([tmp_path / "in"], tmp_path / "out")
    predict_files(Threshold(), inputs, tmp_path / "out")
    for stem, size in images.items():
        expected = outputs_of(picture(size))
        ids, segments = expected[schema.PANOPTIC_MAP], segments_info(expected)
        out = tmp_path / "out"
        np.testing.assert_array_equal(read_panoptic_png(out / f"{stem}_panoptic.png"), ids)
        assert json.loads((out / f"{stem}.json").read_text()) == {
            "file_name": f"{stem}.png",
            "height": size[0],
            "width": size[1],
            "segments_info": segments,
        }
        np.testing.assert_array_equal(
            read_image(out / f"{stem}_overlay.png"),
            draw_panoptic(picture(size), ids, segments, CATEGORIES),
        )
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == 6


def test_damaged_files_are_named_at_the_end_and_the_others_done(tmp_path):
    (tmp_path / "a.png").write_bytes(save(tmp_path / "b.png").read_bytes()[:60])
    (tmp_path / "c.mp4").write_bytes(b"nothing")
    save(tmp_path / "d.png")
    inputs = find_inputs([tmp_path], tmp_path / "out")
    with pytest.raises(PanopticError, match=r"a\.png: .*decoded.*; .*c\.mp4: .*decoded") as caught:
        predict_files(Threshold(), inputs, tmp_path / "out", write=("json",))
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b.json", "d.json"]


def test_an_output_that_cannot_be_written(tmp_path):
    inputs = find_inputs([save(tmp_path / "a.png")], tmp_path / "out")
    (tmp_path / "out" / "a.json").mkdir(parents=True)
    with pytest.raises(PanopticError, match=r"a\.json: cannot be written: Is a directory"):
        predict_files(Threshold(), inputs, tmp_path / "out", write=("json",))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([(8, 8), (8, 9), (9, 8)]), max_size=40), st.integers(1, 5))
def test_batches_are_of_one_size_and_lose_nothing(tmp_path_factory, sizes, batch_size):
    folder = tmp_path_factory.mktemp("batches")
    files = [save(folder / f"{k}.png", size) for k, size in enumerate(sizes)]
    predictor = Threshold()
    inputs = find_inputs(files, folder / "out") if files else []
    predict_files(predictor, inputs, folder / "out", batch_size, write=("json",))
    assert all(count <= batch_size for count, *_ in predictor.batches)
    for size in set(sizes):
        assert sum(n for n, *shape in predictor.batches if (*size, 3) == (*shape,)) == sizes.count(
            size
        )
    documents = [json.loads(path.read_text()) for path in (folder / "out").glob("*.json")]
    received = sorted((d["file_name"], d["height"], d["width"]) for d in documents)
    assert received == sorted((f"{k}.png", *size) for k, size in enumerate(sizes))


def test_batches_are_full_where_sizes_come_mixed(tmp_path):
    files = [save(tmp_path / f"{k}.png", (8, 8 + k % 3)) for k in range(24)]
    predictor = Threshold()
    inputs = find_inputs(files, tmp_path / "out")
    predict_files(predictor, inputs, tmp_path / "out", batch_size=4, write=("json",))
    assert [count for count, *_ in predictor.batches] == [4] * 6


def test_coco_results_are_one_file_for_all(tmp_path):
    save(tmp_path / "a.png", (40, 60))
    save(tmp_path / "deep" / "b.png", (48, 64))
    save_video(tmp_path / "c.mp4", num_frames=2)
    out = tmp_path / "out"
    inputs = find_inputs([tmp_path], out)
    predict_files(Threshold(), inputs, out, batch_size=2, write=("coco",))
    panoptic = json.loads((out / "panoptic.json").read_text())
    names = ["a.png", "deep/b.png", "c.mp4/000000", "c.mp4/000001"]
    assert [image["file_name"] for image in panoptic["images"]] == names
    assert [image["id"] for image in panoptic["images"]] == [1, 2, 3, 4]
    assert panoptic["categories"] == CATEGORIES.to_coco()
    assert len(panoptic["annotations"]) == 4
    for annotation in panoptic["annotations"]:
        ids = read_panoptic_png(out / "panoptic" / annotation["file_name"])
        areas = {s["id"]: s["area"] for s in annotation["segments_info"]}
        assert areas == {1: int((ids == 1).sum()), 2: int((ids == 2).sum())}
    instances = json.loads((out / "instances.json").read_text())
    assert sorted(result["image_id"] for result in instances) == [1, 2, 3, 4]
    first = next(result for result in instances if result["image_id"] == 1)
    assert first["bbox"] == [0, 0, 60, 20]
    assert (first["category_id"], first["score"]) == (7, 0.75)
    assert first["segmentation"]["size"] == [40, 60]
    assert sorted(path.name for path in out.iterdir()) == [
        "instances.json",
        "panoptic",
        "panoptic.json",
    ]


@pytest.mark.parametrize("size", [(48, 64), (481, 503)])
def test_a_video_keeps_its_rate_and_its_frames(tmp_path, size):
    file = save_video(tmp_path / "clip.mp4", size=size)
    predictor = Threshold()
    inputs = find_inputs([file], tmp_path / "out")
    predict_files(predictor, inputs, tmp_path / "out", batch_size=4)
    assert [count for count, *_ in predictor.batches] == [4, 4, 2]
    with VideoReader(tmp_path / "out" / "clip_overlay.mp4") as overlay, VideoReader(file) as video:
        assert overlay.rate == video.rate == 12
        frames = list(video)
        drawn = list(overlay)
    assert len(drawn) == len(frames) == 10
    for number, (frame, shown) in enumerate(zip(frames, drawn, strict=True)):
        expected = outputs_of(frame)
        ids = expected[schema.PANOPTIC_MAP]
        stem = f"{tmp_path}/out/clip_frames/{number:06d}"
        np.testing.assert_array_equal(read_panoptic_png(f"{stem}_panoptic.png"), ids)
        picture = draw_panoptic(frame, ids, segments_info(expected), CATEGORIES)
        assert [side - side % 2 for side in picture.shape[:2]] == list(shown.shape[:2])
        difference = np.abs(picture[: shown.shape[0], : shown.shape[1]].astype(int) - shown)
        assert difference.mean() < 6  # a video is compressed


def test_a_video_held_upright_by_a_phone(tmp_path):
    """The matrix of its track turns it clockwise by 90 degrees: x' = height - y, y' = x."""
    file = save_video(tmp_path / "clip.mp4", num_frames=2)
    data = file.read_bytes()
    start = data.index(b"tkhd") + 4 + 40  # behind the times, the id, the duration and the layer
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    file.write_bytes(data[:start] + matrix + data[start + 36 :])
    with VideoReader(file) as video:
        frame = next(iter(video))
    assert frame.shape == (64, 48, 3)
    assert (frame[:, 26:] > 127).all()  # what was above is right
    assert (frame[:, :22] < 127).all()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_few_images_are_held_at_a_time(tmp_path, monkeypatch, batch_size):
    """Of 60 images of three sizes: those that wait for others, the batch, those read ahead."""
    files = [save(tmp_path / f"{k}.png", (8, 8 + k % 3)) for k in range(60)]
    read, held = [], []

    def counted(path, pixel_range):
        read.append(path)
        return read_image(path, pixel_range)

    class Counting(Threshold):
        def predict_batch(self, images):
            done = sum(count for count, *_ in self.batches)
            held.append(len(read) - done)
            return super().predict_batch(images)

    monkeypatch.setattr(result_files, "read_image", counted)
    inputs = find_inputs(files, tmp_path / "out")
    predict_files(Counting(), inputs, tmp_path / "out", batch_size, write=("json",))
    assert len(read) == 60
    assert batch_size <= max(held) <= (result_files.WAITING_BATCHES + 2) * batch_size


def test_a_video_cut_short_gives_its_frames_up_to_there(tmp_path):
    with VideoWriter(tmp_path / "whole.mkv", 10) as video:
        rng = np.random.default_rng(0)
        for _ in range(20):
            video.write(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8))
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    frames = []
    with VideoReader(tmp_path / "cut.mkv") as video:
        try:
            frames.extend(video)
        except DamagedFileError as error:
            assert "cut.mkv: the video cannot be decoded" in str(error)
    assert 5 <= len(frames) <= 12


def test_a_file_without_pictures_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DamagedFileError, match=r"sound\.mp4: the video has no pictures"):
        VideoReader(tmp_path / "sound.mp4")


def command(*arguments):
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    predict.run(parser.parse_args([str(argument) for argument in arguments]))


class ThresholdModule(tf.Module):
    """`Threshold` without instances, as an export serves it."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def serve(self, images):
        is_bright = images[..., 0] > 127
        area = tf.math.count_nonzero(is_bright, axis=(1, 2), dtype=tf.int32)
        count = tf.shape(images)[0]
        half = tf.cast(tf.shape(images)[1:3], tf.float32) * [0.5, 1.0]
        top = tf.concat([tf.zeros(2), half], 0)
        boxes = tf.stack([top, top + tf.stack([half[0], 0.0, half[0], 0.0])])
        rest = tf.size(is_bright[0]) - area
        return {
            schema.PANOPTIC_MAP: tf.where(is_bright, 1, 2),
            schema.CATEGORY_IDS: tf.tile([[7, 9]], [count, 1]),
            schema.IS_THING: tf.tile([[True, False]], [count, 1]),
            schema.SCORES: tf.tile([[0.75, 1.0]], [count, 1]),
            schema.AREAS: tf.stack([area, rest], axis=-1),
            schema.BOXES: tf.tile(boxes[None], [count, 1, 1]),
            schema.NUM_SEGMENTS: tf.fill([count], 2),
        }


def test_a_saved_model_predicts_without_its_run(tmp_path):
    module, folder = ThresholdModule(), tmp_path / "saved_model"
    tf.saved_model.save(module, str(folder), signatures={"tensor": module.serve})
    files = [save(tmp_path / f"{k}.png", (48, 64), 140 + 10 * k) for k in range(3)]
    source = ["--saved-model", folder, "--batch-size=2"]
    with pytest.raises(ConfigError, match=r"categories\.json: no such file; export"):
        command(*source, "--output", tmp_path / "none", *files)
    CATEGORIES.save(folder / "assets" / "categories.json")
    command(*source, "--output", tmp_path / "served", *files)
    predict_files(Threshold(), find_inputs(files, "out"), tmp_path / "out")
    expected = sorted((tmp_path / "out").iterdir())
    assert len(expected) == 9
    for path in expected:
        assert (tmp_path / "served" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--write=png,gif"], r"--write takes overlay, png, json, coco, labelme\. Received: gif"),
        (["--batch-size=0"], r"--batch-size must be 1 or more\. Received: 0"),
    ],
)
def test_settings_that_break_a_rule(tmp_path, arguments, message):
    file = save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=message):
        command("--workdir", tmp_path, "--output", tmp_path / "out", *arguments, file)
