"""Gradio Space of fclm_hf: the app of `fclm app`, for everybody."""

from fclm_hf.app.engine import Engine
from fclm_hf.app.ui import build_app, launch_app


MODELS = ["fclm-lite"]  # folders or Hub repositories; visitors cannot load others
MAX_PIXELS = 32 * 1024 * 1024

if __name__ == "__main__":
    engine = Engine(MODELS, max_pixels=MAX_PIXELS)
    launch_app(build_app(engine), engine, host="0.0.0.0", port=7860)  # noqa: S104 - in the container of the Space
