"""A tiny run: model, data and YAML, and the command that trains in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from tiny_model import tiny_model, tiny_processor
from training_sets import background_rows, cutout_rows, write_parquet


COMMAND = [sys.executable, "-m", "fclm_hf.training.command"]
SCRIPT = Path(__file__).parents[1] / "examples" / "train_fclm.py"


def write_run(folder: Path, **fields) -> Path:
    """The YAML file of a run of a tiny model on 40 cut-outs."""
    write_parquet(folder / "cutouts", cutout_rows(40), files=2)
    write_parquet(folder / "backgrounds", background_rows(12))
    tiny_model().save_pretrained(folder / "start")
    tiny_processor().save_pretrained(folder / "start")
    backgrounds = [{"path": str(folder / "backgrounds"), "kind": "background"}]
    config = {
        "model": str(folder / "start"),
        "settings": {"distillation": "none", "transport_iterations": 5},
        "encoder_sizes": [28, 56],
        "sources": [{"path": str(folder / "cutouts"), "kind": "rgba", "shuffle_rows": 8}],
        "backgrounds": backgrounds,
        "validation": [{"path": str(folder / "cutouts"), "kind": "rgba"}],
        "validation_batches": 1,
        "composition": {"size": 32},
        "prompts_per_image": 2,
        "num_workers": 0,
        "max_steps": 12,
        "batch_size": 2,
        "learning_rate": "1e-3",
        "ema_decay": 0.9,
        "log_steps": 2,
        "eval_steps": 6,
        "save_steps": 2,
        "threads": 1,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**config, **fields}))
    return path


def start(config: Path, out: Path, *flags: str, processes: int = 1, script: Path = SCRIPT) -> subprocess.Popen:
    """Trains in another process, or in several by `script`."""
    command = COMMAND
    if processes > 1:
        # on a CPU `accelerate launch` starts several processes through MPI only
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [*launch, str(script)]
    arguments = [str(config), "--output_dir", str(out), "--resume_from_checkpoint", "latest", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*command, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output
