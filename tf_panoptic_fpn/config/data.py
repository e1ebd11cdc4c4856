"""The section `data`: where the images are and how they become batches."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tf_panoptic_fpn.formats.cityscapes import CityscapesSplit
from tf_panoptic_fpn.formats.coco_instances import CocoInstancesSplit
from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit
from tf_panoptic_fpn.formats.coco_stuff import CocoStuffSplit
from tf_panoptic_fpn.formats.label_maps import LabelMapsSplit
from tf_panoptic_fpn.section import Broken, Count, Path, Positive, Section, Share, rule, setting

# A new format is a file in formats/ and a name here.
AnySplit = Annotated[
    CocoPanopticSplit | CocoInstancesSplit | CocoStuffSplit | CityscapesSplit | LabelMapsSplit,
    Field(discriminator="format"),
]
_FORMAT = "coco_panoptic"  # where none is named
_TRAIN = {"short_sides": (640, 672, 704, 736, 768, 800), "flip_probability": 0.5}
Side = Annotated[int, Field(ge=64)]
Pixel = Annotated[int, Field(ge=0, le=65535)]
Multiple = Annotated[int, Field(gt=0, multiple_of=32)]


def _train_defaults(tree: Any) -> Any:
    tree = {} if tree is None else tree
    return {"format": _FORMAT, **_TRAIN, **tree} if isinstance(tree, dict) else tree


def _validation_defaults(tree: Any) -> Any:
    tree = {} if tree is None else tree
    return {"format": _FORMAT, **tree} if isinstance(tree, dict) else tree


class ShapesConfig(Section):
    """The embedded data set: drawn shapes over textured stuff, written to `WORKDIR/shapes`."""

    train_images: Count = setting(240, "images to train on")
    validation_images: Count = setting(40, "images to evaluate on")
    image_size: tuple[Side, Side] = setting((128, 160), "height and width in pixels")
    seed: int = setting(0, "of the drawing", ge=0)


class AugmentConfig(Section):
    """Augmentation of the training images, beside `short_sides` and `flip_probability`."""

    short_side_sampling: Literal["choice", "range"] = setting(
        "choice", "one of `short_sides`, or any side from the smallest to the largest"
    )
    scale_range: tuple[Positive, ...] = setting(
        (), "smallest and largest factor that images are scaled by, in place of `short_sides`"
    )
    scale_relative_to: Literal["image", "crop"] = setting(
        "image", "factors of its own size, or of the largest size that fits the crop"
    )
    crop_size: tuple[Count, ...] = setting((), "height and width in pixels; empty for no crop")
    crop_by_class_probability: Share = setting(
        0.0, "of a crop that holds a pixel of a class drawn from those in the image"
    )
    color_distortion: bool = setting(False, "brightness, contrast, saturation and hue")
    copy_paste_probability: Share = setting(
        0.0, "of pasting about half of another image's instances"
    )

    @rule
    def two_scales(self) -> Broken:
        if self.scale_range and not (
            len(self.scale_range) == 2 and self.scale_range[0] <= self.scale_range[1]
        ):
            return "scale_range", "two factors above 0 in ascending order, or empty"
        return None

    @rule
    def height_and_width(self) -> Broken:
        if len(self.crop_size) not in (0, 2):
            return "crop_size", "a height and a width above 0, or empty"
        return None

    @rule
    def crop_to_scale_to(self) -> Broken:
        if self.scale_relative_to == "crop" and not (self.scale_range and self.crop_size):
            return "scale_relative_to", "image without a scale_range and a crop_size"
        return None

    @rule
    def crop_to_choose(self) -> Broken:
        if self.crop_by_class_probability and not self.crop_size:
            return "crop_by_class_probability", "0 without a crop_size"
        return None


class DataConfig(Section):
    """Where the images are and how they become batches."""

    root: Path = setting("", "folder that the paths of the splits are taken from")
    source: str = setting("", "where the data set is published, said where `root` lacks it")
    index_cache: Path = setting(
        "", "folder of the compiled annotations; `.panoptic_index` in `root`, or the user's cache"
    )
    shapes: ShapesConfig | None = setting(None, "the embedded data set, in place of paths")
    train: Annotated[AnySplit, BeforeValidator(_train_defaults)] = Field(
        default_factory=lambda: CocoPanopticSplit.model_validate(_TRAIN),
        description="what is trained on",
    )
    validation: Annotated[AnySplit, BeforeValidator(_validation_defaults)] = Field(
        default_factory=CocoPanopticSplit, description="what is evaluated on"
    )
    augment: AugmentConfig = Field(
        default_factory=AugmentConfig, description="augmentation of the training images"
    )
    max_damaged_share: Share = setting(0.01, "training stops above it, and above 3 images")
    repeat_threshold: Share = setting(
        0.0, "images with a thing that fewer than this share have come more often (LVIS: 0.001)"
    )
    max_instances: Count = setting(100, "of an image, the largest")
    pixel_range: tuple[Pixel, Pixel] = setting(
        (0, 65535), "values of 16-bit grey images that become 0 and 255; the rest is clipped"
    )
    canvases: tuple[tuple[Multiple, Multiple], ...] = setting(
        (), "sizes that batches are padded to, the smallest that fits; their own without any"
    )

    @rule
    def range_ascends(self) -> Broken:
        if self.pixel_range[0] >= self.pixel_range[1]:
            return "pixel_range", "two values in ascending order"
        return None

    @rule
    def records_are_for_training(self) -> Broken:
        if self.validation.records:
            return "validation.records", "left out: records are for training"
        return None

    @rule
    def canvas_holds_the_images(self) -> Broken:
        crop, sides, longest = (
            self.augment.crop_size,
            self.train.short_sides,
            self.train.max_long_side,
        )
        if not self.canvases:
            return None
        if crop:
            if not any(h >= crop[0] and w >= crop[1] for h, w in self.canvases):
                return (
                    "canvases",
                    f"as large as data.augment.crop_size, {list(crop)}, at least once",
                )
        elif not self.augment.scale_range:
            short = min(max(sides), longest)
            if not any(min(c) >= short or max(c) >= longest for c in self.canvases):
                return "canvases", (
                    f"as large as the images, of short sides up to {short} and long sides up to "
                    f"{longest}, at least once"
                )
        return None
