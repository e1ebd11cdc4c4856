"""The shipped recipes, against what the paper and the authors' code do."""

import pathlib

import pytest

from tf_panoptic_fpn import PanopticFPN, config
from tf_panoptic_fpn.config.recipes import find_config

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
PAPER = sorted((CONFIGS / "paper").glob("*.yaml"))
NAMES = config.list_recipes()


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")))
def test_shipped_configs_load(path):
    assert isinstance(config.load_config(path), config.Config)


def test_a_name_stands_for_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"quickstart", "paper/table3a_coco_r50"} < set(NAMES)
    assert len(NAMES) == len(list(CONFIGS.rglob("*.yaml")))
    for name in ("quickstart", "paper/table2a_coco_lambda_s_0.5"):
        assert find_config(name).read_bytes() == (CONFIGS / f"{name}.yaml").read_bytes()
    (tmp_path / "quickstart").mkdir()
    assert find_config("quickstart").read_bytes() == (CONFIGS / "quickstart.yaml").read_bytes()
    (tmp_path / "quickstart").rmdir()
    (tmp_path / "quickstart").write_text("train: {steps: 3}")
    assert config.load_config("quickstart").train.steps == 3


def test_the_papers_rows():
    """One file a row and data set: Tables 1a, 1b, 1c, 1d; 2a to 2d; 3a to 3d; 4a, 4b."""
    assert len(PAPER) == (2 + 1 + 6 + 4) + 4 * 6 + (2 + 2 + 4 + 4) + 2
    index = (CONFIGS / "paper/README.md").read_text(encoding="utf-8")
    for path in PAPER:
        text = path.read_text(encoding="utf-8")
        table = path.stem.split("_")[0].removeprefix("table")
        assert f"arXiv:1901.02446, Table {table}" in text
        assert f"train.py --config=configs/paper/{path.name}" in text
        assert f"]({path.name})" in index


# What changes the shape of the network in the recipes; the widths do not.
STRUCTURE = ("tasks", "fpn_groups", "semantic_design", "semantic_fuse", "semantic_things")


def test_every_recipe_builds():
    """At a fraction of the width; recipes of one structure are built once."""
    recipes = [*PAPER, *sorted(CONFIGS.glob("c*.yaml"))]
    built = {}
    for path in recipes:
        model = config.load_config(path).model
        key = tuple(getattr(model, name) for name in STRUCTURE)
        built.setdefault(key, model)
    assert len(built) >= 7
    for model in built.values():
        narrow = {"backbone": "resnet18", "fpn_channels": 8, "semantic_channels": 32}
        narrow["drop_path"] = 0.0
        arguments = {**model.model_dump(), **narrow, "box_head_units": 8}
        keys = set(PanopticFPN(**arguments).output)
        assert ("semantic_logits" in keys) == ("semantic" in model.tasks)
        assert ("mask_probs" in keys) == ("instance" in model.tasks)


# What a recipe must say, by the source that says so: a dotted key -> its value.

