"""Measures the peak memory of matting one large photo, at most 4 GB; run by benchmark.py."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from bench import Bench


def peak_gigabytes() -> float:
    """Return the highest resident memory of this process so far, in GB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # not ru_maxrss: on Linux a child starts with the peak of the process that started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)


def run_memory_worker(job: dict[str, Any]) -> None:
    """Matte one photo and print the peak memory before and after as JSON."""
    from PIL import Image

    from fclm_hf import FCLMConfig, FCLMForImageMatting, FCLMImageProcessor

    torch.set_num_threads(job["threads"])
    size = {"size": {"longest_edge": job["longest_edge"]}} if job["longest_edge"] else {}
    processor = FCLMImageProcessor(**size)
    model = FCLMForImageMatting(FCLMConfig.from_preset(job["preset"]))
    model = model.to(getattr(torch, job["dtype"])).eval()
    width, height = job["photo"]
    photo = Image.effect_noise((width, height), 64).convert("RGB")
    before = peak_gigabytes()
    with torch.inference_mode():
        inputs = processor(images=photo, return_tensors="pt")
        rows, columns = inputs["pixel_values"].shape[-2:]
        boxes = torch.tensor([[[0.2 * columns, 0.2 * rows, 0.8 * columns, 0.8 * rows]]])
        outputs = model(
            pixel_values=inputs["pixel_values"].to(model.dtype), pixel_mask=inputs["pixel_mask"], input_boxes=boxes
        )
        alpha = processor.post_process_image_matting(outputs, target_sizes=[(height, width)])[0]["alpha"]
    result = {"before": before, "peak": peak_gigabytes(), "alpha": list(alpha.shape), "pixels": [rows, columns]}
    print(json.dumps(result))


def measure_memory(bench: Bench, photo: tuple[int, int]) -> None:
    """Measure the peak memory of one photo (width, height) from pixels to matte, in a process of its own."""
    for preset in ("matting-small", "lite"):
        for longest_edge in (None, max(photo)):
            job = {
                "preset": preset,
                "photo": photo,
                "longest_edge": longest_edge,
                "threads": torch.get_num_threads(),
                "dtype": str(bench.dtype).removeprefix("torch."),
            }
            print(f"  {preset}, longest_edge {longest_edge or 'default'}", file=sys.stderr)
            command = [sys.executable, str(Path(__file__).resolve()), json.dumps(job)]
            done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 this file
            label = f"peak memory, {preset}, {photo[0]} x {photo[1]} photo"
            if done.returncode:  # most likely out of memory; the other sections are still valid
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                bench.record("memory", label, None, 4, "GB", f"stopped with code {done.returncode}: {last}")
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            rows, columns = result["pixels"]
            label += f", model at {columns} x {rows}"
            note = f"{result['before']:.2f} GB of it before the photo (Python, libraries, weights)"
            bench.record("memory", label, result["peak"], 4, "GB", note)


if __name__ == "__main__":
    run_memory_worker(json.loads(sys.argv[1]))
