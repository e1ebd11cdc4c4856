"""The command `evaluate` on a small data set, with predictors that know the answer."""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import shutil
import threading

import numpy as np
import pytest
from command_line import ROOT, TINY
from small_model import make_tiny_model

from tf_panoptic_fpn import load_config, schema
from tf_panoptic_fpn.commands import evaluate
from tf_panoptic_fpn.config import save_config
from tf_panoptic_fpn.data import splits
from tf_panoptic_fpn.data.class_shares import class_shares
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.evaluation import evaluate_run, evaluator
from tf_panoptic_fpn.evaluation.result_files import ResultFiles
from tf_panoptic_fpn.evaluation.shares import predict_shares, share_of
from tf_panoptic_fpn.inference import load_predictor as load_predictor_module
from tf_panoptic_fpn.inference.load_predictor import load_predictors
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.results.result import Result
from tf_panoptic_fpn.workdir import Workdir

pytestmark = pytest.mark.usefixtures("short_backbones")

NUM_IMAGES = 8


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The folder of a run whose model file is read by nobody."""
    files = Workdir(tmp_path_factory.mktemp("run"))
    overrides = [f"data.shapes.validation_images={NUM_IMAGES}"]
    config = splits.resolve_data(load_config(TINY, overrides), files.path)
    save_config(config, files.config)
    splits.load_split(config.data, "train").categories.save(files.categories)
    files.model.write_bytes(b"a model")
    return files.path


@pytest.fixture(scope="module")
def split(workdir):
    return splits.load_split(load_config(workdir / "config.yaml").data, "validation")


@pytest.fixture
def model(monkeypatch, split):
    """Stands for the model: right but for image 0, where stars are void, and 5, all void."""
    fake = FakeModel(split)
    monkeypatch.setattr(evaluate_run, "load_predictors", fake.load)
    monkeypatch.setattr(evaluate_run, "write_report", fake.write_report)
    monkeypatch.setattr(evaluator, "draw_panoptic", lambda image, *_: image)  # slow
    return fake


class FakeModel:
    def __init__(self, split):
        self.categories = split.categories
        self.samples = {image.tobytes(): (r, ids) for r, image, ids in evaluation_samples(split)}
        self.calls = []
        self.fails_at = None
        self.arguments = self.report = None

    def load(self, source, config, categories, tta, shares, loaded):
        self.arguments = (source, config, tta, shares)
        return [self.predict]

    def write_report(self, path, results, gallery, config_text, categories):
        self.report = (path, results, gallery, config_text, categories)

    def predict(self, image):
        record, ids = self.samples[image.tobytes()]
        if record.image_id == self.fails_at:
            raise RuntimeError("killed")
        self.calls.append(record.image_id)
        by_id = self.categories.by_id
        names = {s.id: by_id[s.category_id].name for s in record.segments}
        left = [
            s
            for s in record.segments
            if record.image_id != 5 and (record.image_id != 0 or names[s.id] != "star")
        ]
        panoptic_map = sum((ids == s.id) * (k + 1) for k, s in enumerate(left)) + 0 * ids
        count, padded = len(left), 12
        outputs = {
            schema.PANOPTIC_MAP: panoptic_map.astype(np.int32),
            schema.CATEGORY_IDS: np.zeros(padded, np.int32),
            schema.IS_THING: np.zeros(padded, bool),
            schema.SCORES: np.ones(padded, np.float32),
            schema.AREAS: np.bincount(panoptic_map.ravel(), minlength=padded + 1)[1:],
            schema.BOXES: np.zeros((padded, 4), np.float32),
            schema.NUM_SEGMENTS: np.int32(count),
        }
        outputs[schema.CATEGORY_IDS][:count] = [s.category_id for s in left]
        outputs[schema.IS_THING][:count] = [by_id[s.category_id].is_thing for s in left]
        return Result.from_outputs(outputs, self.categories)


def run_command(*arguments):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    evaluate.run(parser.parse_args([str(argument) for argument in arguments]))


def read_results(folder):
    results = json.loads((folder / "results.json").read_text())
    del results["seconds_per_image"]
    return results


def test_killed_at_an_image_the_same_command_goes_on(workdir, model, tmp_path, capsys):
    run_command("--workdir", workdir, "--output", tmp_path / "whole")
    assert model.calls == list(range(NUM_IMAGES))
    out = capsys.readouterr().out
    assert f"report       {tmp_path / 'whole' / 'report.html'}" in out

    model.calls.clear()
    model.fails_at = 3
    command = ("--workdir", workdir, "--output", tmp_path / "killed")
    with pytest.raises(RuntimeError, match="killed"):
        run_command(*command)
    model.fails_at = None
    model.calls.clear()
    run_command(*command)
    assert model.calls == list(range(3, NUM_IMAGES))
    assert read_results(tmp_path / "killed") == read_results(tmp_path / "whole")

    model.calls.clear()
    capsys.readouterr()
    run_command(*command, "--set", "merge.stuff_area=1")
    assert model.calls == list(range(NUM_IMAGES))
    assert "deleted the results of another merge, evaluating anew" in capsys.readouterr().err


@dataclasses.dataclass
class Machine:
    """One of several, each of which is a thread here."""

    index: int
    count: int
    barrier: threading.Barrier

    def wait(self):
        self.barrier.wait(timeout=60)


def test_machines_share_the_predictions(workdir, model, tmp_path, capsys):
    """Each image is predicted once, by whose turn it is; the first counts all."""
    source = find_model(workdir)
    expected = evaluate_run.evaluate_run(source, tmp_path / "alone")
    model.calls.clear()
    output, barrier = tmp_path / "shared", threading.Barrier(3)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        machines = [Machine(index, 3, barrier) for index in range(3)]
        runs = [
            pool.submit(evaluate_run.evaluate_run, source, output, machines=m) for m in machines
        ]
        first, *others = [run.result() for run in runs]
    assert sorted(model.calls) == list(range(NUM_IMAGES))
    assert others == [{}, {}]
    for results in (first, expected):
        del results["seconds_per_image"]
    assert first == expected
    assert not (output / "shares").exists()
    assert model.report[0] == output / "report.html"
    for name in ("panoptic.json", "instances.json"):
        files = [folder / "predictions" / name for folder in (output, tmp_path / "alone")]
        assert files[0].read_text(encoding="utf-8") == files[1].read_text(encoding="utf-8")


def test_a_share_goes_on_where_it_was_killed(workdir, model, split, tmp_path):
    """Others wait for a machine that fails, and the image times of another do not matter."""
    machine = Machine(1, 2, threading.Barrier(1))
    assert [record.image_id for record in share_of(split, machine).images] == [1, 3, 5, 7]
    arguments = (machine, model.predict, split, tmp_path / "shares", {"run": 1})
    model.fails_at = 5
    with pytest.raises(RuntimeError, match="killed"):
        predict_shares(*arguments)
    model.fails_at = None
    model.calls.clear()
    folders = predict_shares(*arguments)
    assert model.calls == [5, 7]
    for record in share_of(split, machine).images:
        os.utime(record.image_path, ns=(1, 1))
    results = evaluator.evaluate(
        model.predict, evaluation_samples(split), split.categories, shares=folders
    )
    assert model.calls == [5, 7, 0, 2, 4, 6]
    assert results["images"] == NUM_IMAGES


def test_an_image_that_has_changed_or_lost_a_file_is_predicted_again(
    workdir, split, model, tmp_path
):
    run_command("--workdir", workdir, "--output", tmp_path)
    model.calls.clear()
    os.utime(split.images[4].image_path, ns=(1, 1))
    (tmp_path / "predictions" / "panoptic" / "00006.png").unlink()
    run_command("--workdir", workdir, "--output", tmp_path)
    assert model.calls == [4, 6]


def test_the_report_shows_best_median_and_worst(workdir, model, tmp_path, split):
    run_command("--workdir", workdir, "--output", tmp_path)
    path, results, gallery, config_text, categories = model.report
    assert path == tmp_path / "report.html"
    assert results["images"] == NUM_IMAGES
    assert categories == split.categories
    assert "num_thing_classes: 4" in config_text
    assert [entry.kind for entry in gallery] == ["best"] * 3 + ["median"] * 2 + ["worst"] * 3
    assert gallery[0].pq == 1
    assert gallery[-1].result.file_name == "00005.jpg"
    assert gallery[-1].pq == 0
    assert not gallery[-1].result.panoptic_map.any()
    assert gallery[-1].result.segments == []
    for entry in gallery:
        record, ids = model.samples[entry.result.image.tobytes()]
        assert entry.result.file_name == record.file_name
        np.testing.assert_array_equal(entry.gt_ids, ids)
        assert {s["id"] for s in entry.gt_segments} == set(np.unique(ids)) - {0}


def test_what_the_model_is_asked_for(workdir, model, tmp_path):
    command = ("--workdir", workdir, "--output", tmp_path, "--set", "tta.short_sides=[32]")
    run_command(*command, "--tta", "--balance-classes", "--submission", "val_tiny")
    _, config, tta, shares = model.arguments
    assert tta is True
    assert config.tta.short_sides == (32,)
    assert len(shares) == 5
    assert sum(shares) == pytest.approx(1)
    assert (tmp_path / "predictions" / "panoptic_val_tiny_results.zip").exists()


def test_shares_are_of_the_areas_or_of_the_maps(workdir):
    train = splits.load_split(load_config(workdir / "config.yaml").data, "train")
    pixels = np.zeros(5)
    semantic_class = train.categories.semantic_classes
    for record, _, ids in evaluation_samples(train):
        for segment in record.segments:
            pixels[semantic_class[segment.category_id]] += (ids == segment.id).sum()
    expected = pixels / pixels.sum()
    np.testing.assert_allclose(class_shares(train), expected)
    bare = [
        dataclasses.replace(
            record, segments=tuple(dataclasses.replace(s, area=None) for s in record.segments)
        )
        for record in train.images
    ]
    np.testing.assert_allclose(class_shares(dataclasses.replace(train, images=bare)), expected)
    with pytest.raises(DataError, match="must have a semantic class"):
        class_shares(dataclasses.replace(train, images=()))


def test_an_image_that_changes_while_it_is_evaluated(split, tmp_path):
    image = tmp_path / "image.jpg"
    shutil.copy(split.images[0].image_path, image)
    record = dataclasses.replace(split.images[0], image_path=str(image))
    result = Result(np.zeros((record.height, record.width), np.int32), [], split.categories)
    with ResultFiles(tmp_path / "predictions", split.categories, {}) as files:
        stem = files.unique_stem(record)
        files.write(stem, result)
        files.append(record, stem, result, 0.5)
    os.utime(image, (0, 0))
    alone = dataclasses.replace(split, images=[record])
    with pytest.raises(DataError, match=r"image\.jpg: has changed while it was evaluated"):
        evaluate_run._gallery(alone, [1.0], tmp_path / "predictions", {})


def test_trials_of_two_runs(workdir, model, tmp_path, capsys):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        run_command("--workdir", workdir, "--output", folder)
    capsys.readouterr()
    run_command("--trials", *folders, "--output", tmp_path / "summary")
    quality = read_results(folders[0])["panoptic"]["All"]["PQ"]
    assert capsys.readouterr().out.splitlines()[1].split()[1] == f"{100 * quality:.1f}"
    summary = json.loads((tmp_path / "summary" / "trials.json").read_text())
    assert summary["figures"]["panoptic"]["All"]["PQ"]["std"] == 0
    with pytest.raises(ConfigError, match="--trials takes no model"):
        run_command("--trials", *folders, "--workdir", workdir)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"One model must be given \(--model\)\. Received: none"),
        (["--config", TINY], r"One model must be given \(--model\)\. Received: none"),
        (["--weights", "a.keras"], r"a\.keras: no such file or folder, and no published model"),
        (["--config", TINY, "--weights", "a", "--saved-model", "b"], "One .*Received: a, b"),
        (["--config", TINY, "--weights", __file__], "--output must be given: .* is not the folder"),
        (
            ["--config", TINY, "--weights", __file__, "--output", ""],
            "--output must be given: .* is not the folder",
        ),
        (["--weights", __file__, "--output", "x"], "--config must name the data set: .* not a run"),
        (["--workdir", ROOT / "tests"], r"tests: holds no model: neither config\.yaml of a run"),
    ],
)
def test_sources_of_a_model(arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_command(*arguments)


def test_a_run_that_is_not_finished(workdir, tmp_path):
    shutil.copy(workdir / "config.yaml", tmp_path)
    with pytest.raises(ConfigError, match=r"categories\.json: .* holds no finished run"):
        run_command("--workdir", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "merge.score_threshold=0.5,3"], r"must be in \[0, 1\]\. Received: 3"),
        (["--sweep", "merge.score=0.5"], "unknown key `merge.score`"),
        (["--set", "model.num_thing_classes=3"], "must be 4"),
        (
            ["--set", "tta.short_sides=[0]"],
            r"`tta\.short_sides\[0\]` must be above 0\.",
        ),
    ],
)
def test_settings_that_break_a_rule(workdir, tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_command("--workdir", workdir, "--output", tmp_path, *arguments)


def test_what_a_saved_model_cannot_do(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    for options in (["--tta"], ["--balance-classes"], ["--set", "merge.stuff_area=3"]):
        with pytest.raises(ConfigError, match="a SavedModel's merge is in its graph"):
            run_command(
                *("--config", TINY, "--saved-model", tmp_path, "--output", tmp_path), *options
            )


def test_fingerprints_follow_the_model(tmp_path):
    folder = tmp_path / "saved" / "variables"
    folder.mkdir(parents=True)
    (folder / "a").write_text("1")
    file = tmp_path / "model.keras"
    file.write_text("1")
    (tmp_path / "saved" / "saved_model.pb").touch()
    sources = [find_model(tmp_path / "saved"), find_model(file)]
    before = [source.fingerprint() for source in sources]
    assert before == [source.fingerprint() for source in sources]
    (folder / "a").write_text("2")
    file.write_text("2")
    assert all(a != source.fingerprint() for a, source in zip(before, sources, strict=True))


def test_without_the_semantic_task_there_are_no_classes_to_balance(monkeypatch, split):
    model = make_tiny_model(num_thing_classes=4, tasks=("instance",))
    monkeypatch.setattr(load_predictor_module, "load_source", lambda source: model)
    source = find_model(__file__, TINY)
    with pytest.raises(ConfigError, match="--balance-classes needs a model with the task semantic"):
        load_predictors(source, source.load_config(), split.categories, class_shares=[1] * 5)


def test_replicas_are_copies_on_devices_of_their_own(tmp_path, split):
    model = make_tiny_model(backbone="resnet18", norm="group_norm", num_thing_classes=4)
    model.save(tmp_path / "model.keras")
    source = find_model(tmp_path / "model.keras", TINY, overrides=["train.replicas=2"])
    predictors = load_predictors(source, source.load_config(), split.categories)
    for number, predictor in enumerate(predictors):
        copy = predictor.args[1].model
        assert {v.value.device[-5:] for v in copy.variables} == {f"CPU:{number}"}
        for received, expected in zip(copy.variables, model.variables, strict=True):
            np.testing.assert_array_equal(received.numpy(), expected.numpy())
    other = find_model(source.path, TINY, overrides=["model.semantic_things=all"])
    with pytest.raises(ConfigError, match=r"`model\.semantic_things` must be 'other', as in"):
        load_predictors(other, other.load_config(), split.categories)
