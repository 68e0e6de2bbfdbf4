"""Run in several processes: trains, then compares the weights of all processes."""

import sys

import torch
from accelerate.utils import gather_object

from fclm_hf.training.arguments import parse_arguments
from fclm_hf.training.loop import Trainer


trainer = Trainer(parse_arguments(sys.argv[1:]))
begun = [value.clone() for value in trainer.student.state_dict().values()]
weights = {}
trainer._end = lambda worked: weights.update(
    all=gather_object([{**trainer.student.state_dict(), **trainer.averaged.state_dict()}]),
    keys=gather_object([trainer.feed.loader.stream.rank]),
)
trainer.train()
one, two = weights["all"]
assert weights["keys"] == [0, 1]
different = [name for name in one if not torch.equal(one[name], two[name])]
assert not different, f"{len(different)} of {len(one)}: {different[:5]}"
assert any(not torch.equal(a, b) for a, b in zip(begun, trainer.student.state_dict().values(), strict=True))
trainer.accelerator.print("equal weights")
trainer.accelerator.end_training()
