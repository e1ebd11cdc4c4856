"""The section `evaluate`: validation while training goes on."""

from typing import Literal

from tf_panoptic_fpn.section import Broken, Section, rule, setting

Figure = Literal[
    "",
    "panoptic.All.PQ",
    "panoptic.Things.PQ",
    "panoptic.Stuff.PQ",
    "box_ap.AP",
    "mask_ap.AP",
    "semantic.mIoU",
]


class EvaluateConfig(Section):
    """What is evaluated during training; at its end the whole validation split always is."""

    every: int = setting(0, "steps between validations; 0: none before the end", ge=0)
    images: int = setting(0, "the first so many of the validation split; 0 is all", ge=0)
    pictures: int = setting(4, "of these, drawn beside their ground truth each time", ge=0)
    keep_best: Figure = setting("", "figure whose best model is kept, then evaluated and exported")
    patience: int = setting(0, "validations without a better one that end training; 0: off", ge=0)

    @rule
    def best_needs_validations(self) -> Broken:
        if self.keep_best and not self.every:
            return "every", f"above 0 with evaluate.keep_best: {self.keep_best}"
        return None

    @rule
    def patience_needs_a_figure(self) -> Broken:
        if self.patience and not self.keep_best:
            return "keep_best", f"given with evaluate.patience: {self.patience}"
        return None
