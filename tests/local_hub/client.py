"""Client code in a process of its own, as huggingface_hub reads its environment when it is imported."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from .server import LocalHub


ROOT = Path(__file__).parents[2]
IMPATIENT = "import time; time.sleep = lambda seconds: None\n"  # clients wait for seconds before they try again


def make_environment(hub: LocalHub, home: Path, token: str | None = "hf_local", **changes: str) -> dict[str, str]:
    """Environment of a client: no cache but `home`, no network but the local Hub."""
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


def run_client(hub: LocalHub, home: Path, script: str, *arguments: object, timeout: float = 300, **changes: Any) -> Any:
    """
    What the script prints last, read as JSON. `sys.argv[1:]` holds the arguments. Waits between retries are cut.

    Args:
        changes: of the environment; see [`make_environment`].
    """
    command = [sys.executable, "-c", IMPATIENT + textwrap.dedent(script), *map(str, arguments)]
    environment = make_environment(hub, home, **changes)
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, cwd=home.parent)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return json.loads(run.stdout.splitlines()[-1])
