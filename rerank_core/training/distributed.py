"""One training in several processes, one per GPU, as torchrun or accelerate start them.

The batch of the configuration is split between them, so that a step learns from the same examples whatever their
number. Only the main process, that of rank 0, writes; the others wait while it prepares, measures or saves.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import distributed

from rerank_core.config.training import TrainingConfig, TrainingStage
from rerank_core.errors import TrainingError

_TIMEOUT = timedelta(days=2)
"""The main process may prepare data for hours. If a process dies, the launcher stops the others, not this timeout."""


class Processes(NamedTuple):
    """This process among those of the training."""

    rank: int = 0
    size: int = 1
    group: Any = None  # for waiting: gloo, since NCCL has timeouts of its own

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def broadcast(self, value: bool) -> bool:
        """The main process's value, in every process."""
        if self.size == 1:
            return value
        flag = torch.tensor([int(value)])
        distributed.broadcast(flag, src=0, group=self.group)
        return bool(flag.item())

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            distributed.barrier(group=self.group)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the body in the main process first, then in the others, which exit silently if it failed there."""
        if not self.main and not self.broadcast(True):
            raise SystemExit(1)
        done = False
        try:
            yield
            done = True
        finally:
            if self.main:
                self.broadcast(done)


ALONE = Processes()


@contextlib.contextmanager
def join() -> Iterator[Processes]:
    """Join the processes of the launcher, by its environment variables; without a launcher, one process alone.

    Raises:
        TrainingError: the processes run on several machines, or outnumber the GPUs.
    """
    count, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if count == 1:
        yield ALONE
        return
    if here != count:
        raise TrainingError(
            f"{count} processes were started, {here} of them on this machine; start all on one machine"
        )
    gpus = torch.cuda.device_count()
    if 0 < gpus < count:
        raise TrainingError(f"{count} processes were started for {gpus} GPUs; start one process per GPU")
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpus else "gloo", timeout=_TIMEOUT)
    yield Processes(distributed.get_rank(), count, distributed.new_group(backend="gloo", timeout=_TIMEOUT))
    distributed.destroy_process_group()  # not after an error: it would wait for the other processes


def check_batches(config: TrainingConfig, processes: Processes) -> None:
    """Refuse a batch that cannot be split.

    Raises:
        TrainingError: naming the stage.
    """
    for stage in config.stages:
        split_batch(stage, processes)


def split_batch(stage: TrainingStage, processes: Processes) -> tuple[int, int]:
    """(batch, accumulation) of each process.

    Accumulation is split first: the batches stay those of one process, and so do losses that compare within a batch.

    Raises:
        TrainingError: neither can be split evenly.
    """
    count = processes.size
    shared = math.gcd(stage.accumulation, count)
    if stage.batch % (count // shared):
        raise TrainingError(
            f"stage {stage.name!r}: batch = {stage.batch} x accumulation = {stage.accumulation} cannot be split "
            f"evenly between {count} processes; make accumulation or batch a multiple of {count}"
        )
    return stage.batch // (count // shared), stage.accumulation // shared


class Batches:
    """A batch sampler that deals batches to the processes in turn, the same number to each in every step.

    An incomplete last step is split evenly. If it has fewer examples than there are processes, its first examples are
    used twice: a process without a batch would make the others wait forever.
    """

    batch_size, drop_last = None, False  # attributes that accelerate reads; None: batches differ in size

    def __init__(self, rows: int, *, batch: int, accumulation: int, count: int) -> None:
        self._rows, self._batch, self._count = rows, batch, count
        self._step = batch * accumulation * count

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self._rows, self._step):
            step = list(range(start, min(start + self._step, self._rows)))
            pieces = self._pieces(len(step))
            step = [step[n % len(step)] for n in range(max(len(step), pieces))]
            edges = [len(step) * n // pieces for n in range(pieces + 1)]
            yield from (step[low:high] for low, high in itertools.pairwise(edges))

    def __len__(self) -> int:
        whole, rest = divmod(self._rows, self._step)
        return whole * (self._step // self._batch) + self._pieces(rest)

    def _pieces(self, examples: int) -> int:
        """Number of batches of a step with that many examples."""
        return math.ceil(examples / (self._batch * self._count)) * self._count
