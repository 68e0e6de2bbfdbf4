"""`fclm app`: who may do what, and what happens without Gradio."""

import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from fclm_hf.app.engine import Engine
from fclm_hf.cli.main import app


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What would have been served."""
    found: list[SimpleNamespace] = []
    page = SimpleNamespace(block_thread=lambda: None)

    def launch(app: object, engine: Engine, host: str, port: int, share: bool, **kwargs: object) -> str:
        assert app is page
        found.append(SimpleNamespace(engine=engine, host=host, port=port, share=share))
        return "http://127.0.0.1:7860/"

    monkeypatch.setattr(Engine, "load", lambda self, model=None: None)
    monkeypatch.setitem(
        sys.modules, "fclm_hf.app.ui", SimpleNamespace(build_app=lambda engine: page, launch_app=launch)
    )
    return found


@pytest.mark.parametrize(
    ("arguments", "host", "share", "is_open"),
    [
        ([], "127.0.0.1", False, True),
        (["--host", "localhost"], "localhost", False, True),
        (["--host", "0.0.0.0"], "0.0.0.0", False, False),
        (["--share"], "127.0.0.1", True, False),
    ],
)
def test_other_models_are_for_this_machine_only(
    served: list[SimpleNamespace], arguments: list[str], host: str, share: bool, is_open: bool
) -> None:
    result = CliRunner().invoke(app, ["app", *arguments])
    assert result.exit_code == 0, result.output
    assert result.output == "http://127.0.0.1:7860/  (Ctrl+C stops it)\n"
    [started] = served
    assert (started.host, started.share, started.port) == (host, share, None)
    assert started.engine.allow_other_models is is_open
    assert started.engine.models == ["fclm-lite"]


def test_models_are_offered_in_order(served: list[SimpleNamespace]) -> None:
    assert CliRunner().invoke(app, ["app", "--model", "mine", "--model", "yours", "--port", "8000"]).exit_code == 0
    assert served[0].engine.models == ["mine", "yours", "fclm-lite"]
    assert served[0].port == 8000


def test_without_gradio_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "fclm_hf.app.ui", raising=False)
    result = CliRunner().invoke(app, ["app"])
    assert result.exit_code == 1
    assert result.output == 'The app needs Gradio, of the extra app: pip install "fclm-hf[app]".\n'


def test_a_model_that_does_not_exist_is_an_error_at_once(
    served: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "fclm_hf.app.ui", SimpleNamespace(build_app=None, launch_app=None))
    result = CliRunner().invoke(app, ["app", "--model", str(tmp_path)])
    assert result.exit_code == 1
    assert "must contain config.json" in result.output
