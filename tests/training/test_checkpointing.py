"""Resuming with other arguments, from earlier steps, in used folders and on a full disk."""

import copy
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from run_results import assert_same, read_curve, read_state
from training_runs import write_run

from fclm_hf.cli.train import main
from fclm_hf.training.checkpointing import CheckpointFolder, check_same_arguments, select_fixed
from fclm_hf.training.command_line import parse_arguments
from fclm_hf.training.tracking import RunningMean


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), validation=[])


pytestmark = pytest.mark.usefixtures("new_accelerator")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--per_device_train_batch_size", "3"], "per_device_train_batch_size was 2 and is 3"),
        (["--seed", "7"], "seed was 0 and is 7"),
        (["--stream_shards", "2"], "stream_shards was 0 and is 2"),
        (["--learning_rate", "1e-4"], "learning_rate was 0.001 and is 0.0001"),
        (["--lr_scheduler_type", "cosine"], "lr_scheduler_type was 'constant' and is 'cosine'"),
        (["--settings.alignment", "none"], "settings.alignment was 'full' and is 'none'"),
        (["--composition.size", "64"], "composition.size was 32 and is 64"),
        (["--encoder_sizes", "28"], "encoder_sizes was [28, 56] and is [28]"),
        (["--config.decoder_layers", "1"], "config.decoder_layers was None and is 1"),
        (["--sources", "{path: a, kind: rgba, shuffle_rows: 8}"], "and is 'a'"),
        (["--ema_decay", "0", "--adam_beta2", "0.9"], "adam_beta2 was 0.999 and is 0.9; ema_decay was 0.9 and is 0.0"),
    ],
)
def test_resume_refuses_other_arguments(config, flags, told):
    before, now = (select_fixed(parse_arguments([str(config), "--output_dir", "RUN", *more])) for more in ([], flags))
    path = Path("RUN/checkpoints/step-00000004.pt")
    start = re.escape(f"{path} can only be resumed with the arguments of its run, but ")
    with pytest.raises(ValueError, match=f"^{start}") as error:
        check_same_arguments(before, now, path, 4)
    assert all(part in str(error.value) for part in told.split("; "))
    assert "--model RUN/last" in str(error.value)
    assert "\n" not in str(error.value)


def test_resume_accepts_other_output_arguments(config):
    flags = "--save_steps 9 --logging_steps 9 --eval_steps 9 --save_total_limit 9 --threads 2 --push_steps 9"
    flags += " --dataloader_prefetch_factor 9 --save_dtype float16 --hub_model_id a/b --hub_private_repo true"
    flags += " --dataloader_num_workers 3 --report_to none --resume_from_checkpoint latest"
    before = select_fixed(parse_arguments([str(config), "--output_dir", "RUN"]))
    path = Path("RUN/checkpoints/step-00000004.pt")
    check_same_arguments(
        before, select_fixed(parse_arguments([str(config), "--output_dir", "B", *flags.split()])), path, 4
    )
    longer = select_fixed(parse_arguments([str(config), "--output_dir", "RUN", "--max_steps", "50"]))
    check_same_arguments(before, longer, path, 4)
    cosine = [{**each, "lr_scheduler_type": "cosine"} for each in (before, longer)]
    with pytest.raises(ValueError, match="max_steps was 12 and is 50"):
        check_same_arguments(*cosine, path, 4)
    with pytest.raises(ValueError, match=r"max_steps must be at least 4, the step of RUN.*, got 3\."):
        check_same_arguments(before, {**before, "max_steps": 3}, path, 4)


def test_resume_of_a_run_that_did_not_know_a_setting(config):
    """Fields that came later have their defaults, in settings as in sources."""
    path = Path("RUN/checkpoints/step-00000004.pt")
    now = select_fixed(parse_arguments([str(config), "--output_dir", "RUN"]))
    before = copy.deepcopy(now)
    for name in ("click_rounds", "look_share", "tile_share", "name_weight", "semantic_weight", "gradient_weight"):
        del before["settings"][name]
    for name in ("mask_quality", "absent_names", "learn_edges"):
        del before["sources"][0][name]
    check_same_arguments(before, now, path, 4)
    for flags, told in (
        (["--settings.name_weight", "0.1"], "settings.name_weight was 0.0 and is 0.1"),
        (["--settings.click_rounds", "3"], "settings.click_rounds was 0 and is 3"),
        (["--settings.look_share", "0.5"], "settings.look_share was 0.0 and is 0.5"),
    ):
        changed = select_fixed(parse_arguments([str(config), "--output_dir", "RUN", *flags]))
        with pytest.raises(ValueError, match=re.escape(told)):
            check_same_arguments(before, changed, path, 4)
    changed = copy.deepcopy(now)
    changed["sources"][0]["learn_edges"] = False
    with pytest.raises(ValueError, match=re.escape("sources[0].learn_edges was None and is False")):
        check_same_arguments(before, changed, path, 4)


