"""Logging of a run: means over steps, throughput, a file of JSON lines, pictures for trackers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker, on_main_process
from PIL import Image

from ..utils.files import write_atomically, write_bytes


class RunningMean:
    """Mean of each named value since the last [`~RunningMean.take`]."""

    def __init__(self) -> None:
        self._count, self._sums = 0, {}

    def add(self, values: dict[str, float]) -> None:
        """Add the values of one step."""
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """Return the means by name and start over."""
        means = {name: value / self._count for name, value in self._sums.items()}
        self._count, self._sums = 0, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the sums."""
        return {"count": self._count, "sums": dict(self._sums)}

    @staticmethod
    def merge(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the state whose means are those over all processes, each of which took the same steps."""
        names = states[0]["sums"]
        sums = {name: sum(state["sums"][name] for state in states) / len(states) for name in names}
        return {"count": states[0]["count"], "sums": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what [`~RunningMean.state_dict`] returned."""
        self._count, self._sums = state["count"], dict(state["sums"])


class Throughput:
    """Speed of a run, and the fraction of the time spent waiting for data.

    Args:
        samples_per_step: Samples per optimizer step, over all processes.

    Attributes:
        worked: Seconds spent on optimizer steps so far.
        waited: Seconds spent waiting for data so far.
    """

    def __init__(self, samples_per_step: int) -> None:
        self._samples_per_step = samples_per_step
        self.worked = self.waited = 0.0
        self._steps = 0
        self._taken = 0, 0.0, 0.0

    def finish_step(self, seconds: float) -> None:
        """Count a step that took `seconds`, without the wait for its data."""
        self._steps += 1
        self.worked += seconds

    def take(self) -> dict[str, float]:
        """Return the samples per second and the fraction of the time spent waiting for data, since the last call."""
        now = self._steps, self.worked, self.waited
        steps, worked, waited = (new - old for new, old in zip(now, self._taken, strict=True))
        self._taken = now
        seconds = worked + waited
        return {"samples_per_second": steps * self._samples_per_step / seconds, "data_wait": waited / seconds}

    @property
    def data_wait(self) -> float:
        """Fraction of the total time spent waiting for data, in [0, 1]."""
        return self.waited / max(self.worked + self.waited, 1e-9)

    def __str__(self) -> str:
        return f"Data wait: {self.data_wait:.1%} of {self.worked + self.waited:.1f} s"


class HistoryTracker(GeneralTracker):
    """Tracker that writes `history.jsonl`, one line per entry, and the latest picture of the validation mattes.

    Args:
        folder: Output folder of the run.
    """

    name = "history"
    requires_logging_directory = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @property
    def tracker(self) -> Path:
        """The file, which Accelerate calls the tracker."""
        return self.folder / "history.jsonl"

    @on_main_process
    def rewind(self, step: int) -> None:
        """Drop the entries after `step`, and an unfinished line that a killed run left behind."""
        if not self.tracker.is_file():
            return
        lines = [line for line in self.tracker.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        kept = "".join(line for line in lines if json.loads(line)["step"] <= step)
        write_bytes(self.tracker, kept.encode())

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Append a line."""
        with self.tracker.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    @on_main_process
    def log_images(self, values: dict[str, np.ndarray], step: int | None = None, **_: Any) -> None:
        """Replace the pictures; each value is a uint8 array of shape `(1, height, width, 3)`."""
        for name, images in values.items():
            with write_atomically(self.folder / f"{name}.png") as path:
                Image.fromarray(images[0]).save(path)


def log_picture(trackers: list[GeneralTracker], picture: np.ndarray, step: int) -> None:
    """Log a picture with the trackers that support it.

    Args:
        trackers: Active trackers.
        picture: uint8 array of shape `(height, width, 3)`.
        step: Current step.
    """
    for tracker in trackers:
        if tracker.name == "trackio":
            import trackio

            tracker.log({"validation": trackio.Image(picture)}, step=step)
        elif hasattr(tracker, "log_images"):
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": picture[None]}, step=step, **options)


__all__ = ["HistoryTracker", "RunningMean", "Throughput", "log_picture"]
