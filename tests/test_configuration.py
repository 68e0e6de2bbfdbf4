"""Configurations from anywhere: those that ask for absurd amounts of memory are refused before it is allocated."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny_model import TINY_DINOV2, TINY_TEXT, tiny_config, tiny_model, tiny_processor
from typer.testing import CliRunner

from fclm_hf import FCLMConfig
from fclm_hf.cli.main import app
from fclm_hf.configuration_fclm import PRESETS, check_sizes


HUGE = 10**12
ABSURD = [
    ({"encoder_size": 56 * HUGE}, "config.encoder_size must be at most 1000000, got 56000000000000"),
    ({"decoder_layers": HUGE}, "config.decoder_layers must be at most 512"),
    ({"decoder_ffn_dim": HUGE}, "config.decoder_ffn_dim must be at most"),
    ({"detail_hidden_sizes": [4, 6, 8, HUGE]}, "config.detail_hidden_sizes must be at most"),
    ({"semantic_head_size": HUGE}, "config.semantic_head_size must be at most"),
    ({"hidden_size": 500_000, "decoder_ffn_dim": 500_000}, "config must not need more than about 2e"),
    ({"backbone_config": {**TINY_DINOV2, "hidden_size": HUGE}}, "backbone_config.hidden_size must be at most"),
    ({"backbone_config": {**TINY_DINOV2, "num_hidden_layers": 10**4}}, "must be at most 512"),
    ({"backbone_config": {**TINY_DINOV2, "hidden_size": 400_000, "mlp_ratio": 900_000}}, "must not need more than"),
    ({"text_config": {**TINY_TEXT, "vocab_size": HUGE}}, "text_config.vocab_size must be at most"),
    ({"text_config": {**TINY_TEXT, "max_position_embeddings": HUGE}}, "max_position_embeddings must be at most"),
]


@pytest.mark.parametrize(("fields", "problem"), ABSURD)
def test_absurd_sizes(fields: dict, problem: str) -> None:
    with pytest.raises(StrictDataclassError) as caught:
        tiny_config(**fields)
    assert problem in str(caught.value)


def test_presets_and_large_models_pass() -> None:
    for name in PRESETS:
        FCLMConfig.from_preset(name)
    giant = {"hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 64, "vocab_size": 150_000}
    check_sizes(giant, "text_config")


@pytest.mark.parametrize("command", ["matte", "export", "evaluate"])
def test_commands_refuse_them_in_one_line(tmp_path: Path, command: str) -> None:
    checkpoint = tmp_path / "huge"
    tiny_model().save_pretrained(checkpoint)
    tiny_processor().save_pretrained(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["vocab_size"] = HUGE
    (checkpoint / "config.json").write_text(json.dumps(config))
    photo = tmp_path / "data" / "image" / "a.png"
    photo.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / "examples" / "photos" / "cat.jpg", photo)
    (tmp_path / "data" / "alpha").mkdir()
    shutil.copy(photo, tmp_path / "data" / "alpha")
    words = {
        "matte": [str(photo), "-o", str(tmp_path / "out.png"), "--model", str(checkpoint)],
        "export": [str(checkpoint), str(tmp_path / "out")],
        "evaluate": [str(tmp_path / "data"), "-o", str(tmp_path / "out"), "--model", str(checkpoint), "--workers", "0"],
    }
    result = CliRunner().invoke(app, [command, *words[command]])
    assert result.exit_code == 1
    assert "text_config.vocab_size must be at most 1000000" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["matte", "export", "push"])
def test_pickled_weights_are_not_read(tmp_path: Path, command: str) -> None:
    """They could run any code; this one would leave a file."""
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "exploded",)

    checkpoint = tmp_path / "pickled"
    tiny_model().save_pretrained(checkpoint)
    tiny_processor().save_pretrained(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    photo = Path(__file__).parents[1] / "examples" / "photos" / "cat.jpg"
    words = {
        "matte": [str(photo), "-o", str(tmp_path / "out.png"), "--model", str(checkpoint)],
        "export": [str(checkpoint), str(tmp_path / "out")],
        "push": [str(checkpoint), "cats"],
    }
    result = CliRunner().invoke(app, [command, *words[command]])
    assert result.exit_code == 1
    assert "model.safetensors" in result.output
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"eos_token_id": 10**30}, "backbone_config.eos_token_id must be an integer of at most 1000000, got 1000"),
        ({"eos_token_id": True}, "backbone_config.eos_token_id must be an integer of at most 1000000, got True"),
        ({"hidden_dropout_prob": float("nan")}, "backbone_config.hidden_dropout_prob must be in [0, 1], got nan"),
        ({"num_attention_heads": -1}, "backbone_config.num_attention_heads must not be negative, got -1"),
        ({"out_indices": ["1"]}, "out_indices"),
        ({"return_dict": False}, "backbone_config.return_dict must be True, got False"),
        ({"reshape_hidden_states": False}, "backbone_config.reshape_hidden_states must be True, got False"),
        ({"output_hidden_states": "cls"}, "backbone_config.output_hidden_states must be True or False, got 'cls'"),
    ],
)
def test_outputs_that_the_model_cannot_read(fields: dict, problem: str) -> None:
    with pytest.raises(StrictDataclassError) as caught:
        tiny_config(backbone_config={**TINY_DINOV2, **fields})
    assert problem in str(caught.value)
