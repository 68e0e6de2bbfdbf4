"""Scripts of research/ and benchmarks/ as modules."""

import importlib.util
import sys
from types import ModuleType

from paths import BENCHMARKS, RESEARCH


def load_script(name: str) -> ModuleType:
    path = (RESEARCH if (RESEARCH / f"{name}.py").is_file() else BENCHMARKS) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"examples_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module
