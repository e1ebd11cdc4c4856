"""The page: a picture in, its segments to look at, files to take away."""

import contextlib
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import gradio as gr

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.data.splits import load_split
from tf_panoptic_fpn.demo.overlay import overlay
from tf_panoptic_fpn.errors import ConfigError, PanopticError
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.inference.merge import Merger
from tf_panoptic_fpn.inference.model_source import ModelSource
from tf_panoptic_fpn.results.result import Result

KINDS = ("things", "stuff")
NUM_EXAMPLES = 3
CACHE_SECONDS = 3600  # that pictures stay on disk
FONT = ["system-ui", "sans-serif"]  # nothing is loaded from another host


class Demo:
    """What the page does.

    Args:
        predictor: an `ImagePredictor`.
        folder: for the files to be taken away.
    """

    def __init__(self, predictor: ImagePredictor, folder: str) -> None:
        self.predictor = predictor
        self._folder = pathlib.Path(folder)
        self._merger = Merger(predictor.categories)

    def predict(self, path: str, merge: MergeConfig) -> Result:
        """Runs the model on an image file, and merges at the thresholds of the page."""
        result = self.predictor(path)
        return result if merge == self.predictor.merge else self.merge(result, merge)

    def merge(self, result: Result, merge: MergeConfig) -> Result:
        """Merges once more what the model said, which does not run again."""
        size = result.panoptic_map.shape
        merged: dict[str, Any] = self._merger(result.detections, result.semantic_map, size, merge)
        if result.detections is not None:
            merged[schema.INSTANCES] = result.detections
        if result.semantic_map is not None:
            merged[schema.SEMANTIC_MAP] = result.semantic_map
        again = Result.from_outputs(merged, result.categories, result.image)
        again.file_name = result.file_name
        return again

    def files(self, result: Result, session: str) -> tuple[str, str]:
        """Writes the PNG and the JSON of a `Result`; those of the session before are replaced."""
        folder = self._folder / session
        stem = pathlib.PurePath(result.file_name).stem or "image"
        result.save(folder, stem, ("png", "json"))
        return str(folder / f"{stem}_panoptic.png"), str(folder / f"{stem}.json")

    # What the page calls; Gradio puts the `Request` in by its type.

    def on_change(
        self,
        given: str | Result | None,
        kinds: list[str],
        score: float,
        overlap: float,
        area: float,
        request: gr.Request,
    ) -> list[Any]:
        """Of a new picture, or of a result whose thresholds have changed."""
        if given is None:
            return _nothing()
        with _one_line():
            merge = MergeConfig(
                score_threshold=float(score), overlap_threshold=float(overlap), stuff_area=int(area)
            )
            if isinstance(given, Result):
                result = self.merge(given, merge)
            else:
                result = self.predict(given, merge)
            files = self.files(result, request.session_hash or "session")
            return [result, overlay(result, tuple(kinds)), *_buttons(*files)]

    def on_kinds(self, result: Result | None, kinds: list[str]) -> str:
        return "" if result is None else overlay(result, tuple(kinds))


def build_page(demo: Demo, examples: Sequence[str] = ()) -> gr.Blocks:
    """Makes the page.

    Args:
        demo: `Demo`.
        examples: paths of images to try.
    """
    merge = demo.predictor.merge
    delete_cache = (CACHE_SECONDS, CACHE_SECONDS)
    with gr.Blocks(
        title="Panoptic FPN", analytics_enabled=False, delete_cache=delete_cache
    ) as page:
        state = gr.State()
        with gr.Row():
            with gr.Column():
                image = gr.Image(
                    label="Picture",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=320,
                )
                # Gradio would open the file itself, and say of one that is no image just "Error".
                image.preprocess = lambda payload: None if payload is None else payload.path
                if examples:
                    gr.Examples([[path] for path in examples], image)
            with gr.Column(scale=2):
                shown = gr.HTML(elem_id="segments")
                with gr.Row():
                    png = gr.DownloadButton("PNG of segment ids", interactive=False)
                    json = gr.DownloadButton("JSON of segments", interactive=False)
        with gr.Row():  # below the segments on a phone too
            kinds = gr.CheckboxGroup(list(KINDS), value=list(KINDS), label="Show")
            sliders = [
                gr.Slider(0, 1, merge.score_threshold, step=0.01, label="Lowest score"),
                gr.Slider(0, 1, merge.overlap_threshold, step=0.01, label="Most overlap"),
                gr.Slider(
                    *(0, max(20000, merge.stuff_area), merge.stuff_area),
                    step=1,
                    label="Smallest stuff, pixels",
                ),
            ]
        outputs = [state, shown, png, json]

        image.change(demo.on_change, [image, kinds, *sliders], outputs)
        for slider in sliders:
            # While it is dragged, what comes meanwhile is left out but for the last.
            slider.change(
                demo.on_change, [state, kinds, *sliders], outputs, trigger_mode="always_last"
            )
        kinds.change(demo.on_kinds, [state, kinds], shown)
    return page


def _nothing() -> list[Any]:
    return [None, "", *_buttons()]


def _buttons(png: str | None = None, json: str | None = None) -> tuple[Any, Any]:
    return tuple(
        gr.DownloadButton(value=path, interactive=path is not None) for path in (png, json)
    )


@contextlib.contextmanager
def _one_line() -> Any:
    """Shows what is wrong with an input on the page."""
    try:
        yield
    except PanopticError as error:
        raise gr.Error(str(error), print_exception=False) from None


def example_images(source: ModelSource) -> list[str]:
    """Returns the first images of a run's validation split; none if its data is not there."""
    if not source.workdir:
        return []
    try:
        records = load_split(source.load_config().data, "validation").images
    except PanopticError:
        return []
    paths = [record.image_path for record in records[:NUM_EXAMPLES]]
    return [path for path in paths if pathlib.Path(path).is_file()]


def launch(
    predictor: ImagePredictor,
    examples: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 7860,
    blocks: bool = True,
) -> gr.Blocks:
    """Serves the page.

    Args:
        predictor: an `ImagePredictor`.
        examples: paths of images to try.
        host, port: str and int, where to listen; "0.0.0.0" for every network.
        blocks: bool, whether to return only when the server has ended.

    Raises:
        ConfigError: if the port cannot be had.
    """
    folder = tempfile.TemporaryDirectory(prefix="tf_panoptic_fpn_demo_")
    page = build_page(Demo(predictor, folder.name), examples)
    page.temporary_folder = folder  # goes with the page
    try:
        page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=not blocks,
            theme=gr.themes.Default(font=FONT, font_mono=["monospace"]),
            footer_links=[],
            allowed_paths=[folder.name],
        )
    except OSError as error:
        raise ConfigError(f"--port={port} cannot be had: {error}") from None
    return page
