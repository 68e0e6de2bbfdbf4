"""The curve of a run: means over steps, a file of JSON lines, and trackers that are installed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker, on_main_process
from PIL import Image

from ..utils.files import write_atomically, write_bytes


class Meter:
    """Means of what was added since the last [`Meter.take`]."""

    def __init__(self) -> None:
        self._count, self._sums = 0, {}

    def add(self, values: dict[str, float]) -> None:
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        means = {name: value / self._count for name, value in self._sums.items()}
        self._count, self._sums = 0, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count, self._sums = state["count"], dict(state["sums"])


class Pace:
    """How fast a run goes.

    Args:
        samples_per_step: of all processes.

    Attributes:
        worked, waited: seconds spent on steps and on waiting for their data, in all.
    """

    def __init__(self, samples_per_step: int) -> None:
        self._samples_per_step = samples_per_step
        self.worked = self.waited = 0.0
        self._steps = 0
        self._taken = 0, 0.0, 0.0

    def finish_step(self, seconds: float) -> None:
        self._steps += 1
        self.worked += seconds

    def take(self) -> dict[str, float]:
        """Samples per second, and the share of the time that was waited for data, since the last call."""
        now = self._steps, self.worked, self.waited
        steps, worked, waited = (new - old for new, old in zip(now, self._taken, strict=True))
        self._taken = now
        seconds = worked + waited
        return {"samples_per_second": steps * self._samples_per_step / seconds, "data_wait": waited / seconds}

    @property
    def data_wait(self) -> float:
        """Share in [0, 1] of all the time that was waited for data."""
        return self.waited / max(self.worked + self.waited, 1e-9)

    def __str__(self) -> str:
        return f"Data wait: {self.data_wait:.1%} of {self.worked + self.waited:.1f} s"


class HistoryTracker(GeneralTracker):
    """`history.jsonl`, a line per entry, and the latest picture of the validation mattes."""

    name = "history"
    requires_logging_directory = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @property
    def tracker(self) -> Path:
        return self.folder / "history.jsonl"

    @on_main_process
    def rewind(self, step: int) -> None:
        """Drops what is behind `step`, and a line that a killed run left unfinished."""
        if not self.tracker.is_file():
            return
        lines = [line for line in self.tracker.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        kept = "".join(line for line in lines if json.loads(line)["step"] <= step)
        write_bytes(self.tracker, kept.encode())

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        with self.tracker.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    @on_main_process
    def log_images(self, values: dict[str, np.ndarray], step: int | None = None, **_: Any) -> None:
        for name, images in values.items():
            with write_atomically(self.folder / f"{name}.png") as path:
                Image.fromarray(images[0]).save(path)


def log_picture(trackers: list[GeneralTracker], picture: np.ndarray, step: int) -> None:
    """Hands a picture, uint8 (height, width, 3), to the trackers that take pictures."""
    for tracker in trackers:
        if tracker.name == "trackio":
            import trackio

            tracker.log({"validation": trackio.Image(picture)}, step=step)
        elif hasattr(tracker, "log_images"):
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": picture[None]}, step=step, **options)


__all__ = ["HistoryTracker", "Meter", "Pace", "log_picture"]
