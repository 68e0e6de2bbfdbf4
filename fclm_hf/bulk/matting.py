"""Mattes of a batch of rows as PNG; what fails becomes the error of its row."""

import time
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from threading import Lock
from typing import Any

import torch
from PIL import Image

from ..checkpoints import LITE_CHECKPOINT
from ..data import RetryPolicy, StreamError
from ..data.sources.decoding import read_bytes
from ..modeling_fclm import FCLMForImageMatting
from ..pipeline_fclm import ReferringMattingPipeline
from ..processing_fclm import FCLMProcessor
from .options import BulkOptions
from .reading import Row, RowBatch


PNG_LEVEL = 1  # of 9


class PhotoMatter:
    """Mattes batches of rows. Several threads may call it: one at a time uses the model, the others load and encode.

    Args:
        options: Options of the run.
        base: Folder or URL that relative paths in cells start from.
        retry: Policy for lost connections. Defaults to that of training streams.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from fclm_hf.bulk import BulkOptions, PhotoMatter
        >>> from fclm_hf.data import SourceConfig
        >>> Image.new("RGB", (64, 48), "navy").save("photo.png")
        >>> matter = PhotoMatter(BulkOptions(SourceConfig(".", "photo"), "mattes", device="cpu"), base=".")
        >>> good, bad = matter.matte_rows([{"id": "a", "image": "photo.png"}, {"id": "b", "image": b"no photo"}])
        >>> good["mattes"][0][1:4], good["error"]
        (b'PNG', None)
        >>> bad["mattes"], bad["error"][:22]
        ([], 'image (8 bytes) is not')
    """

    def __init__(self, options: BulkOptions, base: str, retry: RetryPolicy | None = None) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
        self.options, self.base, self.retry = options, base, retry or RetryPolicy()
        # classes of this package instead of the code of a Hub repository, and no pickled weights
        name = options.model or LITE_CHECKPOINT
        model = FCLMForImageMatting.from_pretrained(name, dtype=options.dtype, use_safetensors=True)
        self.pipe = ReferringMattingPipeline(
            model.eval(), processor=FCLMProcessor.from_pretrained(name), task="referring-matting", device=options.device
        )
        self._lock = Lock()

    def __call__(self, batch: RowBatch) -> RowBatch:
        """Matte a batch.

        Args:
            batch: The batch.

        Returns:
            The batch with a dict "id", "mattes", "seconds" and "error" in place of each row.
        """
        return replace(batch, rows=self.matte_rows(batch.rows))

    def matte_rows(self, rows: list[Row]) -> list[Row]:
        """Matte rows together.

        Args:
            rows: Rows with an "id", an "image" and prompts.

        Returns:
            For each row its "id", its "mattes" as PNG, its "seconds" (those of the model are shared equally), and the
            "error" or None.

        Raises:
            LostConnectionError: If the connection stays down.
        """
        results = [{"id": row["id"], "mattes": [], "seconds": 0.0, "error": None} for row in rows]
        inputs: dict[int, dict[str, Any]] = {}
        for index, row in enumerate(rows):
            self._run(results[index], lambda index=index, row=row: inputs.update({index: self._load(row)}))
        outputs = self._predict(inputs, results)
        for index, output in outputs.items():
            self._run(results[index], lambda index=index, output=output: self._encode(results[index], output))
        return results

    def _run(self, result: Row, action: Any) -> None:
        """Run an action, note its time, and note its error, as one bad photo must not stop the others."""
        start = time.perf_counter()
        try:
            action()
        except StreamError:  # the photos after it would fail, too
            raise
        except Exception as error:
            result["error"] = str(error) or type(error).__name__
        result["seconds"] += time.perf_counter() - start

    def _load(self, row: Row) -> dict[str, Any]:
        """Return the inputs of the pipeline for a row."""
        prompts = {name: value for name, value in row.items() if name not in ("id", "image")}
        if "input_masks" in prompts:
            prompts["input_masks"] = self._read_masks(prompts["input_masks"])
        data = read_bytes(row["image"], self.base, self.retry)
        return self.pipe.preprocess(data, **self.options.prompts, **prompts)

    def _read_masks(self, masks: Any) -> Any:
        """Return the encoded masks in a cell: one, or a list of one for each object."""
        if isinstance(masks, list):
            return [self._read_masks(each) for each in masks]
        return read_bytes(masks, self.base, self.retry)

    def _predict(self, inputs: Mapping[int, dict[str, Any]], results: list[Row]) -> dict[int, dict[str, Any]]:
        """Return the outputs of the model for each of the inputs; what does not fit in memory is done one by one."""
        if not inputs:
            return {}
        batch = {key: [each[key] for each in inputs.values()] for key in ("features", "image")}
        try:
            with self._lock:
                start = time.perf_counter()
                alphas = self.pipe.forward(batch)["alphas"]
                seconds = time.perf_counter() - start
        except torch.OutOfMemoryError as error:
            if len(inputs) == 1:
                (index,) = inputs
                results[index]["error"] = str(error)
                return {}
            single = [self._predict({index: each}, results) for index, each in inputs.items()]
            return {index: output for outputs in single for index, output in outputs.items()}
        for index in inputs:
            results[index]["seconds"] += seconds / len(inputs)
        return {
            index: {"alphas": alpha[None], "image": each["image"]}
            for (index, each), alpha in zip(inputs.items(), alphas, strict=True)
        }

    def _encode(self, result: Row, output: dict[str, Any]) -> None:
        """Set the mattes of a result."""
        made = self.pipe.postprocess(output, cutout=self.options.cutout)
        kind = "cutout" if self.options.cutout else "alpha"
        result["mattes"] = [encode_png(each[kind]) for each in ([made] if isinstance(made, dict) else made)]


def encode_png(image: Image.Image) -> bytes:
    """Return an image as PNG, with its color profile. Fast compression: mattes are mostly flat, and small anyway."""
    data = BytesIO()
    image.save(data, "PNG", compress_level=PNG_LEVEL)
    return data.getvalue()
