"""Client code in a process of its own, because huggingface_hub reads its environment when it is imported."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paths import ROOT

from .server import LocalHub


IMPATIENT = "import time; time.sleep = lambda seconds: None\n"  # clients wait for seconds before they retry
HIDING = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *where):
        return None if name.split(".")[0] in {names} else self.finder.find_spec(name, *where)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
"""
UPLOAD = """
    import sys
    from pathlib import Path
    from huggingface_hub import HfApi
    for folder in map(Path, sys.argv[1:]):
        repo = HfApi().create_repo(folder.name, repo_type="dataset").repo_id
        HfApi().upload_folder(folder_path=folder, repo_id=repo, repo_type="dataset")
    print("0")
"""


def make_environment(hub: LocalHub, home: Path, token: str | None = "hf_local", **changes: str) -> dict[str, str]:
    """Return the environment of a client that has no cache but `home` and no network but the local Hub."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONPATH": str(ROOT),
    }
    return environment | ({"HF_TOKEN": token} if token else {}) | changes


def run_client(
    hub: LocalHub,
    home: Path,
    script: str,
    *arguments: object,
    hidden: Sequence[str] = (),
    python: Path | str = sys.executable,
    **changes: Any,
) -> Any:
    """Run a script and return the last line that it prints, read as JSON.

    Pauses between retries are skipped.

    Args:
        hub: The Hub that the script sees.
        home: Folder for its cache and settings.
        script: Source of the script.
        *arguments: What `sys.argv[1:]` holds.
        hidden: Packages that it cannot import.
        python: Its interpreter.
        **changes: Changes of the environment, see [`make_environment`].
    """
    source = IMPATIENT + HIDING.replace("{names}", repr(set(hidden) or {""})) + textwrap.dedent(script)
    environment = make_environment(hub, home, **changes)
    run = subprocess.run(
        [python, "-c", source, *map(str, arguments)],
        env=environment,
        cwd=home.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return json.loads(run.stdout.splitlines()[-1])


def upload_data_sets(hub: LocalHub, home: Path, *folders: Path) -> None:
    """Upload each folder as a data set of its name, and clear the log of the Hub."""
    run_client(hub, home, UPLOAD, *folders)
    hub.log.clear()
