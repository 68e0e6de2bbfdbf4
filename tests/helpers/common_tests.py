"""transformers' common test mixins, taken at run time from the sdist of the installed version.

The wheel has no tests; the sdist has the files of `tests/` itself but not its subfolders. `load` unpacks the files into
a temporary folder, replaces the subfolders with short stand-ins and imports the requested modules from there, as a
package with a name other than `tests`. Nothing is copied into this project.
"""

import importlib
import importlib.util
import os
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import transformers
from PIL import Image


PACKAGE = "transformers_common_tests"
VERSION = transformers.__version__
# imported by the mixins from the rest of the repository; none of it applies to a vision model on a CPU without the Hub
STAND_INS = {
    "tests/__init__.py": "",
    "tests/exporters/__init__.py": "",
    "tests/exporters/test_export.py": "class ExportTesterMixin: ...",
    "tests/generation/__init__.py": "",
    "tests/generation/test_utils.py": "class GenerationTesterMixin: ...",
    "tests/utils/__init__.py": "",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}  # read for configs without sub-configs",
    "utils/fetch_hub_objects_for_ci.py": "from common_tests import local_copy as url_to_local_path",
}


@cache
def _folder() -> tempfile.TemporaryDirectory:
    """Return a temporary folder that lives as long as the test process."""
    return tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-")


def local_copy(url: str) -> str:
    """Return the path of an image, smooth as a photo, that replaces the one at `url`; other files are left alone."""
    if Path(url).suffix.lower() not in (".jpg", ".jpeg", ".png"):
        return url
    path = Path(_folder().name, Path(url).stem + ".png")
    if not path.exists():
        noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(path)
    return str(path)


@cache
def _import_package(sdist: str) -> None:
    """Make the tests in the sdist importable as a package."""
    root = Path(_folder().name, f"transformers-{VERSION}")
    with tarfile.open(sdist) as archive:
        members = [member for member in archive if member.name.startswith(f"{root.name}/tests/")]
        archive.extractall(root.parent, members=members, filter="data")
    for name, text in STAND_INS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    spec = importlib.util.spec_from_file_location(PACKAGE, root / "tests" / "__init__.py")
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)


def load(name: str) -> ModuleType:
    """Import module `name` of transformers' tests; skip the calling test module if there is no sdist."""
    sdist = os.environ.get("TRANSFORMERS_SDIST", "")
    if not sdist:
        pytest.skip(f"TRANSFORMERS_SDIST does not name transformers-{VERSION}.tar.gz", allow_module_level=True)
    if Path(sdist).name != f"transformers-{VERSION}.tar.gz" or not Path(sdist).is_file():
        raise ValueError(f"TRANSFORMERS_SDIST must be the path of transformers-{VERSION}.tar.gz, got {sdist!r}.")
    pytest.importorskip("parameterized", reason="the mixins of transformers need the package `parameterized`")
    _import_package(sdist)
    return importlib.import_module(f"{PACKAGE}.{name}")
