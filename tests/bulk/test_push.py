"""Mattes on the Hub: what arrives, what is replaced, the card, and a data set that is matted from Hub to Hub."""

from pathlib import Path

import pytest
from bulk_runs import read_mattes, save_tiny, write_photos
from hub_files import read_files
from huggingface_hub import DatasetCard, HfApi
from local_hub import LocalHub
from local_hub.client import run_client, upload_data_sets
from typer.testing import CliRunner

from fclm_hf.bulk import BulkOptions, BulkSummary
from fclm_hf.bulk.push import MARK, check_repository, push_mattes
from fclm_hf.cli.main import app


NAME = "tester/mattes"


@pytest.fixture
def options(tmp_path: Path) -> BulkOptions:
    """Options of a run whose output is there."""
    (tmp_path / "out").mkdir()
    for number in range(2):
        (tmp_path / "out" / f"mattes-00000-0000{number}.parquet").write_bytes(b"mattes %d" % number)
    (tmp_path / "out" / "notes.txt").write_text("not mine")
    source = write_photos(tmp_path / "photos", 3)
    source.columns["id"] = "id"
    return BulkOptions(source, tmp_path / "out", prompts={"text": ["cat"]}, cutout=True)


@pytest.mark.usefixtures("online")
def test_push(hub: LocalHub, options: BulkOptions) -> None:
    assert check_repository("mattes") == NAME
    commit = push_mattes(options, BulkSummary(1000, 50, 0), NAME, private=True)
    repository = hub.storage.repositories["dataset", NAME]
    assert repository.private
    assert repository.branches["main"].oid == commit.oid
    files = read_files(hub, NAME, kind="dataset")
    assert {path for path in files if not path.startswith(".")} == {
        "README.md",
        "data/mattes-00000-00000.parquet",
        "data/mattes-00000-00001.parquet",
    }
    assert files["data/mattes-00000-00001.parquet"] == b"mattes 1"
    card = DatasetCard(files["README.md"].decode())
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": "data/mattes-*.parquet"}]
    for part in ("Cutouts of the photos of `photos`", "950 of 1000", "RGBA", "`text=['cat']`", "`fclm-lite`", NAME):
        assert part in card.content
    assert str(options.out.parent) not in card.content

    (options.out / "mattes-00000-00001.parquet").unlink()
    push_mattes(options, BulkSummary(999, 50, 0), NAME)
    files = read_files(hub, NAME, kind="dataset")
    assert "data/mattes-00000-00001.parquet" not in files
    assert b"949 of 999" in files["README.md"]
    own = files["README.md"].replace(MARK.encode(), b"Mine.")
    HfApi().upload_file(path_or_fileobj=own, path_in_repo="README.md", repo_id=NAME, repo_type="dataset")
    push_mattes(options, BulkSummary(998, 50, 0), NAME)
    assert read_files(hub, NAME, kind="dataset")["README.md"] == own


@pytest.mark.usefixtures("online")
def test_errors_before_any_work(hub: LocalHub, options: BulkOptions, tmp_path: Path) -> None:
    words = ["matte-dataset", str(tmp_path / "photos"), "-o", str(tmp_path / "new")]
    for more, problem in (
        (["--push_to_hub", "a/b/c"], "repo_id is invalid"),
        (["--column", "image=picture"], "column 'picture' for 'image' does not exist. Columns found: id, image, text."),
        (["--column", "text=text", "--text", "cat"], "prompts must be the same for all photos or come from columns"),
        (["--column", "label=x"], "kind 'photo' takes image, text"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0."),
        (["--actors", "2"], "--actors must be used with engine 'ray', got engine 'local'."),
    ):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 1
        assert problem in " ".join(result.output.split())
        assert not (tmp_path / "new").exists()
    assert hub.storage.repositories == {}


MATTE = """
    import json, sys
    from typer.testing import CliRunner
    from fclm_hf.cli.main import app
    words = "matte-dataset tester/photos --batch-size 4 --rows-per-shard 8 --device cpu --push-to-hub mattes".split()
    result = CliRunner().invoke(app, [*words, "-o", sys.argv[1], "--model", sys.argv[2]])
    print(json.dumps([result.exit_code, result.output]))
"""


@pytest.mark.slow
def test_from_hub_to_hub(hub: LocalHub, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 30, files=2)
    upload_data_sets(hub, tmp_path / "home", tmp_path / "photos")
    code, output = run_client(hub, tmp_path / "home", MATTE, tmp_path / "out", save_tiny(tmp_path / "tiny"))
    assert code == 0, output
    assert "30 photos: 29 matted, 1 failed." in output
    assert list(read_mattes(tmp_path / "out")) == [str(number) for number in range(30)]
    files = read_files(hub, NAME, kind="dataset")
    assert {path.removeprefix("data/") for path in files if path.endswith(".parquet")} == {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert b"Alpha mattes of the photos of `tester/photos`" in files["README.md"]
    assert b"source_datasets:\n- tester/photos" in files["README.md"]
