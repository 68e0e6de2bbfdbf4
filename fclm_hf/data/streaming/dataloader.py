"""Loader that reads a training stream through worker processes and tracks the last batch that was used."""

import logging
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from ...utils.renaming import warn_renamed
from ..sources.invalid_samples import InvalidSampleCounter
from .dataset import StreamItem, TrainingStream


logger = logging.getLogger(__name__)


def _ignore_signals(worker: int) -> None:
    """Let a worker ignore Ctrl-C and the first SIGTERM, which reach the whole process group: the main process saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _start_workers(loader: DataLoader) -> Iterator[StreamItem]:
    """Start the workers of a loader while OpenCV has no threads: they do not survive a fork, and workers would hang."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


class StreamLoader:
    """Iterates over the batches of a [`TrainingStream`] and resumes bit-exactly.

    `state_dict()` belongs to the last batch that was handed out; what workers have prefetched does not count. Save it
    per process. A run that loads the states, with the same sources, seed and shards, gets exactly the pairs that would
    have followed, with any number of processes and workers, see [`TrainingStream`].

    A batch is a dict with these entries, for B pairs of `size` x `size` pixels (`composition.size`) and N prompts each:

    - `pixel_values_a`, `pixel_values_b`: float32 `(B, 3, size, size)`, normalized by the mean and standard deviation of
      the stream, 0 in the padding;
    - `pixel_mask`: int64 `(B, size, size)`, 0 for padding;
    - `labels`: float32 `(B, N, size, size)` in [0, 1], the target of each prompt;
    - `foreground`: float32 `(B, 1, size, size)` in [0, 1], the whole foreground;
    - `object_mask`: bool `(B, N)`, True;
    - `label_mask`: bool `(B, N, size, size)`, False where a label is unknown; if any source has coarse masks;
    - `learns_edges`: bool `(B,)`; if any source sets `learn_edges`;
    - `region_alphas` uint8 `(B, objects, size, size)` in [0, 255], `region_names` bool `(B, objects, names)`, and
      `name_ids` int64 `(names, length)`: the named objects, which names fit each, and the tokens of all names; if
      `has_regions` is set;
    - `input_points`, `input_labels`, `input_boxes`, `input_ids`, `attention_mask`, `input_masks`: see
      [`collate_prompts`];
    - `sample_keys`: per image a list of (epoch, key) of the samples in front.

    Args:
        stream: Stream of this process.
        num_workers: Number of worker processes; 0 composes in this one. It does not change the batches.
        prefetch_factor: Number of batches that each worker makes ahead.

    Raises:
        StreamError: While iterating: too many samples are invalid, a connection stays down, or a source has no rows.

    Example:
        >>> import json, pathlib
        >>> from PIL import Image
        >>> from transformers import AutoTokenizer
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.data import BatchSettings, CompositionSettings, PairSettings, SourceConfig
        >>> from fclm_hf.data import StreamLoader, TrainingStream, open_source
        >>> for kind, mode in (("foregrounds", "RGBA"), ("backgrounds", "RGB")):
        ...     Image.new(mode, (16, 16), (200, 90, 40, 128)[: len(mode)]).save(f"{kind}.png")
        ...     _ = pathlib.Path(f"{kind}.json").write_text(json.dumps([{"file": f"{kind}.png", "name": "a square"}]))
        >>> objects, photos = (open_source(SourceConfig(".", kind)) for kind in ("rgba", "background"))
        >>> tokenizer = AutoTokenizer.from_pretrained(LITE_CHECKPOINT)
        >>> pairs, batches = PairSettings(CompositionSettings(size=32)), BatchSettings(2, prompts_per_image=1)
        >>> def open_loader():
        ...     return StreamLoader(TrainingStream([objects], [photos], tokenizer, pairs, batches), num_workers=0)
        >>> loader = open_loader()
        >>> reader = iter(loader)
        >>> first, state, second = next(reader), loader.state_dict(), next(reader)
        >>> resumed = open_loader()
        >>> resumed.load_state_dict(state)
        >>> bool((next(iter(resumed))["labels"] == second["labels"]).all())
        True
    """

    def __init__(self, stream: TrainingStream, num_workers: int = 1, prefetch_factor: int = 2):
        self.stream = stream
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor if num_workers else None
        self._reported = 0
        self._invalid_samples = InvalidSampleCounter()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        items = DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # by default, each start would change the global random state
        )
        for item in _start_workers(items):
            if item.error is not None:
                raise item.error
            self.stream.consumed += self.stream.world_size * self.stream.batches.batch_size
            self.stream.states |= item.shards
            counted = InvalidSampleCounter.from_state_dict(item.invalid_samples)
            self._invalid_samples = InvalidSampleCounter.merge([self._invalid_samples, counted])
            self._report()
            self._invalid_samples.check(self.stream.pairs.max_invalid_fraction, self.stream.pairs.min_sample_count)
            yield item.batch

    @property
    def invalid_samples(self) -> InvalidSampleCounter:
        """Samples used and skipped by this process up to the last batch; counters of processes can be merged."""
        return self._invalid_samples

    @property
    def faults(self) -> InvalidSampleCounter:
        """Deprecated name of `invalid_samples`."""
        warn_renamed("StreamLoader.faults", "invalid_samples")
        return self.invalid_samples

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch, as plain numbers, strings, lists and dicts."""
        stream = self.stream
        return {
            **self._describe(),
            "consumed": stream.consumed,
            "shards": dict(stream.states),
            "faults": self.invalid_samples.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batch that a state belongs to.

        Args:
            state: State that `state_dict()` returned in any process, or what [`merge_states`] makes of those of all.
                The state of one process suffices for the same pairs; with those of all, other processes need not read
                the rows before them again.

        Raises:
            ValueError: If the state was saved with other sources, another seed or another number of shards, or by a
                release whose order of samples depended on the numbers of processes and workers.
        """
        if "shards" not in state:
            raise ValueError(
                "state must be one of this release, got one whose order of samples depends on the numbers of processes"
                " and workers. Resume it with the release that saved it, or start a new run from its weights."
            )
        for name, value in self._describe().items():
            if state[name] != value:
                raise ValueError(
                    f"{name} must be {state[name]!r}, as when the state was saved, got {value!r}: only then the stream"
                    " resumes exactly. Start without the state to read the data from the beginning."
                )
        self.stream.consumed = state["consumed"]
        self.stream.states = {int(index): each for index, each in state["shards"].items()}
        self._invalid_samples = InvalidSampleCounter.from_state_dict(state["faults"])

    def _describe(self) -> dict[str, Any]:
        """Return the values that must be the same when a stream resumes."""
        sources = [*self.stream.foregrounds, *self.stream.backgrounds]
        return {
            "sources": [source.config.label for source in sources],
            "seed": self.stream.pairs.seed,
            "num_shards": self.stream.num_shards,
        }

    def _report(self) -> None:
        """Log the first invalid sample, and each time that their number has doubled."""
        counter = self.invalid_samples
        if counter.skipped >= max(1, 2 * self._reported):
            self._reported = counter.skipped
            logger.warning("%s", counter)


