"""The files of the Gradio Space in examples/space/."""

import re
import runpy

import pytest
import yaml
from paths import EXAMPLES

from fclm_hf.app.engine import Engine


SPACE = EXAMPLES / "space"


def test_the_card_names_files_and_versions_that_exist() -> None:
    card = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert card["sdk"] == "gradio"
    assert (SPACE / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60  # what the Hub accepts
    floor = re.search(r'"gradio>=([\d.]+),<(\d+)"', (EXAMPLES.parent / "setup.py").read_text(encoding="utf-8"))
    assert card["sdk_version"].startswith(floor[1])


def test_the_space_serves_the_app_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    ui = pytest.importorskip("fclm_hf.app.ui", exc_type=ImportError)
    served = []
    monkeypatch.setattr(ui, "launch_app", lambda app, engine, **kwargs: served.append((engine, kwargs)))
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    [(engine, kwargs)] = served
    assert kwargs == {"host": "0.0.0.0", "port": 7860}
    assert isinstance(engine, Engine)
    assert not engine.allow_other_models
