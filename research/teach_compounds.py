"""Teaches the text tower of a checkpoint what two nouns in a row mean, such as "bear toy": something of both.

    apt-get install wordnet-base
    python research/teach_compounds.py --data DATA --model CHECKPOINT --output NEW    # about 5 minutes of one core

The tower learned nouns one by one (teach_names.py), so that a compound which it has never seen may mean anything. The
target of two random nouns is the mean of what the tower, as it was, gives for each of them and for both; all nouns of
WordNet, compounds included, and the names of the training data keep their embeddings. DATA holds real/ and train/.
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from teach_names import phrase
from torch import nn
from tqdm import trange
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, get_scheduler
from wordnet_nouns import Nouns

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.training.checkpointing import save_weights


HEADS = ("toy", "doll", "figure", "holder", "box", "stand", "bag", "pot", "statue", "cup", "lamp", "cushion")


def list_nouns(wordnet: Nouns) -> tuple[list[str], np.ndarray]:
    """Return the nouns for physical things and how often each is to be drawn."""
    physical = wordnet.senses["physical entity"][0]
    nouns = [noun for noun, senses in wordnet.senses.items() if physical in wordnet.ancestors(senses[0])]
    shares = np.array([(wordnet.counts[noun] + 0.05) ** 0.5 for noun in nouns])
    return nouns, shares / shares.sum()


def read_names(folder: Path) -> list[str]:
    """Return the names in the training data."""
    names = {entry["name"] for entry in json.loads((folder / "train" / "foregrounds.json").read_text())}
    for path in (folder / "real").glob("*.parquet"):
        names.update(name for row in pq.read_table(path, columns=["names"]).to_pylist() for name in row["names"])
    return sorted(names)


class Texts:
    """Random texts and the embeddings that the old tower gives them, or their parts."""

    def __init__(self, tower: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, wordnet: Nouns, names: list[str]):
        self.tower, self.tokenizer, self.names = tower, tokenizer, names
        self.nouns, self.shares = list_nouns(wordnet)
        self.known = {*self.nouns, *names}
        single = [index for index, noun in enumerate(self.nouns) if noun.isalpha()]
        self.single = [self.nouns[index] for index in single]
        self.single_shares = self.shares[single] / self.shares[single].sum()

    def embed(self, texts: list[str], tower: CLIPTextModelWithProjection | None = None) -> torch.Tensor:
        """Return the embeddings of texts, of shape (texts, projection_dim)."""
        ids = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids
        return (tower or self.tower)(ids).text_embeds

    @torch.no_grad()
    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[str], torch.Tensor]:
        """Draw 2 * `count` texts, half of them compounds, and their targets."""
        nouns = rng.choice(self.nouns, count // 2, p=self.shares).tolist() + rng.choice(self.names, count // 2).tolist()
        kept = [phrase(noun, rng) for noun in nouns]
        firsts, seconds = rng.choice(self.single, (2, 2 * count), p=self.single_shares)
        heads = rng.choice(HEADS, 2 * count)
        drawn = zip(firsts.tolist(), np.where(rng.random(2 * count) < 0.3, heads, seconds).tolist(), strict=True)
        pairs = [pair for pair in drawn if pair[0] != pair[1] and " ".join(pair) not in self.known][:count]
        both = [f"{first} {second}" for first, second in pairs]
        whole = self.embed(both)
        parts = torch.stack([whole, *(self.embed([pair[i] for pair in pairs]) for i in range(2))])
        meant = nn.functional.normalize(nn.functional.normalize(parts, dim=-1).mean(0), dim=-1)
        phrases = [str(rng.choice(["{}", "{}", "a {}", "the {}"])).format(text) for text in both]
        return kept + phrases, torch.cat([self.embed(kept), meant * whole.norm(dim=-1, keepdim=True)])


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train/ and real/")
    parser.add_argument("--model", required=True)
    parser.add_argument("--start", help="checkpoint whose tower goes on learning (default: that of --model)")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=128, help="kept names, and compounds, per step")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Run the script."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = FCLMForImageMatting.from_pretrained(args.model, dtype=torch.float32).eval()
    processor = FCLMProcessor.from_pretrained(args.model)
    tower = model.model.text_model.requires_grad_(True)
    taught = copy.deepcopy(tower)
    if args.start:
        start = FCLMForImageMatting.from_pretrained(args.start, dtype=torch.float32)
        tower.load_state_dict(start.model.text_model.state_dict())
    texts = Texts(taught, processor.tokenizer, Nouns(args.wordnet), read_names(args.data))
    optimizer = torch.optim.AdamW(tower.parameters(), lr=args.learning_rate, weight_decay=0.0)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=20, num_training_steps=args.steps)
    means = torch.zeros(2)
    for step in (progress := trange(args.steps)):
        drawn, targets = texts.draw(args.batch_size, rng)
        distances = ((texts.embed(drawn, tower) - targets) ** 2).mean(1) / (targets**2).mean()
        kept, compounds = distances.view(2, -1).mean(1)
        optimizer.zero_grad()
        (3 * kept + compounds).backward()
        optimizer.step()
        schedule.step()
        means += (torch.stack([kept, compounds]).detach() - means) / min(step + 1, 100)
        progress.set_postfix(kept=f"{means[0]:.4f}", compounds=f"{means[1]:.4f}", refresh=False)
    print(f"relative squared distance from the targets: kept {means[0]:.4f}, compounds {means[1]:.4f}")
    save_weights(model, FCLMProcessor.from_pretrained(args.model), args.output, torch.float16)


if __name__ == "__main__":
    main()
