"""`import fclm_hf` loads nothing heavy, and the Auto classes of transformers know FCLM nevertheless."""

import os
import subprocess
import sys

import pytest

import fclm_hf


HEAVY = {"cv2", "datasets", "huggingface_hub", "numpy", "PIL", "scipy", "timm", "torch", "torchvision", "transformers"}
CHECK = """
import sys
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageMatting, AutoProcessor, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
import fclm_hf

folder = fclm_hf.LITE_CHECKPOINT
assert type(AutoConfig.from_pretrained(folder)) is fclm_hf.FCLMConfig
assert type(AutoModelForImageMatting.from_pretrained(folder)) is fclm_hf.FCLMForImageMatting
assert type(AutoImageProcessor.from_pretrained(folder)) is fclm_hf.FCLMImageProcessor
assert type(AutoProcessor.from_pretrained(folder)) is fclm_hf.FCLMProcessor
assert PIPELINE_REGISTRY.check_task("referring-matting")[1]["impl"] is fclm_hf.ReferringMattingPipeline
assert not any(type(finder).__module__.startswith("fclm_hf") for finder in sys.meta_path), "the finder is left behind"
"""


def run_script(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = set(run_script("import sys, fclm_hf; dir(fclm_hf); print(*sys.modules)").split())
    assert not HEAVY & loaded
    assert {name for name in loaded if name.startswith("fclm_hf.")} == {"fclm_hf.auto", "fclm_hf.checkpoints"}


# in forks of a process that has imported what they share, except what comes first or second
FORKS = """
import os, sys
import timm, torchvision
assert not {"fclm_hf", "transformers"} & sys.modules.keys()
for first in ORDERS:
    child = os.fork()
    if not child:
        exec(first + CHECK)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, first
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_auto_classes_know_fclm_whatever_comes_first() -> None:
    orders = [
        "from transformers import AutoModel; import fclm_hf",
        "import fclm_hf; from transformers import CLIPTextConfig",  # which FCLMConfig needs imports the registries
        "import fclm_hf.modeling_fclm",
    ]
    run_script(f"ORDERS, CHECK = {orders!r}, {CHECK!r}\n{FORKS}")


def test_public_names() -> None:
    assert set(fclm_hf.__all__) <= set(dir(fclm_hf))
    assert all(getattr(fclm_hf, name) is not None for name in fclm_hf.__all__)
    assert fclm_hf.metrics.mse is not None
    assert fclm_hf.processing_fclm.FCLMProcessor is fclm_hf.FCLMProcessor
    with pytest.raises(AttributeError, match="module 'fclm_hf' has no attribute 'FCLMModle'"):
        _ = fclm_hf.FCLMModle
