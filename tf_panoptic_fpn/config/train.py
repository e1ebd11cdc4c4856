"""The section `train`: the loop."""

from typing import Literal

from tf_panoptic_fpn.section import Broken, Count, Path, Positive, Section, Share, rule, setting

WeightSource = Literal[
    "infer", "detectron2", "torchvision", "mmdet", "keras_applications", "tf_panoptic_fpn"
]


class TrainConfig(Section):
    """The loop of training. With `alternating` odd steps train on the instance losses, even ones on
    the semantic loss.
    """

    steps: Count = setting(90000, "steps of the optimizer")
    loss_schedule: Literal["combined", "alternating"] = setting("combined", "losses of a step")
    initial_weights: Path = setting(
        "", "what a new run starts from: a published model's name, a checkpoint, a run's folder"
    )
    initial_weights_source: WeightSource = setting(
        "infer", "whose checkpoint it is, where its contents do not say"
    )
    match_classes: Literal["same", "by_name", "none"] = setting(
        "same",
        "which classes take over the checkpoint's predictors: all, those of equal names, none",
    )
    class_synonyms: dict[str, str] = setting({}, "by_name: own class -> its name in the checkpoint")
    initial_categories: Path = setting(
        "", "by_name: JSON list of the checkpoint's categories, where it brings none"
    )
    class_weights: dict[str, Positive] = setting(
        {}, "name of a category: its weight in the losses of classes; 1 without"
    )
    batch_size: Count = setting(16, "images of a step, on all replicas together")
    accumulate: Count = setting(1, "micro-batches that each replica's images are trained on in")
    replicas: Count = setting(1, "logical CPU devices where there is no GPU; all GPUs otherwise")
    gpu_memory: Literal["growth", "all"] | Count = setting(
        "growth", "of each GPU: as it is needed, all at once, or a number of MB"
    )
    seed: int = setting(0, "of the weights, the order of images and all draws", ge=0)
    deterministic: bool = setting(False, "a repeated run ends with the same weights, bit for bit")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = setting(
        "float32", "of features and their gradients; weights, losses and boxes stay float32"
    )
    rematerialize: bool = setting(
        False, "compute a ResNet's blocks twice instead of keeping them: less memory"
    )
    jit_compile: bool = setting(False, "compile the step by XLA; needs `data.canvases`")
    average_decay: Share = setting(
        0.0, "of the average of the weights that is the result, such as 0.9998; 0 is none"
    )
    max_skipped: Count = setting(50, "steps in a row without finite gradients that stop the run")
    checkpoint_every: Count = setting(1000, "steps between checkpoints")
    profile: tuple[Count, ...] = setting((), "first and last step that TensorBoard profiles")
    log_every: Count = setting(20, "steps between lines of the log")

    @rule
    def batch_divides(self) -> Broken:
        if self.batch_size % self.replicas:
            return "batch_size", f"a multiple of train.replicas ({self.replicas})"
        if self.batch_size % (self.replicas * self.accumulate):
            return "batch_size", (
                f"a multiple of train.replicas x train.accumulate ({self.replicas} x "
                f"{self.accumulate})"
            )
        return None

    @rule
    def synonyms_are_of_names(self) -> Broken:
        if self.class_synonyms and self.match_classes != "by_name":
            return "class_synonyms", "empty unless train.match_classes is by_name"
        return None

    @rule
    def categories_are_of_names(self) -> Broken:
        if self.initial_categories and self.match_classes != "by_name":
            return "initial_categories", "empty unless train.match_classes is by_name"
        return None

    @rule
    def profile_is_a_range(self) -> Broken:
        if self.profile and (len(self.profile) != 2 or self.profile[0] > self.profile[1]):
            return "profile", "a first and a last step"
        return None
