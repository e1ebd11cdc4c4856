"""The page to try a model on: its functions, and the page in a browser, at two widths."""

import json
import pathlib
import shutil
import socket
import types

import numpy as np
import pytest
from command_line import TINY, run_here
from PIL import Image

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import MergeConfig, load_config
from tf_panoptic_fpn.data.splits import resolve_data
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.merge import Merger

pytest.importorskip("gradio", exc_type=ImportError)
from tf_panoptic_fpn.demo.overlay import overlay
from tf_panoptic_fpn.demo.page import Demo, example_images, launch

HEIGHT, WIDTH = 240, 320
TABLE = CategoryTable(
    (
        Category(1, "cat", True),
        Category(2, "<b>dog</b>", True),
        Category(10, "grass", False),
        Category(11, "sky", False),
    )
)
CAT, DOG = (60, 20, 180, 140), (100, 170, 220, 300)  # yxyx


class TwoAnimals(ImagePredictor):
    """A cat of score 0.9 and a dog of 0.6 on grass, under a sky; counts how often it runs."""

    categories, merge, runs = TABLE, MergeConfig(stuff_area=100), 0

    def run(self, images):
        self.runs += 1
        semantic = np.where(np.arange(HEIGHT)[:, None] < 100, 2, 1) * np.ones((1, WIDTH), int)
        instances = {
            schema.BOXES: np.float32([CAT, DOG]),
            schema.SCORES: np.float32([0.9, 0.6]),
            schema.CLASSES: np.int32([0, 1]),
            schema.MASK_PROBS: np.ones((2, 28, 28), np.float32),
            schema.NUM_DETECTIONS: np.int32(2),
        }
        merged = Merger(TABLE)(instances, semantic, (HEIGHT, WIDTH), self.merge)
        return [{**merged, schema.INSTANCES: instances, schema.SEMANTIC_MAP: semantic}]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A picture with what `TwoAnimals` sees."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:100], image[100:] = (90, 160, 230), (60, 140, 60)
    for (y1, x1, y2, x2), color in ((CAT, (230, 120, 30)), (DOG, (120, 80, 50))):
        image[y1:y2, x1:x2] = color
    path = tmp_path_factory.mktemp("picture") / "animals.png"
    Image.fromarray(image).save(path)
    return str(path)


def names(result):
    return sorted(TABLE.by_id[s["category_id"]].name for s in result.segments)


def test_the_sliders_merge_without_the_model(picture, tmp_path):
    predictor = TwoAnimals()
    demo = Demo(predictor, str(tmp_path))
    result = demo.predict(picture, predictor.merge)
    assert names(result) == ["<b>dog</b>", "cat", "grass", "sky"]
    fewer = demo.merge(result, MergeConfig(score_threshold=0.7, stuff_area=100))
    assert names(fewer) == ["cat", "grass", "sky"]
    # Of grass 140 x 320 pixels less the lower 80 x 120 of the cat and the dog are left: 19600.
    assert names(demo.merge(fewer, MergeConfig(stuff_area=20000))) == ["<b>dog</b>", "cat", "sky"]
    again = demo.merge(fewer, predictor.merge)
    np.testing.assert_array_equal(again.panoptic_map, result.panoptic_map)
    assert again.segments == result.segments
    assert predictor.runs == 1
    png, file = demo.files(fewer, "someone")
    assert np.asarray(Image.open(png))[..., 0].max() == 3
    assert (
        json.loads(pathlib.Path(file).read_text(encoding="utf-8"))["segments_info"]
        == fewer.segments
    )


def test_the_overlay_holds_what_is_asked_for(picture):
    result = TwoAnimals()(picture)
    drawn = overlay(result)
    assert drawn.count("<path") == 4
    assert "cat 90%" in drawn and "&lt;b&gt;dog&lt;/b&gt; 60%" in drawn and "<b>" not in drawn
    things = overlay(result, ("things",))
    assert things.count("<path") == 2 and "grass" not in things
    cat = result.segments[0]["id"]
    assert f'class="segment s{cat}"' in drawn
    assert "320,100" in drawn  # x before y: where sky and grass meet at the right
    assert "nothing found" in overlay(result, ())
    result.image = None
    with pytest.raises(DataError, match="must hold its image"):
        overlay(result)


def test_a_large_picture_is_shown_smaller(picture):
    result = TwoAnimals()(picture)
    result.panoptic_map = result.panoptic_map.repeat(9, axis=0).repeat(9, axis=1)
    result.image = result.image.repeat(9, axis=0).repeat(9, axis=1)
    assert 'viewBox="0 0 960 720"' in overlay(result)


def test_examples_are_those_of_the_runs_data(tmp_path):
    config = resolve_data(load_config(TINY), tmp_path)
    run = types.SimpleNamespace(workdir=tmp_path, load_config=lambda: config)
    examples = example_images(run)
    assert len(examples) == 3 and all(Image.open(path).size == (96, 64) for path in examples)
    shutil.rmtree(tmp_path / "shapes")
    assert example_images(run) == []
    assert example_images(types.SimpleNamespace(workdir=None)) == []


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def served(picture):
    """The page's address, and its predictor."""
    predictor, port = TwoAnimals(), free_port()
    page = launch(predictor, [picture], port=port, blocks=False)
    yield f"http://127.0.0.1:{port}", predictor
    page.close()


def test_a_port_that_is_taken_is_one_line(served):
    address, predictor = served
    port = int(address.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"--port={port} cannot be had"):
        launch(predictor, [], port=port, blocks=False)


def test_the_command_needs_a_model(monkeypatch, capsys, tmp_path):
    assert run_here(monkeypatch, "tf_panoptic_fpn", "demo", tmp_path / "none") == 2
    assert "none: no such file or folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(served, browser, picture, tmp_path, width):
    address, predictor = served
    errors = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.set_input_files("input[type=file]", picture)
    page.wait_for_selector("#segments .segment", state="attached")
    runs = predictor.runs
    assert page.locator("#segments .segment").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cat = page.locator("#segments .segment", has_text="cat")
    label = page.locator("#segments text", has_text="cat 90%")
    page.locator("#segments svg").first.scroll_into_view_if_needed()
    assert not label.is_visible()
    cat.hover()
    assert label.is_visible()
    assert cat.evaluate("e => getComputedStyle(e).fillOpacity") != "0.45"
    page.screenshot(path=tmp_path / f"page_{width}.png", full_page=True)
    page.get_by_label("stuff", exact=True).click()
    page.wait_for_function("document.querySelectorAll('#segments .segment').length == 2")
    score = page.get_by_label("number input for Lowest score")
    score.fill("0.7")
    score.press("Enter")
    page.wait_for_function("document.querySelectorAll('#segments .segment').length == 1")
    assert predictor.runs == runs
    with page.expect_download() as download:
        page.get_by_text("JSON of segments").click()
    saved = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert [s["category_id"] for s in saved["segments_info"]] == [1, 10, 11]
    assert not errors
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    page.close()


def test_a_file_that_is_no_image_is_one_line(served, browser, tmp_path):
    address, _ = served
    (tmp_path / "text.png").write_bytes(b"no image")
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("input[type=file]", tmp_path / "text.png")
    page.wait_for_selector("text=cannot be decoded")
    page.close()
