"""From an image as read to a training sample: its augmentations, and the random draws of them.

A sample is a dict of tensors of one image, under the keys of the batch that it becomes a part of
(`schema`), before padding: `images` uint8 [H, W, 3], `semantic` uint8 or uint16 [H, W], of which
the largest value is ignored, `gt_boxes` float32 [n, 4], `gt_masks` uint8 [n, 112, 112],
`gt_classes` int32 [n], `gt_is_crowd` bool [n]. Masks are in the frame of their own box, so that
resizing leaves them as they are and a flip mirrors them.
"""

import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import DataConfig
from tf_panoptic_fpn.data import instance_masks
from tf_panoptic_fpn.data.color_distortion import distort_color
from tf_panoptic_fpn.data.copy_paste import keep_largest, paste
from tf_panoptic_fpn.data.geometry import (
    Geometry,
    draw_pixel_of_class,
    draw_size,
    draw_window,
    flip_masks,
    paint_runs,
    resize_boxes,
    resize_image,
    resize_labels,
    resize_point,
    uniform_int,
)

Loaded = dict[str, tf.Tensor]  # see `loading.ImageLoader`
_FIRST_THING = 2**16  # keeps thing classes apart from semantic ones
_NUM_DRAWS = 20
# What is drawn for one place in the run, each from a stream of its own.
_IMAGE, _DONOR, _PASTED, _SEED = range(4)


