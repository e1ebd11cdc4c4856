"""What a run will read, looked at before its first step."""

from tf_panoptic_fpn.config import Config
from tf_panoptic_fpn.data.index import DatasetIndex
from tf_panoptic_fpn.data.splits import check_categories, load_index, load_split
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.evaluation.running_metrics import check_occurring, occurring_categories
from tf_panoptic_fpn.models.build_model import check_backbone
from tf_panoptic_fpn.weights.initial_weights import InitialWeights, read_initial_weights
from tf_panoptic_fpn.workdir import Workdir


def read_start(config: Config, workdir: Workdir) -> InitialWeights | None:
    """Reads what a new run starts from, before its data; a run that goes on needs nothing.

    Raises:
        ConfigError: if the backbone cannot be made.
        WeightsError: if it cannot be read, or its classes are not the model's and need to be.
    """
    if any(workdir.checkpoints.glob("ckpt-*.index")):
        return None
    check_backbone(config.model)
    return read_initial_weights(config.train, config.model.model_dump())


def load_checked_index(config: Config) -> DatasetIndex:
    """Loads the index of the training split, and reads all annotations of the validation split.

    Args:
        config: `Config`, resolved.

    Returns:
        The `DatasetIndex` of the training split.

    Raises:
        ConfigError: if the model does not fit the categories of either split.
        DataError: if a file of either split is missing or breaks a rule, or no annotation of the
            validation split can be scored.
    """
    things = config.model.semantic_things
    index = load_index(config.data, "train", things)
    check_categories(config, index.categories, "train")
    validation = load_split(config.data, "validation", things)
    check_categories(config, validation.categories, "validation")
    for kind in ("thing_ids", "stuff_ids"):
        expected = getattr(index.categories, kind)
        received = getattr(validation.categories, kind)
        if expected != received:
            raise ConfigError(
                f"`data.validation` must have the {kind} of `data.train`, {expected}. "
                f"Received: {received}"
            )
    # A broken rule of an annotation is found when it is read.
    check_occurring(set().union(*map(occurring_categories, validation.images)))
    return index
