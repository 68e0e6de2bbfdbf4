"""Pushing to a Hub with the real client: what arrives, what is replaced, and errors for invalid input."""

from pathlib import Path

import pytest
from hub_files import read_files
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from local_hub import LocalHub
from tiny_model import tiny_model, tiny_processor
from typer.testing import CliRunner

from fclm_hf.cli import main as cli
from fclm_hf.hub import cards, export_checkpoint, push_checkpoint


def run(*words: object) -> tuple[int, str]:
    """Exit code and output of `fclm push`."""
    result = CliRunner().invoke(cli.app, ["push", *map(str, words)])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.mark.usefixtures("online")
def test_push_uploads_everything(hub: LocalHub, saved: Path, tmp_path: Path) -> None:
    commit = push_checkpoint(saved, "cats", private=True, commit_message="My cats")
    repository = hub.storage.repositories["model", "tester/cats"]
    head = repository.branches["main"]
    assert (head.oid, head.title, head.parent.title) == (commit.oid, "My cats", "initial commit")
    assert repository.private
    assert head.files["model.safetensors"].lfs
    local = export_checkpoint(tiny_model(), tiny_processor(), tmp_path / "local", repo_id="tester/cats")
    files = {path.name: path.read_bytes() for path in local.iterdir()}
    assert read_files(hub) == files | {".gitattributes": read_files(hub)[".gitattributes"]}
    assert b'repo = "tester/cats"' in files["README.md"]

    assert push_checkpoint(tiny_model(), "tester/cats", tiny_processor()).oid == commit.oid  # the same: no commit
    code, url = run(saved, "cats", "--revision", "new/look", "--message", "Sharper cats")
    assert code == 0, url
    assert url.endswith(repository.branches["new/look"].oid)
    push_checkpoint(tiny_model(seed=1), "cats", tiny_processor(), revision="new/look", commit_message="Sharper cats")
    assert repository.branches["new/look"].title == "Sharper cats"
    assert repository.branches["main"] is head
    changed = {path for path, content in read_files(hub, branch="new/look").items() if content != read_files(hub)[path]}
    assert changed == {"model.safetensors"}

    run("tester/cats", "dogs", "--private")  # from one repository to another
    assert hub.storage.repositories["model", "tester/dogs"].private
    assert read_files(hub, "tester/dogs") == read_files(hub) | {
        "README.md": cards.make_card(tiny_model(), "tester/dogs").encode()
    }


@pytest.mark.usefixtures("online")
def test_push_replaces_old_files_and_keeps_cards(hub: LocalHub, saved: Path, tmp_path: Path) -> None:
    """Code and weights of an earlier push go, what else is there stays, and so does a card that its author wrote."""
    api = HfApi()
    api.create_repo("cats")
    old = b"---\nlicense: mit\n---\n# Old\n"
    for path in ("old_fclm.py", "pytorch_model.bin", "model.safetensors.index.json", "notes.txt", "README.md"):
        api.upload_file(path_or_fileobj=old, path_in_repo=path, repo_id="tester/cats")
    push_checkpoint(saved, "cats")
    files = read_files(hub)
    assert not {"old_fclm.py", "pytorch_model.bin", "model.safetensors.index.json"} & files.keys()
    assert files["notes.txt"] == old
    assert files["README.md"] == old
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\n---\n# Mine\n")
    assert run(saved, "cats", "--card", card)[0] == 0
    assert read_files(hub)["README.md"] == card.read_bytes()


@pytest.mark.usefixtures("online")
def test_push_of_invalid_input(hub: LocalHub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, problem in [
        ((saved, "a/b/c"), "repo_id is invalid: Repo id must be"),
        ((saved, "c@ts"), "repo_id is invalid: Repo id must"),
        *(
            ((saved, name), "repo_id is invalid: ")
            for name in (
                "../cats",
                "user/../cats",
                "/cats",
                "..",
                "user/..",
                r"..\cats",
                r"user\..\cats",
                "C:cats",
                "n" * 300,
            )
        ),
        ((tmp_path, "cats"), "must contain config.json, got none"),
        ((tmp_path / "no" / "where", "cats"), "checkpoint must be a folder or the id of a Hub repository"),
        ((saved, "cats", "--card", tmp_path / "no.md"), "card must be a text or the path of a file, got"),
    ]:
        code, output = run(*words)
        assert code == 1, output
        assert problem in output
    assert hub.log == []  # all before the first request
    for call in (
        lambda: push_checkpoint(tiny_model(), "cats"),
        lambda: push_checkpoint(saved, "cats", tiny_processor()),
    ):
        with pytest.raises(ValueError, match="processor must be given if and only if checkpoint is a model, got"):
            call()

    code, output = run("tester/unknown", "cats")
    assert code == 1
    assert "tester/unknown is not a local folder and is not a valid model identifier" in output
    code, output = run(saved, "somebody/cats")
    assert code == 1
    assert "403 Forbidden" in output
    assert 'rights to write under the namespace "somebody"' in output
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        push_checkpoint(saved, "cats", token="hf_wrong")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, output = run(saved, "cats")
    assert code == 1
    assert output.startswith("Invalid user token. The token from HF_TOKEN environment variable is invalid.")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    code, output = run(saved, "cats")
    assert code == 1
    assert "no token found" in output
    assert "hf auth login" in output
    with pytest.raises(LocalTokenNotFoundError):
        push_checkpoint(saved, "cats")
    assert hub.storage.repositories == {}


def test_push_without_a_hub(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_local")
    code, output = run(saved, "cats")
    assert code == 1
    assert "offline mode is enabled" in output
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code, output = run(saved, "cats")
    assert code == 1
    assert "Connection refused" in output


@pytest.mark.usefixtures("online")
def test_push_over_a_bad_connection(hub: LocalHub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client sends again does not come twice."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with hub.failing(drop=0.5, error=0.5, times=1, only="preupload|batch|PUT|verify|tree"):
        push_checkpoint(saved, "cats")
    assert sum(entry.fault is not None for entry in hub.log) >= 4
    head = hub.storage.repositories["model", "tester/cats"].branches["main"]
    assert head.title == "Upload FCLM checkpoint"
    assert head.parent.title == "initial commit"
    assert read_files(hub)["model.safetensors"] == (saved / "model.safetensors").read_bytes()
