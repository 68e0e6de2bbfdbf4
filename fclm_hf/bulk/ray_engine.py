"""Ray Data as the engine: tasks read, a pool of actors mattes, and this process writes what comes back.

Retries of lost tasks and actors, progress bars and back-pressure are Ray's. A batch of rows is one row of Ray's data
set, so that batches are those of a single process, and so are their mattes.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .matting import PhotoMatter
from .options import BulkOptions
from .reading import BatchReader, Part, RowBatch


READER_CPUS = 0.25  # a task that reads waits for disks and networks most of the time
READERS = 4
CALLS_PER_ACTOR = 2  # one loads or encodes while the other uses the model


def matte_with_ray(options: BulkOptions, reader: BatchReader) -> Iterator[RowBatch]:
    """Yield the matted batches of a source in any order.

    Args:
        options: Options of the run.
        reader: Reader of the source, which the nodes of the cluster must be able to reach.

    Raises:
        ImportError: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('engine "ray" requires Ray: pip install "fclm-hf[ray]".') from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=options.address, log_to_driver=False)
    try:
        yield from _run(options, reader)
    finally:
        if started:
            ray.shutdown()


def _run(options: BulkOptions, reader: BatchReader) -> Iterator[RowBatch]:
    """Run the pipeline of Ray Data."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    gpus = ray.cluster_resources().get("GPU", 0)
    actors = options.actors or int(gpus) or sum(node["Alive"] for node in ray.nodes())
    options = replace(options, actors=actors, threads=options.threads or 1)
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # each batch is a block of its own, which any actor may take
    groups = [{"group": group} for group in reader.list_open_groups()]
    with DataContext.current(context):
        batches = (
            ray.data.from_items(groups, override_num_blocks=len(groups))
            .map_batches(
                read_group,
                fn_args=(reader,),
                batch_size=1,
                compute=TaskPoolStrategy(size=READERS),
                num_cpus=READER_CPUS,
            )
            .map_batches(
                RayMatter,
                fn_constructor_args=(options, reader.source.base),
                batch_size=1,
                compute=ActorPoolStrategy(
                    min_size=1,
                    max_size=actors,
                    initial_size=actors,
                    max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
                    enable_true_multi_threading=True,
                ),
                num_cpus=options.threads,
                num_gpus=1 if gpus else 0,
            )
        )
        for row in batches.iter_rows():
            yield row["batch"]


def read_group(groups: dict[str, np.ndarray], reader: BatchReader) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of a group of input files, each as one row.

    Args:
        groups: The number of the group, in a batch of one row.
        reader: The reader.
    """
    for group in groups["group"]:
        for batch in reader.read(Part(int(group))):
            yield pack(batch)


class RayMatter:
    """Actor that mattes batches.

    Args:
        options: Options of the run.
        base: Folder or URL that relative paths in cells start from.
    """

    def __init__(self, options: BulkOptions, base: str) -> None:
        self.matter = PhotoMatter(options, base)

    def __call__(self, batches: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Matte a batch.

        Args:
            batches: The batch, in a batch of one row.
        """
        (batch,) = batches["batch"]
        return pack(self.matter(batch))


def pack(batch: RowBatch) -> dict[str, Any]:
    """Return a batch as one row of Ray's data set."""
    return {"batch": np.array([batch], dtype=object)}
