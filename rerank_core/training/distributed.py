"""One training in several processes, a GPU each, as torchrun or accelerate start them.

The batch of the configuration is split between them, so that a step learns from the same examples whatever their
number. The first process alone writes; the others wait for it where it prepares, measures or saves.
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

_PATIENCE = timedelta(days=2)
"""Preparing data and measuring take their time; the launcher ends all processes when one dies, not this."""


class Processes(NamedTuple):
    """This process among those of the training."""

    rank: int = 0
    size: int = 1
    group: Any = None  # for waiting: on the CPU, where nothing gives up early

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def agree(self, value: bool) -> bool:
        """What the main process says."""
        if self.size == 1:
            return value
        told = torch.tensor([int(value)])
        distributed.broadcast(told, src=0, group=self.group)
        return bool(told.item())

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            distributed.barrier(group=self.group)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the body before the others, which end without a word if it fails there."""
        if not self.main and not self.agree(True):
            raise SystemExit(1)
        done = False
        try:
            yield
            done = True
        finally:
            if self.main:
                self.agree(done)


ALONE = Processes()


@contextlib.contextmanager
def join() -> Iterator[Processes]:
    """The processes that this one was started with; itself alone where no launcher says otherwise.

    Raises:
        TrainingError: they are on several machines, or more than there are GPUs.
    """
    count, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if count == 1:
        yield ALONE
        return
    if here != count:
        raise TrainingError(f"{count} processes, {here} of them here; start all of them on one machine")
    gpus = torch.cuda.device_count()
    if 0 < gpus < count:
        raise TrainingError(f"{count} processes, but {gpus} GPUs; start one process a GPU")
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpus else "gloo", timeout=_PATIENCE)
    yield Processes(distributed.get_rank(), count, distributed.new_group(backend="gloo", timeout=_PATIENCE))
    distributed.destroy_process_group()  # not after an error: the others may be anywhere


def check(config: TrainingConfig, processes: Processes) -> None:
    """Refuse a batch that cannot be split.

    Raises:
        TrainingError: naming the stage.
    """
    for stage in config.stages:
        split(stage, processes)


def split(stage: TrainingStage, processes: Processes) -> tuple[int, int]:
    """(batch, accumulation) of each process.

    Accumulation is split first: the batches stay those of one process, and so do losses that compare within a batch.

    Raises:
        TrainingError: neither can be split.
    """
    count = processes.size
    shared = math.gcd(stage.accumulation, count)
    if stage.batch % (count // shared):
        raise TrainingError(
            f"stage {stage.name!r}: batch = {stage.batch} x accumulation = {stage.accumulation} cannot be split "
            f"between {count} processes; make accumulation, or else batch, a multiple of {count}"
        )
    return stage.batch // (count // shared), stage.accumulation // shared


class Batches:
    """Places of a list of examples as batches, dealt to the processes in turn; as many for each in every step.

    A last step that is not full is split evenly. Where it has fewer examples than processes its first ones count twice:
    a process without any would keep the others waiting for ever.
    """

    batch_size, drop_last = None, False  # accelerate asks for them; None: batches differ in size

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
        """Batches of a step of so many examples."""
        return math.ceil(examples / (self._batch * self._count)) * self._count