def test_a_used_folder_and_resume_from_checkpoint(config, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(config), "--output_dir", str(out), "--max_steps", "2"]
    assert main([*words, "--resume_from_checkpoint", "latest"]) == 0  # there is none: starts from scratch
    before = (out / "checkpoints" / "step-00000002.pt").read_bytes()
    capsys.readouterr()
    for flags, told in (
        ([], f"{out} already holds a run: add --resume_from_checkpoint latest, or choose another output_dir."),
        (
            ["--resume_from_checkpoint", "latest", "--per_device_train_batch_size", "3"],
            "but per_device_train_batch_size was 2 and is 3.",
        ),
        (
            ["--resume_from_checkpoint", str(out / "last" / "config.json")],
            f"resume_from_checkpoint must be a checkpoint of fclm train, got {out / 'last' / 'config.json'}.",
        ),
        (["--resume_from_checkpoint", str(out / "last")], "resume_from_checkpoint must be 'latest' or a file in"),
    ):
        assert main([*words, *flags]) == 1
        error = capsys.readouterr().err.strip()
        assert told in error
        assert "\n" not in error
    assert (out / "checkpoints" / "step-00000002.pt").read_bytes() == before
    # what the error recommends: other arguments, from the weights
    assert (
        main([*words[:2], str(tmp_path / "new"), "--model", str(out / "last"), "--max_steps", "1", "--seed", "7"]) == 0
    )


def test_save_total_limit_keeps_the_newest_of_this_run(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", limit=2)
    for step, kept in ((2, [2]), (4, [2, 4]), (6, [4, 6]), (5, [4, 5]), (7, [5, 7])):  # 5: a run that went on from 4
        folder.save(step, {"step": step})
        assert folder.list_steps() == kept
    assert folder.find("latest").name == "step-00000007.pt"


def test_resume_after_a_full_disk(runs, tmp_path, capsys):
    out = shutil.copytree(runs.half, tmp_path / "out")
    words = [str(runs.config), *runs.flags, "--output_dir", str(out), "--max_steps", "4"]
    (first,) = (out / "checkpoints").iterdir()
    content, (_, hard) = first.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, hard))
    try:
        code = main(words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 1
    assert error == (
        f"Step 4 could not be saved in {out}: [Errno 27] File too large."
        " --resume_from_checkpoint latest resumes from step 2."
    )
    assert first.read_bytes() == content
    assert not list(out.rglob(".unfinished-*"))
    assert main(words) == 0
    assert_same(read_state(runs.whole, 4), read_state(out, 4))
    assert read_curve(runs.whole) == read_curve(out)


def test_losses_on_names_and_edges_resume(config, tmp_path):
    """After a resumption, too, the semantic map is held to that of the weights at the start."""
    settings = {"distillation": "none", "alignment": "none", "click_rounds": 1}
    weights = {"name_weight": 0.1, "semantic_weight": 0.5, "gradient_weight": 0.3}
    source = {"path": str(config.parent / "cutouts"), "kind": "rgba", "shuffle_rows": 8, "learn_edges": False}
    run = write_run(
        tmp_path / "run",
        settings={**settings, **weights},
        sources=[source],
        contrast_names=["cat", "dog"],
        validation=[],
        logging_steps=1,
    )
    words = [str(run), "--resume_from_checkpoint", "latest", "--output_dir"]
    for out, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        assert main([*words, str(tmp_path / out), "--max_steps", str(steps)]) == 0
    assert_same(read_state(tmp_path / "whole", 4), read_state(tmp_path / "parts", 4))
    curve = read_curve(tmp_path / "whole")
    assert curve == read_curve(tmp_path / "parts")
    assert curve[0]["train/loss_semantic"] < curve[-1]["train/loss_semantic"]
    for name in ("train/loss_names", "train/loss_gradient"):  # 0 in a step whose objects have no names, or no edges
        assert max(entry[name] for entry in curve) > 0


def test_closer_looks_resume(config, tmp_path):
    settings = {"distillation": "none", "alignment": "none", "look_share": 1.0, "tile_share": 1.0}
    run = write_run(
        tmp_path / "run",
        settings=settings,
        config={"refinement_size": 56, "tile_size": 28},
        composition={"size": 64, "soft_edge_prob": 1.0, "single_scale": [1.0, 1.5]},
        encoder_sizes=[28],
        validation=[],
        logging_steps=1,
        save_steps=1,
        max_steps=2,
    )
    words = [str(run), "--resume_from_checkpoint", "latest", "--output_dir"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts" / "checkpoints" / "step-00000002.pt").unlink()  # as if it had been killed in the second step
    assert main([*words, str(tmp_path / "parts")]) == 0
    assert_same(read_state(tmp_path / "whole", 2), read_state(tmp_path / "parts", 2))
    curve = read_curve(tmp_path / "whole")
    assert curve == read_curve(tmp_path / "parts")
    for name in ("train/loss_look", "train/loss_tiles"):  # 0 in a step without
        assert max(entry[name] for entry in curve) > 0


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (
            {"shards": {}},
            r"A step must have 4 pairs, as in .*, which 2 processes saved, got 2 with 1: change per_device_",
        ),
        (
            {"states": {}},
            r"is of an earlier release, whose order of samples .* start a new run with --model .*last and",
        ),
    ],
)
def test_resume_refuses_other_steps_and_other_orders(config, tmp_path, capsys, stream, told):
    count = 2 if "shards" in stream else 1
    now = select_fixed(parse_arguments([str(config), "--output_dir", "RUN"]))
    state = {"step": 1, "arguments": now, "processes": [{"stream": stream}] * count}
    path = tmp_path / "run" / "checkpoints" / "step-00000001.pt"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    assert main([str(config), "--output_dir", str(tmp_path / "out"), "--resume_from_checkpoint", str(path)]) == 1
    assert re.search(told, capsys.readouterr().err)


def test_means_of_processes_are_merged():
    states = [{"count": 2, "sums": {"loss": value}} for value in (2.0, 4.0)]
    assert RunningMean.merge(states) == {"count": 2, "sums": {"loss": 3.0}}