# detectron2, configs/COCO-PanopticSegmentation/Base-Panoptic-FPN.yaml and Base-RCNN-FPN.yaml, and
# the defaults of detectron2/config/defaults.py; section 4.1 of the paper has the same for COCO: the
# 1x schedule of Mask R-CNN, short sides from 640 to 800.
SOLVER = {
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.warmup_steps": 1000,
    "optimizer.warmup_factor": 1 / 1000,
    "optimizer.drop_factor": 0.1,
    "optimizer.clip_norm": 0.0,
    "merge.score_threshold": 0.5,
    "merge.overlap_threshold": 0.5,
    "merge.stuff_area": 4096,
    "model.norm": "frozen_affine",
    "model.freeze_at": 2,
    "model.fpn_channels": 256,
    "model.pixel_mean": (123.675, 116.28, 103.53),
    "model.anchor_sizes": (32, 64, 128, 256, 512),
    "model.rpn_top_k_train": (2000, 1000),
    "model.rois_per_image": 512,
    "data.train.flip_probability": 0.5,
    "data.validation.flip_probability": 0.0,
}
COCO = {
    **SOLVER,
    "model.num_thing_classes": 80,
    "model.semantic_things": "other",
    "data.train.short_sides": (640, 672, 704, 736, 768, 800),
    "data.train.max_long_side": 1333,
    "data.validation.short_sides": (800,),
    "data.validation.max_long_side": 1333,
    "data.augment.crop_size": (),
    "data.augment.crop_by_class_probability": 0.0,
    "optimizer.learning_rate": 0.02,
    "train.batch_size": 16,
}
COCO_PANOPTIC = {
    **COCO,
    "model.num_stuff_classes": 53,
    "data.train.format": "coco_panoptic",
    "data.train.images": "train2017",
    "data.train.panoptic_json": "annotations/panoptic_train2017.json",
    "data.validation.images": "val2017",
    "data.validation.panoptic_json": "annotations/panoptic_val2017.json",
    "data.augment.color_distortion": False,
    "optimizer.drop_steps": (60000, 80000),
    "train.steps": 90000,
}
# detectron2 trains instances from the instances JSON (`load_coco_panoptic_json` merges both in
# data/datasets/register_coco.py), and COCO's AP is against it.
INSTANCES = {
    "data.train.instances_json": "annotations/instances_train2017.json",
    "data.validation.instances_json": "annotations/instances_val2017.json",
}
# The paper, section 4.1: 32 crops of 512x1024 after scaling by 0.5 to 2, 65k steps from 0.01 with
# drops at 40k and 55k, all thing classes in the semantic branch.
CITYSCAPES = {
    **SOLVER,
    "model.num_thing_classes": 8,
    "model.num_stuff_classes": 11,
    "model.semantic_things": "all",
    "data.train.format": "cityscapes",
    "data.train.images": "leftImg8bit/train",
    "data.validation.images": "leftImg8bit/val",
    "data.validation.short_sides": (1024,),
    "data.validation.max_long_side": 2048,
    "data.augment.scale_range": (0.5, 2.0),
    "data.augment.scale_relative_to": "image",
    "data.augment.crop_size": (512, 1024),
    "data.canvases": ((512, 1024),),
    "optimizer.learning_rate": 0.01,
    "optimizer.drop_steps": (40000, 55000),
    "train.steps": 65000,
    "train.batch_size": 32,
}
# The same section: colour augmentation and crop bootstrapping "for our largest backbones for
# semantic segmentation", which are those of Table 1a; the share of crops is a choice made here.
BOOTSTRAPPED = {
    "data.augment.color_distortion": True,
    "data.augment.crop_by_class_probability": 0.5,
}
PLAIN = {"data.augment.color_distortion": False, "data.augment.crop_by_class_probability": 0.0}
R50 = {"model.backbone": "resnet50", "train.initial_weights": "R-50.pkl"}
R101 = {"model.backbone": "resnet101", "train.initial_weights": "R-101.pkl"}
# The ImageNet models of detectron2 with ResNeXt are in RGB / 255 terms of torchvision.
STD = {"model.pixel_std": (58.395, 57.12, 57.375)}
X101 = {"model.backbone": "resnext101_32x8d", "train.initial_weights": "X-101-32x8d.pkl", **STD}
BOTH = {"model.tasks": ("instance", "semantic"), "model.pixel_std": (1.0, 1.0, 1.0)}
SEMANTIC = {"model.tasks": ("semantic",)}
ALONE = {"model.tasks": ("instance",)}
FIGURE_3 = {"model.semantic_design": "staged", "model.semantic_fuse": "sum"}
# Tables 2a and 2d, the best single networks, which Table 3 takes: lambda_i, lambda_s.
ON_COCO = {"model.lambda_instance": 1.0, "model.lambda_semantic": 0.5}
ON_CITYSCAPES = {"model.lambda_instance": 0.5, "model.lambda_semantic": 1.0}
PFPN_COCO = {**COCO_PANOPTIC, **INSTANCES, **BOTH, **FIGURE_3, **ON_COCO}
PFPN_CITYSCAPES = {**CITYSCAPES, **PLAIN, **BOTH, **FIGURE_3, **ON_CITYSCAPES}


def steps(total, *drops):
    return {"train.steps": total, "optimizer.drop_steps": drops}


