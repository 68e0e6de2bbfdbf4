"""What a run uploads, to a Hub with the real client."""

import logging

import pytest
from hub_files import read_files
from local_hub import LocalHub
from safetensors.torch import load, load_file
from training_runs import write_run

from fclm_hf.cli.train import main
from fclm_hf.training import hub_upload


pytestmark = pytest.mark.usefixtures("online", "new_accelerator")


def list_titles(hub: LocalHub, name: str) -> list[str]:
    """Of the commits, the newest first."""
    commit, titles = hub.storage.repositories["model", name].branches["main"], []
    while commit is not None:
        titles.append(commit.title)
        commit = commit.parent
    return titles


def test_a_push_that_fails_does_not_stop_training(hub, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    push, calls = hub_upload.push_checkpoint, []

    def push_badly(*arguments, **options):
        calls.append(options["commit_message"])
        with hub.failing(drop=1.0 if len(calls) == 2 else 0.0):
            return push(*arguments, **options)

    monkeypatch.setattr(hub_upload, "push_checkpoint", push_badly)
    config = write_run(tmp_path, validation=[], max_steps=4, save_steps=1)
    out = tmp_path / "my-run"
    with caplog.at_level(logging.WARNING):
        assert main([str(config), "--output_dir", str(out), "--push_steps", "1", "--push_to_hub", "true"]) == 0
    assert calls == ["Step 1", "Step 2", "Step 3", "Step 4", "Step 4"]
    assert "The upload at step 2 failed, training continues" in caplog.text
    # the last push had nothing new to bring
    assert list_titles(hub, "tester/my-run") == ["Step 4", "Step 3", "Step 1", "initial commit"]
    weights = load(read_files(hub, "tester/my-run")["model.safetensors"])
    expected = load_file(out / "last" / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(expected[name]) for name in weights)


def test_the_best_weights_are_pushed_at_the_end(hub, tmp_path, capsys):
    config = write_run(tmp_path, max_steps=2, eval_steps=1)
    words = [str(config), "--push_to_hub", "true", "--hub_model_id"]
    assert main([*words, "tester/cats", "--output_dir", str(tmp_path / "out"), "--hub_private_repo", "true"]) == 0
    assert hub.storage.repositories["model", "tester/cats"].private
    files = read_files(hub, "tester/cats")
    assert files["model.safetensors"] == (tmp_path / "out" / "best" / "model.safetensors").read_bytes()
    assert {"config.json", "README.md", "modeling_fclm.py", "pipeline_fclm.py"} <= files.keys()
    # a name that may not be written to is found before training
    assert main([*words, "somebody/cats", "--output_dir", str(tmp_path / "other")]) == 1
    assert "403 Forbidden" in capsys.readouterr().err
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_a_push_at_the_end_that_fails_is_one_line(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    config = write_run(tmp_path, validation=[], max_steps=1)
    out = tmp_path / "out"
    with hub.failing(error=1.0, status=500, only="preupload|commit|whoami"):
        assert main([str(config), "--output_dir", str(out), "--push_to_hub", "true"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Training is complete, but the upload failed: Server error '500 Internal Server Error'")
    assert error.endswith(f"To retry: fclm push {out / 'last'} out")
    assert (out / "checkpoints" / "step-00000001.pt").is_file()
