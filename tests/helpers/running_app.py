"""The app of `fclm app` in this process, on a free port of the loopback device."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from fclm_hf.app.engine import Engine
from fclm_hf.app.ui import build_app, launch_app


@contextmanager
def run_app(engine: Engine, folder: Path) -> Iterator[str]:
    """Yield the address of the app, which keeps uploads and results in `folder`."""
    with patch.dict("os.environ", GRADIO_TEMP_DIR=str(folder)):
        app = build_app(engine)
        try:
            yield launch_app(app, engine, prevent_thread_lock=True)
        finally:
            app.close(verbose=False)
