"""The training loop: learner, stream and optimiser on Accelerate, resumable to the bit."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from safetensors import SafetensorError
from tqdm import tqdm

from ..data import StreamError
from ..utils.files import remove_unfinished, write_bytes
from .arguments import Arguments
from .checkpointing import CheckpointFolder, save_weights
from .dataloading import open_feed
from .hub_upload import create_repository, upload
from .nonfinite import check_losses
from .objective.learner import ForegroundConsistentLearner
from .optimization import (
    Batch,
    average_weights,
    freeze_unused,
    make_optimization,
    mean_losses,
    share_statistics,
    take_step,
)
from .pretrained import build_starting_point
from .resuming import (
    Auxiliary,
    Stateful,
    choose_checkpoint,
    gather_state,
    read_checkpoint,
    restore_state,
    select_lasting,
)
from .signals import StopSignals, agree
from .tracking import HistoryTracker, Meter, Pace, log_picture
from .validation import validate


_STREAM_FAILED = 1000  # above all signals


class SaveError(RuntimeError):
    """A checkpoint could not be written."""


class Trainer:
    """A run. Everything that can be wrong with the arguments is found when it is made.

    Raises:
        ValueError, OSError, ImportError: an argument, a source or a checkpoint that cannot be used.
    """

    def __init__(self, arguments: Arguments) -> None:
        run = arguments.run
        self.arguments, self.folder = arguments, Path(run.output_dir)
        self.checkpoints = CheckpointFolder(self.folder / "checkpoints", run.save_total_limit)
        self.resumed_from = choose_checkpoint(self.checkpoints, arguments)
        self.history = HistoryTracker(self.folder)
        self.accelerator = Accelerator(
            mixed_precision=run.mixed_precision,
            gradient_accumulation_steps=run.gradient_accumulation_steps,
            log_with=[self.history, *run.trackers],
            project_dir=self.folder,
        )
        if run.mixed_precision != "no" and not self.accelerator.native_amp:  # Accelerate would go on in fp32
            raise ValueError(f"mixed_precision {run.mixed_precision} needs a GPU: take bf16 or no.")
        self.is_main = self.accelerator.is_main_process
        if run.threads:
            torch.set_num_threads(run.threads)
        cv2.setNumThreads(1)
        set_seed(run.seed)
        self._build()
        if self.is_main:
            self._prepare_folder()
        set_seed(run.seed, device_specific=True)
        if self.resumed_from is not None:
            self._restore(self.resumed_from)
        self.accelerator.wait_for_everyone()

    def _build(self) -> None:
        model, data, run = self.arguments.model, self.arguments.data, self.arguments.run
        feeds = [open_feed(data.sources, data.backgrounds, self.arguments, self.accelerator, data.num_workers)]
        if data.validation:
            backgrounds = data.validation_backgrounds or data.backgrounds
            feeds.append(open_feed(data.validation, backgrounds, self.arguments, self.accelerator, num_workers=0))
        parts = build_starting_point(model)
        self.processor, self.settings, self.student = parts.processor, parts.settings, parts.student
        for feed in feeds:
            feed.set_processor(self.processor.tokenizer, self.settings.image_mean, self.settings.image_std)
        self.feed, *held_out = feeds
        self.validation = [batch for feed in held_out for batch in feed.read(data.validation_batches)]
        for feed in held_out:
            feed.close()

        if run.gradient_checkpointing:
            self.student.gradient_checkpointing_enable()
        if self.student.config.backbone_config.model_type == "timm_backbone":
            self.student.to(memory_format=torch.channels_last)
        learner = ForegroundConsistentLearner(self.student.train(), parts.teacher, self.settings)
        freeze_unused(learner)
        optimizer, self.schedule = make_optimization(learner, run)
        self.learner, self.optimizer = self.accelerator.prepare(learner, optimizer)
        self.averaged = average_weights(self.student, run.ema_decay)  # prepare() made it the same in all processes
        self.encoder_size = self.student.config.encoder_size
        self.meter, self.step, self.best = Meter(), 0, float("inf")
        self.pace = Pace(run.batch_size * run.gradient_accumulation_steps * self.accelerator.num_processes)

    def _prepare_folder(self) -> None:
        run = self.arguments.run
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        write_bytes(self.folder / "arguments.yaml", self.arguments.to_yaml().encode())
        create_repository(run)

    @property
    def model(self) -> torch.nn.Module:
        """What is measured and saved."""
        return self.student if self.averaged is None else self.averaged.module

    def train(self) -> int:
        """Runs to the last step, or until a signal. It can be called once.

        Returns:
            0, or the number of the signal that stopped it; a checkpoint of the last step is written in both cases.

        Raises:
            StreamError: the data cannot be had any more; a checkpoint has been written.
            NonFiniteLossError: the batch's sample keys are in `nonfinite-*.json`.
            SaveError: a checkpoint could not be written; the one before is still there.
            UploadError: the upload at the end failed.
        """
        run = self.arguments.run
        self.history.rewind(self.step)
        self.accelerator.init_trackers(self.folder.resolve().name, {"arguments": self.arguments.to_yaml()})
        bar = tqdm(total=run.max_steps, initial=self.step, disable=not self.is_main, mininterval=5)
        try:
            with StopSignals() as signals, bar:
                stop = self._run(signals, bar)
            if run.push_to_hub and not stop:
                self._push(required=True)
        finally:
            self._close()
        return stop

    def _run(self, signals: StopSignals, bar: tqdm) -> int:
        run = self.arguments.run
        while self.step < run.max_steps:
            batches, failure = self._read(signals)
            if stop := agree(self.accelerator, _STREAM_FAILED if failure else signals.received):
                self._save()
                if stop == _STREAM_FAILED:
                    raise failure or StreamError("The data of another process cannot be had any more.")
                return stop
            losses = self._take_step(batches)
            bar.update()
            bar.set_postfix(loss=f"{losses['loss']:.4f}", data_wait=f"{self.pace.data_wait:.0%}")
            if self.step % run.log_steps == 0:
                self._log()
            if self.validation and self._is_due(run.eval_steps):
                self._validate()
            if self._is_due(run.save_steps):
                self._save()
            if run.push_steps and self.step % run.push_steps == 0:
                self._push(required=False)
        return 0

    def _read(self, signals: StopSignals) -> tuple[list[Batch], StreamError | None]:
        """The batches of a step, which a signal ends the wait for, or the error that ends the run."""
        batches, failure, begun = [], None, time.perf_counter()
        if not signals.received:
            with signals.waiting():
                try:
                    batches = self.feed.read(self.arguments.run.gradient_accumulation_steps)
                except StreamError as error:
                    failure = error
        self.pace.waited += time.perf_counter() - begun
        return batches, failure

    def _take_step(self, batches: list[Batch]) -> dict[str, float]:
        run, sizes = self.arguments.run, self.arguments.model.encoder_sizes
        begun = time.perf_counter()
        self.accelerator.unwrap_model(self.learner).set_progress(self.step / run.max_steps)
        if sizes:
            self.student.config.encoder_size = int(np.random.default_rng([run.seed, self.step]).choice(sizes))
        taken = take_step(self.accelerator, self.learner, self.optimizer, batches, run.max_grad_norm)
        self.student.config.encoder_size = self.encoder_size
        check_losses(taken, batches, self.step + 1, self.folder, self.accelerator)
        if not self.optimizer.step_was_skipped:
            self.schedule.step()
            share_statistics(self.student)
            if self.averaged is not None:
                self.averaged.update_parameters(self.student)
        self.feed.finish_step()
        self.step += 1
        losses = mean_losses(taken)
        self.meter.add(losses)
        self.pace.finish_step(time.perf_counter() - begun)
        return losses

    def _log(self) -> None:
        means = gather_object([self.meter.take()])
        losses = {f"train/{name}": sum(each[name] for each in means) / len(means) for name in means[0]}
        rates = {
            f"learning_rate/{name}": group["lr"]
            for name, group in zip(("encoder", "decoder"), self.optimizer.param_groups, strict=False)
        }
        self.accelerator.log({**losses, **rates, **self.pace.take()}, step=self.step)

    def _validate(self) -> None:
        measures, picture = validate(self.model, self.validation, self.settings, self.accelerator)
        self.accelerator.log({f"validation/{name}": value for name, value in measures.items()}, step=self.step)
        log_picture(self.accelerator.trackers if self.is_main else [], picture, self.step)
        error = measures.get("mad", measures.get("mae"))
        if error < self.best:
            self.best = error
            self._write(lambda: self._save_weights("best"))

    def _save(self) -> None:
        state = {
            "step": self.step,
            "best": self.best,
            "arguments": select_lasting(self.arguments),
            **gather_state(self._shared_parts(), self._own_parts()),
        }

        def save() -> None:
            self._save_weights("last")
            self.checkpoints.save(self.step, state)

        self._write(save)

    def _shared_parts(self) -> dict[str, Stateful | None]:
        return {
            "student": self.student,
            "auxiliary": Auxiliary(self.accelerator.unwrap_model(self.learner)),
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.accelerator.scaler,
        }

    def _own_parts(self) -> dict[str, Stateful]:
        return {"stream": self.feed, "meter": self.meter}

    def _restore(self, path: Path) -> None:
        state = read_checkpoint(path)
        restore_state(state, self._shared_parts(), self._own_parts(), self.accelerator)
        self.step, self.best = state["step"], state["best"]

    def _save_weights(self, name: str) -> None:
        dtype = getattr(torch, self.arguments.run.save_dtype)
        save_weights(self.model, self.processor, self.folder / name, dtype)

    def _write(self, write: Callable[[], None]) -> None:
        """The first process writes; if it cannot, all end with the same error."""
        failure = None
        if self.is_main:
            try:
                write()
            except (OSError, SafetensorError) as error:
                failure = error
        if agree(self.accelerator, int(failure is not None)):
            steps = self.checkpoints.list_steps()
            kept = f"That of step {steps[-1]} is whole: --resume_from_checkpoint latest goes on there." if steps else ""
            raise SaveError(f"Step {self.step} could not be saved in {self.folder}: {failure}. {kept}") from failure

    def _push(self, required: bool) -> None:
        """Uploads the best weights, without validation the last."""
        folder = self.folder / ("best" if self.best < float("inf") else "last")
        if self.is_main and folder.is_dir():
            upload(folder, self.arguments.run, self.step, required)

    def _close(self) -> None:
        """Lets go of all that has threads of its own, while there is an interpreter for them to call: a thread of Arrow or
        of a process group that wants it later aborts the process.
        """
        self.accelerator.print(f"Step {self.step}. {self.pace}. {self.feed.loader.invalid_samples}.")
        self.feed.close()
        self.learner = self.optimizer = self.schedule = None
        self.accelerator.free_memory()
        gc.collect()
        self.accelerator.end_training()

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.arguments.run.max_steps


__all__ = ["SaveError", "Trainer"]
