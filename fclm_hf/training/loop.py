"""The training loop: learner, stream and optimiser on Accelerate, resumable to the bit."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.logging import get_logger
from accelerate.utils import broadcast, gather_object, set_seed
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx
from tqdm import tqdm

from ..data import SourceConfig, StreamError, StreamLoader, TrainingStream, open_source
from ..hub import push_checkpoint
from .arguments import Arguments
from .checkpoints import CheckpointFolder, capture_rng, remove_unfinished, restore_rng, save_weights, write_whole
from .feeding import BatchFeed
from .learner import ForegroundConsistentLearner
from .optimisation import Batch, Losses, average_weights, make_optimization, take_step
from .signals import StopSignals, agree
from .starting_points import build_starting_point
from .tracking import HistoryTracker, Meter, log_picture
from .validation import validate


logger = get_logger(__name__)
_STREAM_FAILED = 1000  # above all signals


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


class Trainer:
    """
    A run. Everything that can be wrong with the arguments is found when it is made.

    Raises:
        ValueError, OSError, ImportError: an argument, a source or a checkpoint that cannot be used.
    """

    def __init__(self, arguments: Arguments) -> None:
        run = arguments.run
        self.arguments, self.folder = arguments, Path(run.output_dir)
        self.history = HistoryTracker(self.folder)
        self.accelerator = Accelerator(
            mixed_precision=run.mixed_precision,
            gradient_accumulation_steps=run.gradient_accumulation_steps,
            log_with=[self.history, *run.trackers],
            project_dir=self.folder,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.is_main = self.accelerator.is_main_process
        self.checkpoints = CheckpointFolder(self.folder / "checkpoints", run.save_total_limit)
        if run.resume_from_checkpoint is None and self.checkpoints.list_steps():
            raise ValueError(f"{self.folder} holds a run: add --resume_from_checkpoint latest, or choose another.")
        self.resumed_from = self.checkpoints.find(run.resume_from_checkpoint) if run.resume_from_checkpoint else None
        if run.threads:
            torch.set_num_threads(run.threads)
        cv2.setNumThreads(1)
        set_seed(run.seed)
        self._build()
        if self.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.folder)
            (self.folder / "arguments.yaml").write_text(arguments.to_yaml())
            if run.push_to_hub or run.push_steps:
                HfApi().create_repo(run.hub_model_id, private=run.hub_private or None, exist_ok=True)
        set_seed(run.seed, device_specific=True)
        if self.resumed_from is not None:
            self._load(self.resumed_from)
        self.accelerator.wait_for_everyone()

    def _build(self) -> None:
        model, data, run = self.arguments.model, self.arguments.data, self.arguments.run
        self.feed = self._open(data.sources, data.backgrounds, run.seed, data.num_workers)
        held_out = None
        if data.validation:
            held_out = self._open(data.validation, data.validation_backgrounds or data.backgrounds, run.seed, 0)
        parts = build_starting_point(model)
        self.processor, self.settings, student = parts.processor, parts.settings, parts.student
        for feed in filter(None, (self.feed, held_out)):
            feed.loader.stream.tokenizer = self.processor.tokenizer
            feed.set_normalisation(self.settings.image_mean, self.settings.image_std)
        self.validation = held_out.read(data.validation_batches) if held_out else []
        if run.gradient_checkpointing:
            student.gradient_checkpointing_enable()
        if student.config.backbone_config.model_type == "timm_backbone":
            student.to(memory_format=torch.channels_last)
        learner = ForegroundConsistentLearner(student.train(), parts.teacher, self.settings)
        optimizer, self.schedule = make_optimization(learner, run)
        self.learner, self.optimizer = self.accelerator.prepare(learner, optimizer)
        self.student = student
        self.averaged = average_weights(student, run.ema_decay)  # prepare() made it the same in all processes
        self.encoder_size = student.config.encoder_size
        self.meter, self.step, self.best = Meter(), 0, float("inf")

    def _open(
        self, foregrounds: list[SourceConfig], backgrounds: list[SourceConfig], seed: int, workers: int
    ) -> BatchFeed:
        data, run, accelerator = self.arguments.data, self.arguments.run, self.accelerator
        stream = TrainingStream(
            [open_source(config) for config in foregrounds],
            [open_source(config) for config in backgrounds],
            tokenizer=None,  # comes with the model, which takes longer to load
            pairs=data.make_pair_settings(seed),
            batches=data.make_batch_settings(run.batch_size),
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        return BatchFeed(StreamLoader(stream, workers, data.prefetch_factor), accelerator.device)

    @property
    def model(self) -> torch.nn.Module:
        """What is measured and saved."""
        return self.student if self.averaged is None else self.averaged.module

    def train(self) -> int:
        """
        Runs to the last step, or until a signal.

        Returns:
            0, or the number of the signal that stopped it; a checkpoint of the last step is written in both cases.

        Raises:
            StreamError: the data cannot be had any more; a checkpoint has been written.
            NonFiniteLossError: the batch's sample keys are in `nonfinite-*.json`.
        """
        run, accelerator = self.arguments.run, self.accelerator
        self.history.rewind(self.step)
        accelerator.init_trackers(self.folder.resolve().name, {"arguments": self.arguments.to_yaml()})
        bar = tqdm(total=run.max_steps, initial=self.step, disable=not self.is_main, mininterval=5)
        worked, marks = 0.0, (self.step, 0.0, 0.0)
        with StopSignals() as signals:
            while self.step < run.max_steps:
                batches, failure = [], None
                if not signals.received:
                    with signals.waiting():
                        try:
                            batches = self.feed.read(run.gradient_accumulation_steps)
                        except StreamError as error:
                            failure = error
                if stop := agree(accelerator, _STREAM_FAILED if failure else signals.received):
                    self._save()
                    if stop == _STREAM_FAILED:
                        raise failure or StreamError("The data of another process cannot be had any more.")
                    bar.close()
                    self._end(worked)
                    return stop
                begun = time.perf_counter()
                losses = self._take_step(batches)
                worked += time.perf_counter() - begun
                bar.update()
                bar.set_postfix(loss=f"{losses['loss']:.4f}", data_wait=f"{self._share(self.feed.waited, worked):.0%}")
                if self.step % run.log_steps == 0:
                    steps, waited, busy = self.step - marks[0], self.feed.waited - marks[1], worked - marks[2]
                    pairs = steps * run.batch_size * run.gradient_accumulation_steps * accelerator.num_processes
                    speed = {"samples_per_second": pairs / (waited + busy), "data_wait": self._share(waited, busy)}
                    self._log(speed)
                    marks = self.step, self.feed.waited, worked
                if self.validation and self._is_due(run.eval_steps):
                    self._validate()
                if self._is_due(run.save_steps):
                    self._save()
                if run.push_steps and self.step % run.push_steps == 0:
                    self._push(required=False)
        bar.close()
        if run.push_to_hub:
            self._push(required=True)
        self._end(worked)
        return 0

    def _end(self, worked: float) -> None:
        waited, faults = self.feed.waited, self.feed.loader.faults
        self.accelerator.print(
            f"Step {self.step}. Data wait: {self._share(waited, worked):.1%} of {waited + worked:.1f} s. {faults}."
        )
        self.accelerator.end_training()

    def _take_step(self, batches: list[Batch]) -> dict[str, float]:
        run, accelerator, sizes = self.arguments.run, self.accelerator, self.arguments.model.encoder_sizes
        accelerator.unwrap_model(self.learner).set_progress(self.step / run.max_steps)
        if sizes:
            self.student.config.encoder_size = int(np.random.default_rng([run.seed, self.step]).choice(sizes))
        losses = take_step(accelerator, self.learner, self.optimizer, batches, run.max_grad_norm, self._check_losses)
        self.student.config.encoder_size = self.encoder_size
        if not self.optimizer.step_was_skipped:
            self.schedule.step()
            for (
                buffer
            ) in self.student.buffers():  # statistics of batch norms, which each process takes of its own images
                buffer.copy_(broadcast(buffer.clone()))
            if self.averaged is not None:
                self.averaged.update_parameters(self.student)
        self.feed.finish_step()
        self.step += 1
        values = dict(zip(losses, torch.stack([*losses.values()]).float().tolist(), strict=True))
        self.meter.add(values)
        return values

    def _check_losses(self, losses: Losses, batch: dict[str, Any]) -> None:
        scaler = self.accelerator.scaler
        # a loss scaled by less than 1 does not overflow because of the scale
        tolerated = scaler is not None and scaler.get_scale() >= 1
        is_bad = not tolerated and not bool(torch.isfinite(losses["loss"]))
        if not agree(self.accelerator, int(is_bad)):
            return
        if not is_bad:
            raise NonFiniteLossError(f"The loss of step {self.step + 1} is not finite in another process.")
        path = self.folder / f"nonfinite-step-{self.step + 1}-process-{self.accelerator.process_index}.json"
        values = {name: str(value.item()) for name, value in losses.items()}
        content = {"step": self.step + 1, "losses": values, "sample_keys": batch["sample_keys"]}
        write_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1)))
        raise NonFiniteLossError(
            f"The loss of step {self.step + 1} is {values['loss']}. Its samples are in {path}: {batch['sample_keys']}"
        )

    def _log(self, speed: dict[str, float]) -> None:
        means = gather_object([self.meter.take()])
        losses = {f"train/{name}": sum(each[name] for each in means) / len(means) for name in means[0]}
        rates = {
            f"learning_rate/{name}": group["lr"]
            for name, group in zip(("encoder", "decoder"), self.optimizer.param_groups, strict=False)
        }
        self.accelerator.log({**losses, **rates, **speed}, step=self.step)

    def _validate(self) -> None:
        measures, picture = validate(self.model, self.validation, self.settings, self.accelerator)
        self.accelerator.log({f"validation/{name}": value for name, value in measures.items()}, step=self.step)
        log_picture(self.accelerator.trackers if self.is_main else [], picture, self.step)
        error = measures.get("mad", measures.get("mae"))
        if error < self.best:
            self.best = error
            self._save_weights("best")

    def _save_weights(self, name: str) -> None:
        if self.is_main:
            dtype = getattr(torch, self.arguments.run.save_dtype)
            save_weights(self.model, self.processor, self.folder / name, dtype)

    def _save(self) -> None:
        own = {"rng": capture_rng(), "stream": self.feed.state_dict(), "meter": self.meter.state_dict()}
        processes = gather_object([own])
        if self.is_main:
            self._save_weights("last")
            scaler = self.accelerator.scaler
            state = {
                "step": self.step,
                "best": self.best,
                "student": self.student.state_dict(),
                "auxiliary": self.accelerator.unwrap_model(self.learner).auxiliary_state_dict(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "processes": processes,
            }
            self.checkpoints.save(self.step, state)
        self.accelerator.wait_for_everyone()

    def _load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        count, index = len(state["processes"]), self.accelerator.process_index
        if count != self.accelerator.num_processes:
            raise ValueError(f"{path} is of a run with {count} processes, this one has another number.")
        for name, part in (("averaged", self.averaged), ("scaler", self.accelerator.scaler)):
            if (state[name] is None) != (part is None):
                raise ValueError(f"{path} is of a run with another ema_decay or mixed_precision ({name}).")
            if part is not None:
                part.load_state_dict(state[name])
        own = state["processes"][index]
        self.feed.load_state_dict(own["stream"])
        self.student.load_state_dict(state["student"])
        self.accelerator.unwrap_model(self.learner).load_auxiliary_state_dict(state["auxiliary"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.meter.load_state_dict(own["meter"])
        self.step, self.best = state["step"], state["best"]
        restore_rng(own["rng"])

    def _push(self, required: bool) -> None:
        if not self.is_main:
            return
        folder = self.folder / ("best" if self.validation and (self.folder / "best").is_dir() else "last")
        if not folder.is_dir():
            return
        run = self.arguments.run
        try:
            push_checkpoint(
                folder, run.hub_model_id, private=run.hub_private or None, commit_message=f"Step {self.step}"
            )
        except (OSError, httpx.HTTPError) as error:
            if required:
                raise
            logger.warning("The push of step %d failed, training goes on: %s", self.step, error)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.arguments.run.max_steps

    @staticmethod
    def _share(waited: float, worked: float) -> float:
        return waited / max(waited + worked, 1e-9)


def exit_code(stop: int) -> int:
    """What a shell expects of a process that a signal stopped."""
    return 128 + stop if stop in (signal.SIGINT, signal.SIGTERM) else 0


__all__ = ["NonFiniteLossError", "Trainer", "exit_code"]
