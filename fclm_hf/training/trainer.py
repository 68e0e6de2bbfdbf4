"""The trainer: learner, data stream and optimizer on Accelerate, with bit-exact resumption."""

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
from torch import nn
from tqdm import tqdm

from ..data import StreamError
from ..utils.files import remove_unfinished, write_bytes
from .arguments import Arguments
from .checkpointing import (
    AuxiliaryState,
    CheckpointFolder,
    Mergeable,
    SaveError,
    Stateful,
    choose_checkpoint,
    gather_state,
    read_checkpoint,
    restore_state,
    save_weights,
    select_fixed,
)
from .dataloading import open_batches
from .distributed import agree, broadcast_buffers
from .hub_upload import create_repository, upload
from .objective.learner import ForegroundConsistentLearner
from .optimization import (
    Batch,
    average_weights,
    check_losses,
    compile_modules,
    freeze_unused,
    make_optimization,
    mean_losses,
    take_step,
)
from .pretrained import build_starting_point
from .sharding import enable_fsdp, gather_tensors, gather_weights, make_fsdp_plugin
from .signals import StopSignals
from .tracking import HistoryTracker, RunningMean, Throughput, log_picture
from .validation import validate


_STREAM_FAILED = 1000  # larger than the number of any signal, so that it wins in `agree`


