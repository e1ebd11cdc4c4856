"""Many images with Beam: all are there once, after a kill too; a model that looks at colours."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from color_model import TABLE, write_color_model
from command_line import ROOT, run_here
from PIL import Image

from tf_panoptic_fpn import load_predictor
from tf_panoptic_fpn.errors import ConfigError, DataError, PanopticError
from tf_panoptic_fpn.evaluation.panoptic_files import evaluate_panoptic_files

pytest.importorskip("apache_beam", exc_type=ImportError)
from tf_panoptic_fpn.batch import handler as handler_module
from tf_panoptic_fpn.batch.collect import collect_coco
from tf_panoptic_fpn.batch.handler import Shard, ShardHandler
from tf_panoptic_fpn.batch.pipeline import predict_beam
from tf_panoptic_fpn.batch.shards import Shards, open_shards


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a SavedModel."""
    folder = tmp_path_factory.mktemp("model")
    write_color_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """40 images of two sizes in two folders, and two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        image = rng.integers(0, 256, ((12, 16), (16, 12))[number % 2] + (3,), np.uint8)
        place = folder / "sub" if number % 3 == 0 else folder
        Image.fromarray(image).save(place / f"{number:02}.png")
    (folder / "text.png").write_bytes(b"no image")
    (folder / "empty.png").touch()
    return folder


@pytest.fixture(scope="module")
def predicted(model, photos, tmp_path_factory):
    """The output of a run that nothing disturbed."""
    output = str(tmp_path_factory.mktemp("predicted"))
    assert predict_beam(model, f"{photos}/**.png", output, num_shards=8, batch_size=3) == (40, 2)
    return output


def contents(folder, ending=""):
    return {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir() if ending in p.name}


def all_rows(folder):
    return [row for rows, _ in open_shards(folder).read() for row in rows]


def test_every_image_is_there_once_as_the_predictor_says(model, photos, predicted, tmp_path):
    rows = {row["file_name"]: row for row in all_rows(predicted)}
    names = [p.relative_to(photos).as_posix() for p in photos.rglob("[0-9]*.png")]
    assert sorted(rows) == sorted(names) and len(all_rows(predicted)) == 40
    predictor = load_predictor(model)
    for name in ("sub/00.png", "01.png"):
        result = predictor(str(photos / name))
        segments = [dict(s) for s in rows[name]["segments_info"]]
        assert segments[0].pop("score") is None  # stuff
        assert segments == result.segments
        (tmp_path / "map.png").write_bytes(rows[name]["panoptic_png"])
        ids = np.asarray(Image.open(tmp_path / "map.png"))[..., 0]
        np.testing.assert_array_equal(ids, result.panoptic_map)
        (instance,) = rows[name]["instances"]
        assert instance["rle"] == result.instances[0]["segmentation"]["counts"]
        assert instance["score"] == result.instances[0]["score"]


def test_dead_inputs_have_a_file_of_their_own(photos, predicted):
    shards = open_shards(predicted)
    dead = {e["path"]: e["reason"] for n in range(8) for e in shards.read_dead(n)}
    assert dead == {
        str(photos / "empty.png"): "the image file is empty",
        str(photos / "text.png"): "the image cannot be decoded: cannot identify image file it",
    }


def test_a_rerun_writes_what_is_missing_or_changed_alone(model, photos, predicted, tmp_path):
    for name, data in contents(predicted).items():
        (tmp_path / name).write_bytes(data)
    shards = Shards(str(tmp_path), 8)
    pathlib.Path(shards.parquet(3)).unlink()
    lost = next(iter(shards.inputs_of(5)))
    number = next(n for n in range(8) if shards.read_dead(n))
    pathlib.Path(shards.dead(number)).unlink()  # these are tried again
    (tmp_path / ".partial-1-predictions-00003-of-00008.parquet").touch()
    kept = {n for n in range(8) if n not in (3, 5, number)}
    times = {n: os.stat(shards.parquet(n)).st_mtime_ns for n in kept}
    image = pathlib.Path(lost).read_bytes()
    pathlib.Path(lost).unlink()
    try:
        count = predict_beam(model, f"{photos}/**.png", str(tmp_path))
        assert count == ((39, 2) if lost.rpartition("/")[2][0].isdigit() else (40, 1))
    finally:
        pathlib.Path(lost).write_bytes(image)
    assert times == {n: os.stat(shards.parquet(n)).st_mtime_ns for n in kept}
    assert predict_beam(model, f"{photos}/**.png", str(tmp_path)) == (40, 2)
    assert contents(tmp_path) == contents(predicted)


def test_coco_files_are_collected_with_the_ids_of_the_ground_truth(predicted, tmp_path):
    shards = open_shards(predicted)
    assert collect_coco(shards, tmp_path / "a") == 40
    tree = json.loads((tmp_path / "a/panoptic.json").read_text())
    for image in tree["images"]:
        image["id"] += 1000
    for annotation in tree["annotations"]:
        annotation["image_id"] += 1000
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(tree))
    assert collect_coco(shards, tmp_path / "b", truth) == 40
    scored = evaluate_panoptic_files(
        truth, tmp_path / "b/panoptic.json", tmp_path / "a/panoptic", tmp_path / "b/panoptic"
    )
    assert scored["All"]["PQ"] == 1
    results = json.loads((tmp_path / "b/instances.json").read_text())
    assert sorted(r["image_id"] for r in results) == list(range(1001, 1041))
    assert {r["category_id"] for r in results} == {7}
    tree["images"].pop()
    truth.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="has no image"):
        collect_coco(shards, tmp_path / "c", truth)
    assert not (tmp_path / "c/panoptic.json").exists()


def test_a_shard_that_is_missing_is_named(predicted, tmp_path):
    (tmp_path / "run.json").write_bytes((pathlib.Path(predicted) / "run.json").read_bytes())
    with pytest.raises(DataError, match=r"predictions-00000-of-00008\.parquet: no such file"):
        collect_coco(open_shards(str(tmp_path)), tmp_path / "coco")
    with pytest.raises(DataError, match="holds no predictions"):
        open_shards(str(tmp_path / "coco"))


def test_a_folder_of_another_run_is_refused(model, photos, predicted, tmp_path):
    with pytest.raises(ConfigError, match="holds predictions of another pattern"):
        predict_beam(model, f"{photos}/*.png", predicted)
    with pytest.raises(ConfigError, match="--num-shards must be 8"):
        predict_beam(model, f"{photos}/**.png", predicted, num_shards=9)
    with pytest.raises(DataError, match="no such file"):
        predict_beam(model, f"{photos}/*.tiff", str(tmp_path))


def test_workers_get_the_model_as_it_was_given(photos, tmp_path, monkeypatch):
    """A run as a folder: its file alone has no categories. Their error is one line."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "categories.json", "model.keras"):
        (run / name).touch()
    loaded = []

    def load(model):
        loaded.append(model)
        raise DataError("no categories")

    monkeypatch.setattr(handler_module, "load_predictor", load)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PanopticError, match=r"/out: the pipeline failed: no categories[^\n]{,60}$"):
        predict_beam("run", f"{photos}/**.png", "out")
    assert set(loaded) == {str(run)}