EXPECTED = {
    # detectron2, panoptic_fpn_R_50_1x, R_50_3x and R_101_3x.
    "coco_r50_1x": {**PFPN_COCO, **R50},
    "coco_r50_3x": {**PFPN_COCO, **R50, **steps(270000, 210000, 250000)},
    "coco_r101_3x": {**PFPN_COCO, **R101, **steps(270000, 210000, 250000)},
    # Its configs/Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x.yaml, line by line, and the defaults
    # that are easily taken for others.
    "coco_r101_dconv_cascade_gn_3x": {
        **PFPN_COCO,
        **steps(135000, 105000, 125000),
        "optimizer.learning_rate": 0.04,
        "train.batch_size": 32,
        "train.initial_weights": "R-101-GN.pkl",
        "model.backbone": "resnet101",
        "model.norm": "group_norm",
        "model.norm_groups": 32,
        "model.stride_in_1x1": False,
        "model.deformable_stages": (3, 4, 5),
        "model.deformable_modulated": False,
        "model.deformable_groups": 1,
        "model.fpn_norm": "group_norm",
        "model.rpn_top_k_train": (2000, 2000),
        "model.cascade_ious": (0.5, 0.6, 0.7),
        "model.cascade_delta_weights": (),
        "model.class_agnostic_boxes": True,
        "model.box_head": "two_fc",
        "model.box_head_units": 1024,
        "model.box_head_norm": "none",
        "model.mask_head_convolutions": 4,
        "model.mask_head_norm": "group_norm",
        "model.semantic_channels": 128,
    },
    "cityscapes_r50": {**PFPN_CITYSCAPES, **R50},
    "cityscapes_r101": {**PFPN_CITYSCAPES, **R101},
    "paper/table1a_cityscapes_r101": {**CITYSCAPES, **SEMANTIC, **FIGURE_3, **BOOTSTRAPPED, **R101},
    "paper/table1a_cityscapes_x101": {**CITYSCAPES, **SEMANTIC, **FIGURE_3, **BOOTSTRAPPED, **X101},
    # Section 4.2: the early design, colour augmentation, the Cityscapes schedule with the double
    # learning rate and half the batch.
    "paper/table1b_coco_stuff_x152": {
        **COCO,
        **SEMANTIC,
        **STD,
        **steps(65000, 40000, 55000),
        "model.num_stuff_classes": 91,
        "model.backbone": "resnext152_32x8d",
        "model.semantic_design": "two_conv",
        "model.semantic_fuse": "concat",
        "data.train.format": "coco_stuff",
        "data.augment.color_distortion": True,
        "train.initial_weights": "X-152-32x8d-IN5k.pkl",
    },
    # Table 3: R50, R101; combined and alternating losses; channels shared and in two groups.
    "paper/table3a_coco_r50": {**PFPN_COCO, **R50},
    "paper/table3a_cityscapes_r50": {**PFPN_CITYSCAPES, **R50},
    "paper/table3b_coco_r101": {**PFPN_COCO, **R101},
    "paper/table3b_cityscapes_r101": {**PFPN_CITYSCAPES, **R101},
    "paper/table3c_coco_combine": {**PFPN_COCO, **R50, "train.loss_schedule": "combined"},
    "paper/table3c_cityscapes_combine": {**PFPN_CITYSCAPES, **R50},
    "paper/table3c_coco_alternate": {
        **PFPN_COCO,
        **R50,
        **steps(180000, 120000, 160000),
        "train.loss_schedule": "alternating",
    },
    "paper/table3c_cityscapes_alternate": {
        **PFPN_CITYSCAPES,
        **R50,
        **steps(130000, 80000, 110000),
        "train.loss_schedule": "alternating",
    },
    "paper/table3d_coco_original": {**PFPN_COCO, **R50, "model.fpn_groups": 1},
    "paper/table3d_cityscapes_original": {**PFPN_CITYSCAPES, **R50, "model.fpn_groups": 1},
    "paper/table3d_coco_grouped": {**PFPN_COCO, **R50, "model.fpn_groups": 2},
    "paper/table3d_cityscapes_grouped": {**PFPN_CITYSCAPES, **R50, "model.fpn_groups": 2},
    "paper/table4a_coco_r101": {**PFPN_COCO, **R101},
    "paper/table4b_cityscapes_r101": {**PFPN_CITYSCAPES, **R101},
}
# detectron2, configs/new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py.
JITTER = {
    **INSTANCES,
    **steps(184375, 163889, 177546),
    "data.augment.scale_range": (0.1, 2.0),
    "data.augment.scale_relative_to": "crop",
    "data.augment.crop_size": (1024, 1024),
    "data.canvases": ((1024, 1024),),
    "data.train.flip_probability": 0.5,
    "data.validation.short_sides": (1024,),
    "data.validation.max_long_side": 1024,
    "train.batch_size": 64,
    "model.freeze_at": 0,
    "model.box_head": "four_conv_one_fc",
    "optimizer.drop_factor": 0.1,
    "optimizer.momentum": 0.9,
}
EXPECTED["coco_r50_large_scale_jitter"] = {
    **JITTER,
    "model.backbone": "resnet50",
    "model.norm": "sync_batch_norm",
    "model.stride_in_1x1": False,
    "model.box_head_norm": "none",
    "optimizer.learning_rate": 0.1,
    "optimizer.weight_decay": 4e-5,
    "optimizer.warmup_steps": 500,
    "optimizer.warmup_factor": 0.067,
    "train.initial_weights": "",
}
# Its projects/ViTDet/configs/COCO/mask_rcnn_vitdet_b_100ep.py; AdamW of configs/common/optim.py.
EXPECTED["coco_vitdet_dinov2_base"] = {
    **JITTER,
    "model.backbone": "keras_hub/dinov2_base",
    "model.drop_path": 0.1,
    "model.pixel_mean": None,  # the backbone's own
    "optimizer.algorithm": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 0.1,
    "optimizer.layer_decay": 0.7,
    "optimizer.backbone_lr_factor": 1.0,
    "optimizer.warmup_steps": 250,
    "optimizer.warmup_factor": 0.001,
    "train.initial_weights": "pretrained",
}
# Made here; the schedule is that of detectron2's 1x.
for name, network in (
    ("edge_mobilenet", "MobileNetV3Large"),
    ("edge_efficientnet", "EfficientNetB0"),
):
    EXPECTED[name] = {
        **INSTANCES,
        **steps(90000, 60000, 80000),
        "model.backbone": f"keras_applications/{network}",
        "model.separable_heads": True,
        "model.fpn_channels": 96,
        "train.initial_weights": "pretrained",
        "train.batch_size": 16,
        "optimizer.learning_rate": 0.02,
    }
