"""The local Hub answers the real huggingface_hub client as the real Hub would, on good days and on bad ones."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from local_hub import Faults, LocalHub
from local_hub.client import run_client
from local_hub.messages import Request


UPLOAD = """
    import json, sys
    from huggingface_hub import HfApi
    api = HfApi()
    assert api.whoami()["name"] == "tester"
    repo = api.create_repo("cats", private=len(sys.argv) > 2).repo_id
    assert api.create_repo("cats", exist_ok=True).repo_id == repo
    commit = api.upload_folder(folder_path=sys.argv[1], repo_id=repo, commit_message="cats", delete_patterns="*.old")
    again = api.upload_folder(folder_path=sys.argv[1], repo_id=repo, commit_message="the same cats")
    assert again.oid == commit.oid, "a commit without changes"
    print(json.dumps([repo, commit.oid]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small files, and one that goes to LFS."""
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [cats]\n---\n# Cats\n")
    (folder / "deep" / "er" / "ünï code.txt").write_text("meow")
    (folder / "empty.txt").touch()
    (folder / "cats.bin").write_bytes(np.random.default_rng(0).bytes(3_000_001))
    return folder


def test_upload_and_download(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    hub.part_size, hub.page_size = 1_000_000, 2
    repo, oid = run_client(hub, tmp_path / "home", UPLOAD, folder)
    assert Counter(entry.target.split("/")[-1] for entry in hub.log if entry.method == "PUT") == {
        str(part): 1 for part in range(1, 5)
    }
    script = """
        import hashlib, json, sys
        from pathlib import Path
        from huggingface_hub import HfApi
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
        api, repo = HfApi(), sys.argv[1]
        api.create_branch(repo, branch="new/look")
        api.create_tag(repo, tag="v1")
        api.upload_file(path_or_fileobj=b"purr", path_in_repo="purr.txt", repo_id=repo, revision="new/look")
        api.delete_file("empty.txt", repo, revision="new/look")
        problems = []
        for call in (
            lambda: api.model_info("tester/dogs"),
            lambda: api.model_info(repo, revision="v2"),
            lambda: api.hf_hub_download(repo, "dog.txt"),
            lambda: list(api.list_repo_tree(repo, "dogs")),
            lambda: api.create_repo("somebody/cats"),
            lambda: HfApi(token="hf_wrong").create_repo("cats"),
        ):
            try:
                call()
            except Exception as error:
                problems.append([type(error).__name__, getattr(error.response, "status_code", None)])
        snapshot = Path(api.snapshot_download(repo))
        hashes = {
            path.relative_to(snapshot).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in snapshot.rglob("*") if path.is_file()
        }
        info = api.model_info(repo, files_metadata=True)
        references = api.list_repo_refs(repo)
        print(json.dumps({
            "files": api.list_repo_files(repo),
            "branch": api.list_repo_files(repo, revision="new/look"),
            "tree": [entry.path for entry in api.list_repo_tree(repo)],
            "paths": {
                entry.path: getattr(entry, "size", None)
                for entry in api.get_paths_info(repo, ["deep", "cats.bin", "no"])
            },
            "references": [[each.name for each in group] for group in (references.branches, references.tags)],
            "commits": [commit.title for commit in api.list_repo_commits(repo, revision="new/look")],
            "info": [info.sha, info.tags, info.card_data.license, {s.rfilename: s.size for s in info.siblings}],
            "problems": problems,
            "hashes": hashes,
        }))
    """
    result = run_client(hub, tmp_path / "home", script, repo)
    files = [".gitattributes", "README.md", "cats.bin", "deep/er/ünï code.txt", "empty.txt"]
    assert sorted(result["files"]) == sorted(files)
    assert sorted(result["branch"]) == sorted([*files[:-1], "purr.txt"])
    assert result["tree"] == [".gitattributes", "README.md", "cats.bin", "deep", "empty.txt"]
    assert result["paths"] == {"deep": None, "cats.bin": 3_000_001}
    assert result["references"] == [["main", "new/look"], ["v1"]]
    assert result["commits"][-2:] == ["cats", "initial commit"]
    assert len(result["commits"]) == 4
    assert result["info"][:3] == [oid, ["cats"], "mit"]
    assert set(result["info"][3]) == set(files)
    assert result["info"][3]["cats.bin"] == 3_000_001
    assert result["problems"] == [
        ["RepositoryNotFoundError", 404],
        ["RevisionNotFoundError", 404],
        ["RemoteEntryNotFoundError", 404],
        ["RemoteEntryNotFoundError", 404],
        ["HfHubHTTPError", 403],
        ["HfHubHTTPError", 401],
    ]
    local = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {path: result["hashes"][path] for path in local} == {
        path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in local.items()
    }
    # the contents of LFS files come from another host, which is not shown the token
    downloads = [entry for entry in hub.log if entry.target.startswith("/cdn/")]
    assert downloads
    assert not any(entry.authorized for entry in downloads)
    assert all(entry.authorized for entry in hub.log if "/resolve/" in entry.target and entry.status == 200)


def test_private_repositories(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    repo, _ = run_client(hub, tmp_path / "home", UPLOAD, folder, "private")
    hub.tokens["hf_stranger"] = "stranger"
    script = """
        import json, sys
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError
        found = []
        for token in ("hf_local", "hf_stranger", False):
            try:
                HfApi(token=token).model_info(sys.argv[1])
                found.append(token)
            except RepositoryNotFoundError:
                pass
        print(json.dumps(found))
    """
    assert run_client(hub, tmp_path / "home", script, repo) == ["hf_local"]


DOWNLOAD = """
    import hashlib, json, sys
    from huggingface_hub import hf_hub_download
    content = open(hf_hub_download(sys.argv[1], sys.argv[2]), "rb").read()
    print(json.dumps(hashlib.sha256(content).hexdigest()))
"""


@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_broken_downloads_are_resumed(hub: LocalHub, folder: Path, tmp_path: Path, fault: str) -> None:
    content = np.random.default_rng(0).bytes(22_000_000)
    (folder / "cats.bin").write_bytes(content)
    repo, _ = run_client(hub, tmp_path / "home", UPLOAD, folder)
    hub.log.clear()
    with hub.failing(**{fault: 1.0}, only="GET /cdn", times=1, stall_seconds=20):
        digest = run_client(hub, tmp_path / "home", DOWNLOAD, repo, "cats.bin", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert digest == hashlib.sha256(content).hexdigest()
    asked = sorted(
        (entry.status, entry.fault, entry.range, entry.sent) for entry in hub.log if entry.target.startswith("/cdn")
    )
    chunk = 10 * 1024 * 1024  # what the client writes at once: it holds one when it is cut off
    assert asked == [(200, fault, None, 11_000_000), (206, None, f"bytes={chunk}-", 22_000_000 - chunk)]


def test_server_errors_are_retried(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    with hub.failing(error=1.0, times=1, only="preupload|batch|PUT|verify|HEAD"):
        repo, _ = run_client(hub, tmp_path / "home", UPLOAD, folder)
        digest = run_client(hub, tmp_path / "home", DOWNLOAD, repo, "README.md")
    assert digest == hashlib.sha256((folder / "README.md").read_bytes()).hexdigest()
    failed = Counter(entry.method for entry in hub.log if entry.status == 503)
    assert failed["PUT"] == 1
    assert failed["HEAD"] >= 1
    assert failed["POST"] == 3


def test_faults_follow_the_seed() -> None:
    requests = [Request("GET", f"/{number % 200}", {}) for number in range(4000)]
    picks = [Faults(drop=0.03, error=0.02, seed=1).pick for _ in range(2)]
    fates = [pick(request) for pick, request in zip([picks[0]] * 4000, requests, strict=True)]
    shuffled = {}
    for index in sorted(range(4000), key=lambda index: (index % 200, index)):  # other threads are ahead or behind
        shuffled[index] = picks[1](requests[index])
    assert fates == [shuffled[index] for index in range(4000)]
    counts = Counter(fates)
    assert counts["drop"] == pytest.approx(120, abs=40)
    assert counts["error"] == pytest.approx(80, abs=35)
    assert fates != [Faults(drop=0.03, error=0.02, seed=2).pick(request) for request in requests]