def test_an_image_that_the_model_refuses_does_not_cost_the_others(photos, monkeypatch):
    class Refusing:
        pixel_range, categories = (0, 65535), TABLE

        def predict_batch(self, images):
            if len(images) > 1 or images[0, 0, 0, 0] == 9:
                raise DataError("too bright")
            return images

    monkeypatch.setattr(ShardHandler, "_row", lambda self, path, result: {"path": path})
    monkeypatch.setattr(handler_module, "read_bytes", lambda path: b"x")
    monkeypatch.setattr(
        handler_module, "read_image", lambda *_: np.full((1, 1, 3), next(values), np.uint8)
    )
    monkeypatch.setattr(handler_module, "READERS", 1)
    values = iter([8, 9, 7])
    result = ShardHandler("", "", 3).predict(Shard(0, ("a", "b", "c")), Refusing())
    assert [row["path"] for row in result.rows] == ["a", "c"]
    assert result.dead == [{"path": "b", "reason": "too bright"}]


@pytest.mark.slow
def test_a_killed_run_goes_on(model, photos, predicted, tmp_path):
    """Killed once two processes have begun to write; what was written stays."""
    command = [sys.executable, "-m", "tf_panoptic_fpn", "predict-beam", model]
    command += [f"{photos}/**.png", f"--output={tmp_path}", "--num-shards=8", "--batch-size=3"]
    command += ["--beam", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not contents(tmp_path, ".parquet") and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert contents(tmp_path, ".parquet"), "no shard was written"
    assert predict_beam(model, f"{photos}/**.png", str(tmp_path), batch_size=3) == (40, 2)
    assert contents(tmp_path) == contents(predicted)


def test_the_commands(model, photos, tmp_path, monkeypatch, capsys):
    def command(*words):
        return run_here(monkeypatch, "tf_panoptic_fpn", *words)

    arguments = ("predict-beam", model, f"{photos}/sub/*.png", f"--output={tmp_path / 'shards'}")
    assert command(*arguments, "--num-shards=2", "--beam", "--direct_num_workers=1") == 0
    assert "14 images, 0 dead inputs" in capsys.readouterr().out
    words = ("collect-predictions", tmp_path / "shards", f"--output={tmp_path / 'coco'}")
    assert command(*words) == 0
    assert len(list((tmp_path / "coco/panoptic").glob("*.png"))) == 14
    assert command(*arguments, "--batch-size=0") == 2
    assert "--batch-size must be 1 or more. Received: 0" in capsys.readouterr().err
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").touch()
    assert command("predict-beam", model, f"{bad}/*", f"--output={tmp_path / 'none'}") == 2
    assert "no image could be read" in capsys.readouterr().err