DATA = {"coco": COCO_PANOPTIC, "cityscapes": {**CITYSCAPES, **PLAIN}}
for data, base in DATA.items():
    semantic = {**base, **SEMANTIC, **R50, "model.semantic_design": "staged"}
    # Tables 1c and 1d: the width of the semantic branch, and how it joins its levels.
    for width in (64, 128, 256):
        EXPECTED[f"paper/table1c_{data}_width_{width}"] = {
            **semantic,
            "model.semantic_channels": width,
            "model.semantic_fuse": "sum",
        }
    for fuse in ("sum", "concat"):
        EXPECTED[f"paper/table1d_{data}_{fuse}"] = {
            **semantic,
            "model.semantic_channels": 128,
            "model.semantic_fuse": fuse,
        }
# Tables 2a to 2d: one lambda is 1, the other goes; at 0 the network of the first task is alone.
for table, data, letter, varied, held, alone in (
    ("2a", "coco", "s", "semantic", "instance", ALONE),
    ("2b", "cityscapes", "s", "semantic", "instance", ALONE),
    ("2c", "coco", "i", "instance", "semantic", SEMANTIC),
    ("2d", "cityscapes", "i", "instance", "semantic", SEMANTIC),
):
    for value in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0):
        has_instances = data == "coco" and (value or held == "instance")
        EXPECTED[f"paper/table{table}_{data}_lambda_{letter}_{value}"] = {
            **DATA[data],
            **(INSTANCES if has_instances else {}),
            **R50,
            **FIGURE_3,
            **(BOTH if value else alone),
            f"model.lambda_{held}": 1.0,
            **({f"model.lambda_{varied}": value} if value else {}),
        }


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recipe_says_what_its_source_does(name):
    loaded = config.load_config(name)
    found = {}
    for key in EXPECTED[name]:
        value = loaded
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    assert found == EXPECTED[name]
    assert loaded.data.source


def test_every_published_recipe_is_compared():
    """The others have no data of their own source, or were made here."""
    assert set(NAMES) - set(EXPECTED) == {"quickstart", "camvid", "coco_overfit", "finetune"}