class Augmentation:
    """Makes training samples by the settings of a `DataConfig`.

    What happens to an image depends on the run's seed and on its place in the run alone.

    Args:
        data_config: `DataConfig`.
        seed: int, of the run.
        label_dtype: of the samples' `semantic`, uint8 or uint16, by the number of classes.
    """

    def __init__(
        self, data_config: DataConfig, seed: int, label_dtype: tf.DType = tf.uint8
    ) -> None:
        self.split_config = data_config.train
        self.settings = data_config.augment
        self.max_instances = data_config.max_instances
        self.seed = seed
        self.label_dtype = tf.as_dtype(label_dtype)

    def sample(
        self, position: tf.Tensor, loaded: Loaded, donor: Loaded | None = None
    ) -> dict[str, tf.Tensor]:
        """Makes the sample of an image.

        Args:
            position: int64 `[]`, the image's place in the run.
            loaded: dict, see `loading.ImageLoader`.
            donor: the same of another image, to paste instances from, or of none.

        Returns:
            A dict, see the head of this module.
        """
        sample = self._transformed(loaded, self.geometry(position, loaded), position, _IMAGE)
        if donor is not None:
            sample = tf.cond(
                donor["row"] >= 0,
                lambda: self._pasted(position, sample, donor),
                lambda: sample,
            )
        seed = self._seed(position, _SEED)
        return {
            **sample,
            schema.IMAGE_SIZES: tf.shape(sample[schema.SEMANTIC]),
            schema.IMAGE_SEEDS: tf.random.stateless_uniform(
                [], seed, 0, tf.int32.max, tf.int32, alg="philox"
            ),
        }

    def geometry(self, position: tf.Tensor, loaded: Loaded) -> Geometry:
        """Draws the `Geometry` of the image at a position."""
        return self._geometry(loaded, self._draws(position, _IMAGE))

    def donor_row(self, position: tf.Tensor, num_images: int) -> tf.Tensor:
        """Returns int32 `[]`: the image whose instances are pasted in, -1 for none."""
        draws = self._draws(position, _DONOR)
        is_pasted = draws[0] < self.settings.copy_paste_probability
        return tf.where(is_pasted, uniform_int(draws[1], num_images), -1)

    def donor_geometry(self, position: tf.Tensor, donor: Loaded, max_size: tf.Tensor) -> Geometry:
        """Draws the `Geometry` of a donor, of a result no larger than `max_size` (int32 `[2]`)."""
        return self._geometry(donor, self._draws(position, _DONOR), max_size)

    def donated(self, position: tf.Tensor, donor: Loaded) -> tf.Tensor:
        """Returns bool `[n]`: which instances of a donor are pasted; a crowd never is."""
        seed = self._seed(position, _PASTED)
        chances = tf.random.stateless_uniform(tf.shape(donor["classes"]), seed, alg="philox")
        return (chances < 0.5) & ~donor["is_crowd"]

    def _seed(self, position: tf.Tensor, stream: int) -> tf.Tensor:
        return tf.stack([tf.constant(self.seed, tf.int64), 4 * position + stream])

    def _draws(self, position: tf.Tensor, stream: int) -> tf.Tensor:
        seed = self._seed(position, stream)
        return tf.random.stateless_uniform([_NUM_DRAWS], seed, alg="philox")

    def _geometry(
        self, loaded: Loaded, draws: tf.Tensor, max_size: tf.Tensor | None = None
    ) -> Geometry:
        settings = self.settings
        source_size = tf.shape(loaded["image"])[:2]
        size = draw_size(source_size, self.split_config, settings, draws[2])
        crop = tf.constant(settings.crop_size or (tf.int32.max,) * 2)
        if max_size is not None:
            crop = tf.minimum(crop, max_size)
        focus = None
        if settings.crop_by_class_probability > 0:
            is_drawn, pixel = draw_pixel_of_class(*_classes(loaded), draws[6:10])
            is_drawn &= draws[10] < settings.crop_by_class_probability
            focus = is_drawn, resize_point(pixel, source_size, size)
        is_flipped = draws[3] < self.split_config.flip_probability
        return Geometry(source_size, size, draw_window(size, crop, draws[4:6], focus), is_flipped)

    def _transformed(
        self,
        loaded: Loaded,
        geometry: Geometry,
        position: tf.Tensor,
        stream: int,
        chosen: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The sample of an image by a `Geometry`, of its `chosen` instances (bool `[n]`)."""
        boxes, areas = instance_masks.tight_boxes(
            loaded["rectangles"],
            loaded["owners"],
            tf.size(loaded["classes"]),
            geometry.shown,
            geometry.source_window,
        )
        if chosen is not None:
            areas = tf.where(chosen, areas, 0)
        kept = keep_largest(areas, self.max_instances)
        boxes = tf.gather(boxes, kept)
        image = resize_image(loaded["image"], geometry)
        if self.settings.color_distortion:
            image = distort_color(image, self._draws(position, stream)[11:20])
        return {
            schema.IMAGES: image,
            schema.SEMANTIC: self._semantic(loaded, geometry),
            schema.GT_BOXES: resize_boxes(boxes, geometry),
            schema.GT_MASKS: flip_masks(_masks(loaded, kept, boxes), geometry),
            schema.GT_CLASSES: tf.gather(loaded["classes"], kept),
            schema.GT_IS_CROWD: tf.gather(loaded["is_crowd"], kept),
        }

    def _semantic(self, loaded: Loaded, geometry: Geometry) -> tf.Tensor:
        if "map_classes" not in loaded:
            return tf.fill(geometry.size, tf.constant(self.label_dtype.max, self.label_dtype))
        return paint_runs(
            loaded["map_rectangles"], loaded["map_classes"], geometry, self.label_dtype
        )

    def _pasted(
        self, position: tf.Tensor, sample: dict[str, tf.Tensor], donor: Loaded
    ) -> dict[str, tf.Tensor]:
        chosen = self.donated(position, donor)
        geometry = self.donor_geometry(position, donor, tf.shape(sample[schema.SEMANTIC]))
        pasted = self._transformed(donor, geometry, position, _DONOR, chosen)
        covered = _covered(donor, chosen, geometry)
        return paste(sample, pasted, covered, self.max_instances)


def _classes(loaded: Loaded) -> tuple[tf.Tensor, tf.Tensor]:
    """Rectangles of an image and the class of each, -1 for none."""
    classes = loaded["classes"] + _FIRST_THING
    rectangles, owners = loaded["rectangles"], loaded["owners"]
    things = tf.gather(tf.concat([classes, [-1]], 0), _or_last(owners, classes))
    if "map_classes" not in loaded:
        return rectangles, things
    labels = loaded["map_classes"]
    if "ids" in loaded:  # the rectangles of the instances are those of the map
        return rectangles, tf.where(owners < 0, labels, things)
    rectangles = tf.concat([loaded["map_rectangles"], rectangles], 0)
    return rectangles, tf.concat([labels, things], 0)


def _masks(loaded: Loaded, kept: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Box-frame masks of the kept instances of an image."""
    if "ids" in loaded:
        return instance_masks.masks_from_map(
            loaded["ids"], tf.gather(loaded["map_ids"], kept), boxes
        )
    place = tf.scatter_nd(
        kept[:, None], tf.range(1, tf.size(kept) + 1), tf.shape(loaded["classes"])
    )
    owners = tf.gather(place - 1, loaded["run_owners"])  # -1 for those not kept
    runs = loaded["run_starts"], loaded["run_ends"], owners
    return instance_masks.masks_from_runs(*runs, boxes, tf.shape(loaded["image"])[:2])


def _covered(loaded: Loaded, chosen: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Bool `[h, w]`: the pixels of the chosen instances of an image."""
    if "ids" in loaded:
        owners = loaded["owners"]
        is_chosen = tf.gather(tf.concat([chosen, [False]], 0), _or_last(owners, chosen))
        values = tf.cast(is_chosen, tf.int32)
        return paint_runs(loaded["rectangles"], values, geometry) > 0
    runs = loaded["run_starts"], loaded["run_ends"], loaded["run_owners"]
    union = instance_masks.union_of_runs(*runs, chosen, geometry.source_size)
    return resize_labels(union, geometry)


def _or_last(positions: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Positions in values to which one more was appended, which -1 is made to find."""
    return tf.where(positions < 0, tf.size(values), positions)
