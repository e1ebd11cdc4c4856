"""The whole configuration: its sections and the rules between them."""

from collections.abc import Iterator

from pydantic import Field

from tf_panoptic_fpn.config.data import DataConfig
from tf_panoptic_fpn.config.evaluate import EvaluateConfig
from tf_panoptic_fpn.config.merge import MergeConfig
from tf_panoptic_fpn.config.model import RESNETS, ModelConfig
from tf_panoptic_fpn.config.optimizer import OptimizerConfig
from tf_panoptic_fpn.config.serve import ServeConfig
from tf_panoptic_fpn.config.train import TrainConfig
from tf_panoptic_fpn.config.tta import TTAConfig
from tf_panoptic_fpn.section import Broken, Section, rule

_DEFAULT = OptimizerConfig()


class Config(Section):
    """Everything that one run needs."""

    model: ModelConfig = Field(default_factory=ModelConfig, description="the network")
    data: DataConfig = Field(default_factory=DataConfig, description="the images")
    optimizer: OptimizerConfig = Field(
        default_factory=OptimizerConfig, description="the optimizer and its learning rate"
    )
    train: TrainConfig = Field(default_factory=TrainConfig, description="the loop of training")
    evaluate: EvaluateConfig = Field(
        default_factory=EvaluateConfig, description="validation during training"
    )
    merge: MergeConfig = Field(default_factory=MergeConfig, description="the panoptic merge")
    tta: TTAConfig = Field(default_factory=TTAConfig, description="test-time augmentation")
    serve: ServeConfig = Field(default_factory=ServeConfig, description="the exported model")

    @rule
    def tasks_of_the_training_data(self) -> Broken:
        return self._tasks_of("train")

    @rule
    def tasks_of_the_validation_data(self) -> Broken:
        return self._tasks_of("validation")

    def _tasks_of(self, name: str) -> Broken:
        split = getattr(self.data, name)
        if split.tasks not in (None, self.model.tasks):
            return "model.tasks", f"{list(split.tasks)} with data.{name}.format: {split.format}"
        return None

    @rule
    def alternation_needs_two_tasks(self) -> Broken:
        if self.train.loss_schedule == "alternating" and len(self.model.tasks) < 2:
            return "train.loss_schedule", "combined where model.tasks has a single one"
        return None

    @rule
    def compiled_shapes_are_static(self) -> Broken:
        if self.train.jit_compile and not self.data.canvases:
            return "data.canvases", "given with train.jit_compile: XLA compiles static shapes"
        return None

    @rule
    def blocks_to_rematerialize(self) -> Broken:
        if self.train.rematerialize and self.model.backbone not in RESNETS:
            return "train.rematerialize", f"false with {self.model.backbone}: it is of ResNets"
        return None

    @rule
    def best_is_of_a_task(self) -> Broken:
        kind = self.evaluate.keep_best.partition(".")[0]
        task = {"box_ap": "instance", "mask_ap": "instance", "semantic": "semantic"}.get(kind)
        if task and task not in self.model.tasks:
            return "evaluate.keep_best", f"a figure of model.tasks, {list(self.model.tasks)}"
        return None

    # A shorter run of the defaults does no harm, so that only what is given is held to its steps.
    @rule
    def drops_within_training(self) -> Broken:
        drops = self.optimizer.drop_steps
        if drops and drops != _DEFAULT.drop_steps and max(drops) > self.train.steps:
            return "optimizer.drop_steps", f"at most train.steps ({self.train.steps})"
        return None

    @rule
    def warmup_within_training(self) -> Broken:
        steps = self.optimizer.warmup_steps
        if steps != _DEFAULT.warmup_steps and steps > self.train.steps:
            return "optimizer.warmup_steps", f"at most train.steps ({self.train.steps})"
        return None

    def warnings(self) -> Iterator[str]:
        """Yields what is likely a slip, a line each."""
        train, validation = self.data.train, self.data.validation
        if train.paths("") and train.paths("") == validation.paths(""):
            yield "`data.validation` has the files of `data.train`: the figures will be too good"
        if _DEFAULT.warmup_steps == self.optimizer.warmup_steps > self.train.steps:
            yield (
                f"`optimizer.warmup_steps` ({_DEFAULT.warmup_steps} by default) is more than "
                f"`train.steps` ({self.train.steps}): the learning rate stays below its value"
            )
        if self.train.match_classes != "same" and not self.train.initial_weights:
            yield "`train.match_classes` is given without `train.initial_weights`: from scratch"
