"""Each benchmark runs on its smallest input and prints its lines.

In this process, which has imported TensorFlow already; those that start processes do so.
"""

import json

import numpy as np
import pytest
from color_model import write_color_model
from command_line import ROOT, TINY, run, run_here
from small_model import short_resnets

pytestmark = pytest.mark.slow


@pytest.fixture
def lines_of(monkeypatch, capsys):
    """Runs a benchmark as a program; returns the lines that it prints."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def lines_of(script, *arguments):
        capsys.readouterr()
        assert run_here(monkeypatch, f"benchmarks/{script}.py", *arguments) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {line["benchmark"] for line in lines} == {script}
        return lines

    return lines_of


def shares(line):
    return [value for key, value in line.items() if key.endswith("_share")]


def test_train_step(lines_of):
    (line,) = lines_of("train_step", f"--config={TINY}", "--steps=1")
    assert line["batch_size"] == 2
    assert line["seconds"] > 0
    assert min(shares(line)) > 0


def test_train_step_without_data(lines_of):
    options = ["--image-size=64,96", "--rounds=1", "--instances=12", "--only-steps"]
    (line,) = lines_of("train_step", f"--config={TINY}", *options)
    assert (line["batch_size"], line["canvas"]) == (1, [64, 96])
    assert line["foreground_rois"] == 4  # of 16 rois
    assert set(line["stages"]) == {"wait", "step"}


def test_inference(lines_of):
    options = ["--height=64", "--width=96", "--rounds=1"]
    (line,) = lines_of("inference", f"--config={TINY}", *options)
    assert line["image"] == [64, 96]
    assert line["seconds"] > 0
    assert min(shares(line)) > 0
    assert (line["detections"], line["proposals"]) == (10, 20)
    assert line["multiply_adds"].keys() == line["of_the_peak"].keys() <= line["stages"].keys()
    assert {"whole", "panoptic only", "class map", "merge"} <= line["stages"].keys()


def test_a_size_that_is_none(lines_of, monkeypatch, capsys):
    assert run_here(monkeypatch, "benchmarks/inference.py", "--height=0") == 2
    expected = "error: --height and --width must be positive. Received: 0, 1216"
    assert capsys.readouterr().err.splitlines()[-1] == expected


def test_startup(lines_of):
    """Beside itself, which takes as long."""
    arguments = [f"--config={TINY}", f"--peer={ROOT}", "--of", "step", "prediction"]
    (line,) = lines_of("startup", *arguments)
    common = ["start", "imports", "model", "tracing", "first run", "rest", "all"]
    for what, parts in (("step", {*common, "data"}), ("prediction", set(common))):
        for whose in ("", "peer: "):
            names = {name for name in line["stages"] if name.startswith(f"{whose}{what}: ")}
            assert names == {f"{whose}{what}: {part}" for part in parts}
            seconds = [line["stages"][f"{whose}{what}: {part}"]["cpu"] for part in parts]
            assert min(seconds) >= 0
            assert sum(seconds) == pytest.approx(2 * max(seconds), rel=1e-3)  # with "all"
    assert line["ratios"]["step"] == pytest.approx(1, abs=0.5)
    for what, ratio in line["ratios"].items():
        ours, theirs = (line["stages"][f"{whose}{what}: all"]["cpu"] for whose in ("", "peer: "))
        assert ratio == pytest.approx(ours / theirs, abs=1e-3)  # its three places


def test_serving(lines_of):
    arguments = [f"--config={TINY}", "--height=64", "--width=96", "--runs=1"]
    (line,) = lines_of("serving", *arguments, "--set=data.validation.short_sides=[32]")
    assert line["image"] == [64, 96]
    assert line["semantic_classes"] == 5
    assert line["peak_mb_above_the_model"] >= 0
    assert 0 < line["merge_and_png_share"] < 1


def test_stronger_models(lines_of):
    """Basic blocks have no deformable convolution."""
    (line,) = lines_of("stronger_models", f"--config={TINY}", "--height=64", "--width=96")
    assert set(line["ratios"]) == {"plain", "cascade"}
    assert line["ratios"]["plain"] == 1


def test_backbones(lines_of):
    (line,) = lines_of("backbones", "--size=64", "--repeats=1", "resnet18")
    assert line["parameters"] == 11_176_512  # frozen norms have a scale and a shift
    assert line["multiply_adds"] == 148_045_824  # a 7 x 7 x 3 x 64 stem on 32 x 32 cells, ...
    assert line["processor_seconds"] > 0


def test_graph_size(lines_of):
    (line,) = lines_of("graph_size", f"--config={TINY}")
    for name, nodes in (("train_step", 5100), ("predict", 2900), ("served", 3800)):
        parts = line[f"{name}_parts"]
        assert 1000 < sum(parts.values()) == line[f"{name}_nodes"] <= nodes
        assert line[f"{name}_trace_seconds"] > 0
    assert line["train_step_parts"]["gradient"] > 100


def test_beam(tmp_path):
    """In a process of its own, to whose errors its workers write."""
    pytest.importorskip("apache_beam")
    write_color_model(tmp_path)
    options = [f"--model={tmp_path}", "--images=15", "--size=16x20", "--workers=1"]
    line = json.loads(run("benchmarks/beam.py", *options).stdout)
    assert line["workers_1"]["seconds"] > 0 and line["speedup_of_seconds"] == 1


@pytest.mark.parametrize("panoptic", [False, True])
def test_index(lines_of, tmp_path, panoptic):
    arguments = ["--images=8", "--instances=20", f"--folder={tmp_path}"]
    (line,) = lines_of("index", *arguments, *["--panoptic"][: int(panoptic)])
    assert line["images"] == 8
    assert line["instances"] == 20
    assert line["segments"] == (88 if panoptic else 0)
    assert list(tmp_path.iterdir()) == []


def test_evaluate(lines_of, samples):
    arguments = [f"--config={TINY}", f"--samples={samples / 'coco_instances'}"]
    (line,) = lines_of("evaluate", *arguments, "--images=2", "--short-side=64")
    assert line["images"] == 2
    assert 0 < line["model_busy_share"] <= 1


def test_exported(lines_of, samples, tmp_path):
    """Of a model that needs no training, against itself."""
    write_color_model(tmp_path)
    arguments = [f"--model={tmp_path}", f"--samples={samples}", "--images=3", str(tmp_path)]
    (line,) = lines_of("exported", *arguments)
    assert line["images"] == 8
    assert line["exported"] == {str(tmp_path): {"score": 0, "pixels": 0}}


def test_input_pipeline(lines_of, samples):
    (line,) = lines_of("input_pipeline", f"--samples={samples}", "--images=10")
    stages = ("plain", "decode", "labels", "resize", "instances", "batch")
    for name in ("coco_instances", "camvid"):
        assert line["ratios"][name] > 0
        assert sum(line["shares"][name].values()) == pytest.approx(1, abs=0.003)
        assert {f"{name}: {stage}" for stage in stages} < line["stages"].keys()
    assert line["batch_bytes_375_to_10_instances"] > 1
    assert {"device", "cores", "threads", "load", "versions", "date"} <= set(line)


def test_panoptic_quality(lines_of, samples):
    (line,) = lines_of("panoptic_quality", f"--samples={samples}", "--images=2")
    assert line["images"] == 2
    assert {"decoded_ratio", "files_ratio", "peak_mib_of_2", "peak_mib_of_8"} <= set(line)


def test_fine_tuning(lines_of, samples, tmp_path):
    """With a few frames and steps: the whole way, and the runs are kept."""
    arguments = [f"--samples={few_frames(samples, tmp_path)}", f"--folder={tmp_path / 'runs'}"]
    with short_resnets():
        (line,) = lines_of("fine_tuning", *arguments, "--base-steps=1", "--steps=1")
    for name in ("scratch_before", "scratch_after", "by_name_before", "by_name_after"):
        assert set(line[name]) == {"PQ", "things", "stuff", "mIoU"}


def few_frames(samples, folder):
    """CamVid with four frames of each split."""
    camvid = folder / "few" / "camvid"
    camvid.mkdir(parents=True)
    (camvid / "images").symlink_to(samples / "camvid" / "images")
    for split in ("train", "val"):
        name = f"panoptic_{split}"
        (camvid / name).symlink_to(samples / "camvid" / name)
        tree = json.loads((samples / "camvid" / f"{name}.json").read_text(encoding="utf-8"))
        for key in ("images", "annotations"):
            tree[key] = tree[key][:4]
        (camvid / f"{name}.json").write_text(json.dumps(tree), encoding="utf-8")
    return camvid.parent


def test_tiles(lines_of, samples):
    options = ["--size=200", "--tile=96", "--overlap=16"]
    (line,) = lines_of("tiles", f"--images={samples / 'camvid' / 'images' / 'val'}", *options)
    assert (line["tiles"], line["model"]) == (9, "bright regions")
    assert 0 < line["predictor_seconds"] < line["seconds"]
    assert line["peak_mib"] > 0
    assert line["segments"] > 1


def test_runtimes(lines_of):
    (line,) = lines_of("runtimes", f"--config={TINY}", "--height=64", "--width=96", "--rounds=1")
    runtimes = {"onnxruntime", "openvino"}
    assert set(line["stages"]) == {"tensorflow", *runtimes, *(f"{r}_int8" for r in runtimes)}
    assert line["cpu_ratios"]["tensorflow"] == 1
    assert 0 < line["onnx_int8_mb"] < 0.5 * line["onnx_mb"]


def test_killed_runs():
    """In a process of its own, since it forks before TensorFlow has begun."""
    smallest = [f"--config={TINY}", "--set=model.tasks=[semantic]", "--kills=1", "--kills-a-run=1"]
    line = json.loads(run("benchmarks/killed_runs.py", *smallest).stdout)
    assert line["kills"] == line["runs"] == line["equal_runs"] == 1


def test_evaluation(lines_of, samples):
    arguments = ["--metrics", "bbox", "boundary", "pq", "--images=2", "--results=5"]
    (line,) = lines_of("evaluation", *arguments, f"--samples={samples}")
    assert line["results"] == 10
    assert set(line["ratios"]) == {"bbox", "boundary", "pq"}
    assert {"wall", "cpu", "cpu_spread"} == set(line["stages"]["pq: peer scores"])
    assert {"device", "cores", "load", "versions", "date"} <= set(line)


def test_dinov2_reference(lines_of):
    pytest.importorskip("transformers")
    pytest.importorskip("keras_hub", reason="pip install .[keras_hub]")
    (line,) = lines_of("dinov2_reference")
    assert line["tokens"] == [1, 1370, 384]
    assert line["largest_difference"] <= 1e-4


def test_backbone_families():
    """In a process of its own, since the configuration asks for determinism."""
    pytest.importorskip("keras_hub", reason="pip install .[keras_hub]")
    options = [f"--config={TINY}", "--steps=1", "ResNetBackbone"]
    line = json.loads(run("benchmarks/backbone_families.py", *options).stdout)
    assert line["losses"][0] > 1
    for kind in ("saved_model", "onnx"):
        assert line[kind]["pixels"] <= 10
        assert line[kind]["scores"] <= 1e-4


def test_backbone_backends(monkeypatch, tmp_path):
    """What the process of a backend writes."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    arguments = [f"--output={tmp_path}", "VGG16"]
    assert run_here(monkeypatch, "benchmarks/backbone_backends.py", *arguments) == 0
    with np.load(tmp_path / "VGG16.npz") as maps:
        shapes = [maps[f"C{level}"].shape for level in range(2, 6)]
    assert shapes == [(1, 16, 24, 256), (1, 8, 12, 512), (1, 4, 6, 512), (1, 2, 3, 512)]
