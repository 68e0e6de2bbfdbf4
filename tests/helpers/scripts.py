"""Scripts of research/ and benchmarks/ as modules."""

import importlib
import sys
from types import ModuleType

from paths import BENCHMARKS, RESEARCH


def load_script(name: str) -> ModuleType:
    """Import a script by its name."""
    for folder in (RESEARCH, BENCHMARKS):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # scripts import their neighbors
    return importlib.import_module(name)
