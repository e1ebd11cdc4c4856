"""Packaging; the tools' settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
version = re.search(
    r'__version__ = "(.+)"', (here / "tf_panoptic_fpn/version.py").read_text(encoding="utf-8")
)
CONFIGS = {
    "tf_panoptic_fpn.configs": "configs",
    "tf_panoptic_fpn.configs.paper": "configs/paper",
}

setup(
    name="tf-panoptic-fpn",
    version=version.group(1),
    description="Panoptic FPN for TensorFlow and Keras 3",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    # The recipes, in the wheel too.
    packages=[*find_packages(include=["tf_panoptic_fpn", "tf_panoptic_fpn.*"]), *CONFIGS],
    package_dir=CONFIGS,
    package_data={
        **{package: ["*.yaml"] for package in CONFIGS},
        "tf_panoptic_fpn": ["__init__.pyi", "categories_coco.json", "py.typed"],
        "tf_panoptic_fpn.evaluation": ["report.html.jinja", "study.svg.jinja"],
        "tf_panoptic_fpn.weights": ["__init__.pyi"],
    },
    entry_points={"console_scripts": ["tf-panoptic-fpn = tf_panoptic_fpn.__main__:main"]},
    install_requires=[
        "absl-py>=2.1",
        "filelock>=3.16",
        "jinja2>=3.1",
        "keras>=3.15",
        "kornia-rs>=0.2",
        "lazy-loader>=0.4",
        "numpy>=2.0",
        "orjson>=3.10",
        "pillow>=10.4",
        "pycocotools>=2.0.8",
        "pydantic>=2.11",
        "pyyaml>=6.0.2",
        "safetensors>=0.5",
        "tensorboard>=2.20",
        "tensorflow>=2.20",
        "tqdm>=4.66",
    ],
    extras_require={
        "beam": ["apache-beam>=2.77", "pyarrow>=18.0"],
        "backends": ["jax>=0.7", "torch==2.13.0"],
        "convert": ["datumaro>=1.13"],
        "litert": ["ai-edge-litert>=2.0"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20"],
        "keras_hub": ["keras-hub>=0.32"],
        "openvino": ["onnx>=1.17", "onnxruntime>=1.20", "openvino>=2025.0"],
        "demo": ["gradio>=6.0"],
        "plots": ["matplotlib>=3.9"],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        "large": ["imagecodecs>=2024.12.30", "tifffile>=2025.5.21", "zarr>=3.0.8"],
        "serving": ["tensorflow-serving-api>=2.19"],
        "supervision": ["supervision>=0.31"],
        "video": ["av>=14.0"],
        "test": [
            "ai-edge-litert>=2.0",
            "apache-beam>=2.77",
            "av>=14.0",
            "cityscapesscripts>=2.3",
            "gradio>=6.0",
            "hypothesis>=6.100",
            "imagecodecs>=2024.12.30",
            "ipykernel>=6.29",
            "jsonschema>=4.20",
            "keras-hub>=0.32",
            "matplotlib>=3.9",
            "mlflow-skinny>=3.0",
            "mypy>=2.0",
            "nbclient>=0.10",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "openvino>=2025.0",
            "playwright>=1.50",
            "pyarrow>=18.0",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.8",
            "supervision>=0.31",
            "tensorflow-serving-api>=2.19",
            "tifffile>=2025.5.21",
            "transformers>=5.0",
            "tritonclient[grpc,http]>=2.50",
            "zarr>=3.0.8",
        ],
    },
)
