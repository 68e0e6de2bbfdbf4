"""A data set and a checkpoint on the local Hub, streamed and measured as if they were on disk."""

import hashlib
import json
from pathlib import Path

import pytest
from benchmark_folders import write_folders
from datasets import Dataset, Features, Image, Value
from local_hub import LocalHub
from local_hub.client import run_client
from tiny_model import tiny_model, tiny_processor

from fclm_hf.evaluation import EvaluationOptions, evaluate


UPLOAD = """
    import sys
    from huggingface_hub import HfApi
    for kind, folder in (("dataset", sys.argv[1]), ("model", sys.argv[2])):
        repo = HfApi().create_repo("tiny-" + kind, repo_type=kind).repo_id
        HfApi().upload_folder(folder_path=folder, repo_id=repo, repo_type=kind)
    print("0")
"""
EVALUATE = """
    import json, sys
    from fclm_hf.evaluation import EvaluationOptions, evaluate
    options = EvaluationOptions(
        "tester/tiny-dataset", sys.argv[1], columns={"image": "photo", "alpha": "matte"}, workers=0,
        models=["tester/tiny-model"], prompts=["box", "text"],
    )
    print(json.dumps(evaluate(options)))
"""


@pytest.mark.slow
def test_streamed_rows_score_like_files(hub: LocalHub, tmp_path: Path) -> None:
    files = write_folders(tmp_path / "files")
    stems = [f"p{number}" for number in range(5)]
    (files / "metadata.jsonl").write_text(
        "".join(
            json.dumps({"image": f"image/{s}.png", "alpha": f"alpha/{s}.png", "text": "low", "id": s}) + "\n"
            for s in stems
        )
    )
    columns = {"photo": Image(), "matte": Image(), "text": Value("string"), "id": Value("string")}

    def read(folder: str) -> list[dict[str, bytes | None]]:
        """Read images without their paths, so that the files and their faults are the same in every run."""
        return [{"bytes": (files / folder / f"{stem}.png").read_bytes(), "path": None} for stem in stems]

    data = {
        "photo": read("image"),
        "matte": read("alpha"),
        "text": ["low"] * 5,
        "id": stems,
    }
    (tmp_path / "set" / "data").mkdir(parents=True)
    rows = Dataset.from_dict(data, Features(columns))
    for number, part in enumerate(([0, 1], [2], [3, 4])):
        rows.select(part).to_parquet(tmp_path / "set" / "data" / f"test-{number:05d}-of-00003.parquet")
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_processor(size={"longest_edge": 64}).save_pretrained(tmp_path / "model")
    run_client(hub, tmp_path / "home", UPLOAD, tmp_path / "set", tmp_path / "model")

    summary = run_client(hub, tmp_path / "home", EVALUATE, tmp_path / "out")
    hub.log.clear()
    # faults only for rows: huggingface_hub does not retry a model file that is answered with 503
    weights = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    with hub.failing(drop=0.2, error=0.2, only=f"GET /(cdn/(?!{weights})|datasets)", times=3):
        again = run_client(hub, tmp_path / "other", EVALUATE, tmp_path / "again")
    assert sum(entry.fault in ("drop", "error") for entry in hub.log) >= 2
    assert again == summary
    options = EvaluationOptions(
        str(files), tmp_path / "local", models=[str(tmp_path / "model")], prompts=["box", "text"], workers=0
    )
    for streamed, local in zip(summary["results"], evaluate(options)["results"], strict=True):
        assert streamed["objects"] == local["objects"] == 5
        for name, value in local["measures"].items():
            assert streamed["measures"][name] == pytest.approx(value, rel=1e-5)
        assert streamed["method"] == "tiny-model"
        assert len(streamed["fingerprint"]) == 40
    assert (tmp_path / "out" / "tiny-model" / "text" / "parts" / "p3.json").is_file()