class Trainer:
    """Trainer of a run. Creating it checks all arguments, loads model and data, and restores the checkpoint if any.

    Args:
        arguments: Arguments of the run.

    Attributes:
        student: The model that is trained.
        step: Number of optimizer steps taken.
        best: Lowest validation error so far (`mad`, or `mae` for segmentation).

    Raises:
        ValueError: If an argument, a source or a checkpoint is not accepted.
        OSError: If a source or a checkpoint is unavailable.
        ImportError: If a tracker or an optional dependency is not installed.
    """

    def __init__(self, arguments: Arguments) -> None:
        run = arguments.run
        self.arguments, self.folder = arguments, Path(run.output_dir)
        self.checkpoints = CheckpointFolder(self.folder / "checkpoints", run.save_total_limit)
        self.accelerator = self._create_accelerator()
        checkpoint = choose_checkpoint(self.checkpoints, arguments, self.accelerator.num_processes)
        self.is_main = self.accelerator.is_main_process
        if run.threads:
            torch.set_num_threads(run.threads)
        cv2.setNumThreads(1)
        set_seed(run.seed)
        self._open_data_and_model()
        self._prepare_learner()
        if self.is_main:
            self._prepare_folder()
        set_seed(run.seed, device_specific=True)
        if checkpoint is not None:
            self._restore(checkpoint)
        self.accelerator.wait_for_everyone()

    def _create_accelerator(self) -> Accelerator:
        """Create the accelerator with its trackers."""
        run = self.arguments.run
        self.history = HistoryTracker(self.folder)
        self.fsdp_plugin = make_fsdp_plugin() if run.fsdp else None
        accelerator = Accelerator(
            fsdp_plugin=self.fsdp_plugin,
            mixed_precision=run.mixed_precision,
            gradient_accumulation_steps=run.gradient_accumulation_steps,
            log_with=[self.history, *run.report_to],
            project_dir=self.folder,
        )
        if run.mixed_precision != "no" and not accelerator.native_amp:  # Accelerate would continue in fp32
            raise ValueError(f"mixed_precision {run.mixed_precision!r} requires a GPU: use 'bf16' or 'no'.")
        return accelerator

    def _open_data_and_model(self) -> None:
        """Open the data before the model is loaded, as a wrong source should be reported early."""
        data = self.arguments.data
        workers, shards = data.dataloader_num_workers, data.stream_shards or None
        readers = [open_batches(data.sources, data.backgrounds, self.arguments, self.accelerator, workers, shards)]
        if data.validation:
            backgrounds = data.validation_backgrounds or data.backgrounds
            readers.append(open_batches(data.validation, backgrounds, self.arguments, self.accelerator, num_workers=0))
        self.preset = build_starting_point(self.arguments.model)
        tile_size, size = self.preset.student.config.tile_size, data.composition.size
        if self.preset.settings.tile_share and size <= tile_size:
            raise ValueError(
                f"composition.size must exceed config.tile_size, {tile_size}, with tile_share, got {size}."
            )
        tokenizer, settings = self.preset.processor.tokenizer, self.preset.settings
        for reader in readers:
            reader.set_processor(tokenizer, settings.image_mean, settings.image_std)
        self.reader, *held_out = readers
        self.validation = [batch for reader in held_out for batch in reader.read(data.validation_batches)]
        for reader in held_out:
            reader.close()

    def _prepare_learner(self) -> None:
        """Prepare learner, optimizer, scheduler, averaged weights and counters."""
        run, preset = self.arguments.run, self.preset
        self.student = preset.student
        if run.activation_checkpointing:
            self.student.activation_checkpointing_enable()
        if self.student.config.backbone_config.model_type == "timm_backbone":
            self.student.to(memory_format=torch.channels_last)
        if run.torch_compile:
            compile_modules(self.student, run.torch_compile_backend)
        learner = ForegroundConsistentLearner(
            self.student.train(), preset.teacher, preset.settings, preset.semantic_teacher
        )
        freeze_unused(learner)
        optimizer, self.scheduler = make_optimization(learner, run)
        if self.fsdp_plugin is not None:
            enable_fsdp(self.accelerator, self.fsdp_plugin, learner)
        self.learner, self.optimizer = self.accelerator.prepare(learner, optimizer)
        # after prepare(), which gives all processes the same weights
        self.averaged = average_weights(self.student, run.ema_decay)
        self.encoder_size = self.student.config.encoder_size
        self.losses, self.step, self.best = RunningMean(), 0, float("inf")
        batch_size = run.per_device_train_batch_size * run.gradient_accumulation_steps
        self.throughput = Throughput(batch_size * self.accelerator.num_processes)

    def _prepare_folder(self) -> None:
        """Create the output folder and, if the run uploads, the Hub repository."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        write_bytes(self.folder / "arguments.yaml", self.arguments.to_yaml().encode())
        create_repository(self.arguments.run)

    @property
    def model(self) -> nn.Module:
        """The model that is validated and saved: the averaged one if `ema_decay` is set."""
        return self.student if self.averaged is None else self.averaged.module

    def train(self) -> int:
        """Train to the last step or until a signal arrives. It can be called only once.

        Returns:
            0, or the number of the signal that stopped the run; a checkpoint of the last step is saved in both cases.

        Raises:
            StreamError: If the data becomes unavailable. A checkpoint has been saved.
            NonFiniteLossError: If the loss becomes NaN or infinite. `nonfinite-*.json` names the samples.
            SaveError: If a checkpoint cannot be saved. The previous one remains.
            UploadError: If the upload at the end fails.
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
        """Take the remaining steps; return the number of the signal that ended them, or 0."""
        while self.step < self.arguments.run.max_steps:
            batches, failure = self._read_batches(signals)
            if stop := agree(self.accelerator, _STREAM_FAILED if failure else signals.received):
                self._save_checkpoint()
                if stop == _STREAM_FAILED:
                    raise failure or StreamError("The data of another process is unavailable.")
                return stop
            losses = self._take_step(batches)
            bar.update()
            bar.set_postfix(loss=f"{losses['loss']:.4f}", data_wait=f"{self.throughput.data_wait:.0%}")
            self._log_and_save()
        return 0

    def _read_batches(self, signals: StopSignals) -> tuple[list[Batch], StreamError | None]:
        """Read the batches of a step, unless a signal arrives; return them and the error, if any, that ends the run."""
        batches, failure, start = [], None, time.perf_counter()
        if not signals.received:
            with signals.waiting():
                try:
                    batches = self.reader.read(self.arguments.run.gradient_accumulation_steps)
                except StreamError as error:
                    failure = error
        self.throughput.waited += time.perf_counter() - start
        return batches, failure

    def _take_step(self, batches: list[Batch]) -> dict[str, float]:
        """Take an optimizer step, update the scheduler and the averaged weights, and return the mean losses."""
        run, start = self.arguments.run, time.perf_counter()
        self._set_schedules()
        taken = take_step(
            self.accelerator, self.learner, self.optimizer, batches, run.max_grad_norm, run.sync_batch_norm
        )
        self.student.config.encoder_size = self.encoder_size
        check_losses(taken, batches, self.step + 1, self.folder, self.accelerator)
        if not self.optimizer.step_was_skipped:
            self.scheduler.step()
            broadcast_buffers(self.student)
            if self.averaged is not None:
                self.averaged.update_parameters(self.student)
        self.reader.finish_step()
        self.step += 1
        losses = mean_losses(taken)
        self.losses.add(losses)
        self.throughput.finish_step(time.perf_counter() - start)
        return losses

    def _set_schedules(self) -> None:
        """Set the progress of the training and the size of the encoder input for the next step."""
        run, sizes = self.arguments.run, self.arguments.model.encoder_sizes
        self.accelerator.unwrap_model(self.learner).set_progress(self.step / run.max_steps)
        if sizes:
            self.student.config.encoder_size = int(np.random.default_rng([run.seed, self.step]).choice(sizes))

    def _log_and_save(self) -> None:
        """Log, validate, save and upload if these are due after the step."""
        run = self.arguments.run
        if self.step % run.logging_steps == 0:
            self._log()
        if self.validation and self._is_due(run.eval_steps):
            self._validate()
        if self._is_due(run.save_steps):
            self._save_checkpoint()
        if run.push_steps and self.step % run.push_steps == 0:
            self._push(required=False)

    def _is_due(self, every: int) -> bool:
        """Return whether an action that is taken every `every` steps and after the last one is due."""
        return self.step % every == 0 or self.step == self.arguments.run.max_steps

    def _log(self) -> None:
        """Log losses, learning rates and throughput."""
        means = gather_object([self.losses.take()])
        losses = {f"train/{name}": sum(each[name] for each in means) / len(means) for name in means[0]}
        rates = {
            f"learning_rate/{name}": group["lr"]
            for name, group in zip(("encoder", "decoder"), self.optimizer.param_groups, strict=False)
        }
        self.accelerator.log({**losses, **rates, **self.throughput.take()}, step=self.step)

    def _validate(self) -> None:
        """Log metrics and a picture, and save the weights if they are the best so far."""
        with gather_weights(self.learner):
            metrics, picture = validate(self.model, self.validation, self.preset.settings, self.accelerator)
        self.accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, step=self.step)
        log_picture(self.accelerator.trackers if self.is_main else [], picture, self.step)
        error = metrics.get("mad", metrics.get("mae"))
        if error < self.best:
            self.best = error
            weights = gather_tensors(self.model.state_dict())
            self._write(lambda: self._save_weights("best", weights))

    def _save_checkpoint(self) -> None:
        """Save the weights in last/ and a checkpoint to resume from."""
        state = {
            "step": self.step,
            "best": self.best,
            "arguments": select_fixed(self.arguments),
            **gather_state(self._shared_parts(), self._own_parts()),
        }

        weights = state["student"] if self.averaged is None else self.model.state_dict()

        def save() -> None:
            self._save_weights("last", weights)
            self.checkpoints.save(self.step, state)

        self._write(save)

    def _shared_parts(self) -> dict[str, Stateful | None]:
        """Return the parts of the state that are the same in all processes; the names are keys of the checkpoint."""
        return {
            "student": self.student,
            "auxiliary": AuxiliaryState(self.accelerator.unwrap_model(self.learner)),
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "schedule": self.scheduler,
            "scaler": self.accelerator.scaler,
        }

    def _own_parts(self) -> dict[str, Mergeable]:
        """Return the parts of the state that differ between processes; the names are keys of the checkpoint."""
        return {"stream": self.reader, "meter": self.losses}

    def _restore(self, path: Path) -> None:
        """Restore the state of a checkpoint."""
        state = read_checkpoint(path)
        restore_state(state, self._shared_parts(), self._own_parts(), self.accelerator)
        self.step, self.best = state["step"], state["best"]

    def _save_weights(self, name: str, weights: dict[str, torch.Tensor]) -> None:
        """Save weights of the model and its processor in a folder for `from_pretrained`."""
        dtype = getattr(torch, self.arguments.run.save_dtype)
        save_weights(self.model, self.preset.processor, self.folder / name, dtype, weights)

    def _write(self, write: Callable[[], None]) -> None:
        """Write in the main process; if that fails, all processes raise the same error."""
        failure = None
        if self.is_main:
            try:
                write()
            except (OSError, SafetensorError) as error:
                failure = error
        if agree(self.accelerator, int(failure is not None)):
            message = f"Step {self.step} could not be saved in {self.folder}: {failure}."
            if steps := self.checkpoints.list_steps():
                message += f" --resume_from_checkpoint latest resumes from step {steps[-1]}."
            raise SaveError(message) from failure

    def _push(self, required: bool) -> None:
        """Upload the best weights, or the last ones without validation."""
        folder = self.folder / ("best" if self.best < float("inf") else "last")
        if self.is_main and folder.is_dir():
            upload(folder, self.arguments.run, self.step, required)

    def _close(self) -> None:
        """Release everything that has threads of its own before the interpreter exits.

        A thread of Arrow or of a process group that calls the interpreter afterwards aborts the process.
        """
        self.accelerator.print(f"Step {self.step}. {self.throughput}. {self.reader.loader.invalid_samples}.")
        self.reader.close()
        self.learner = self.optimizer = self.scheduler = None
        self.accelerator.free_memory()
        gc.collect()
        self.accelerator.end_training()


__all__ = ["Trainer"]