def merge_states(states: Sequence[dict[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
    """Return the state of a process of a resumed run, which may have another number of processes.

    Args:
        states: States of the [`StreamLoader`] of each process, all saved after the same step.
        rank: Number of the process in the resumed run.
        world_size: Number of processes of the resumed run.

    Returns:
        The newest known position in each shard. The counts of invalid samples are divided among the processes.

    Example:
        >>> from fclm_hf.data.streaming.dataloader import merge_states
        >>> counts = [{"used": used, "reasons": {}, "examples": {}} for used in (5, 6)]
        >>> states = [{"shards": {str(rank): {"pairs": 8}}, "faults": counts[rank]} for rank in range(2)]
        >>> merge_states(states, rank=0, world_size=1)
        {'shards': {0: {'pairs': 8}, 1: {'pairs': 8}}, 'faults': {'used': 11, 'reasons': {}, 'examples': {}}}
    """
    if not all("shards" in state for state in states):
        return states[0]  # of an earlier release, which `load_state_dict` refuses
    shards: dict[int, dict[str, Any]] = {}
    for state in states:
        for index, position in state["shards"].items():
            known = shards.get(int(index))
            if known is None or known["pairs"] < position["pairs"]:
                shards[int(index)] = position
    counters = [InvalidSampleCounter.from_state_dict(state["faults"]) for state in states[rank::world_size]]
    faults = InvalidSampleCounter.merge(counters).state_dict()
    return {**states[0], "shards": dict(sorted(shards.items())), "faults": faults}
