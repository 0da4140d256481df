"""What executors run: one piece of work of a stage, as a task or in a replica."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from shoal_ml.batch.blocks import Block, Schema, compacted, concat, nbytes_of, num_rows, schema_of, slice_rows
from shoal_ml.batch.handles import UNKNOWN
from shoal_ml.batch.sources.source import Piece
from shoal_ml.batch.transforms import Chain, Transform
from shoal_ml.batch.work_info import WorkInfo, set_current_work

#: Bytes of results that are sent on together, where work gives many.
TARGET_NBYTES = 16 << 20

#: Rows of each input that are meant.
Parts = Sequence[tuple[int, int]]


class Made(NamedTuple):
    """What is told of a block that was made; the block itself stays where it is."""

    num_rows: int
    nbytes: int
    schema: Schema
    #: For each transform of the stage: rows given and seconds taken since the last block.
    notes: list[tuple[int, float]]
    seconds: float
    #: What its transforms have to tell besides, such as rows that failed.
    remarks: tuple[Any, ...] = ()


class StageTask:
    """A stage of tasks: called once for each piece of work."""

    def __init__(self, transforms: Sequence[Transform], gathers: bool) -> None:
        self._transforms = tuple(transforms)
        self._gathers = gathers

    def __call__(self, work: WorkInfo, parts: Parts, *values: Any) -> Iterator[Any]:
        set_current_work(work)
        return do_work(Chain(self._transforms), parts, values, self._gathers)


class Replica:
    """One replica of a pool: an actor that opens the stage's transforms once."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._chain = Chain(())
        self._gathers = True

    def ready(self, transforms: Sequence[Transform], gathers: bool) -> None:
        """Open the transforms; what that raises is raised as it is. The first call of each run."""
        _limit_threads(self._num_threads)
        self._gathers = gathers
        self._chain = Chain(transforms)
        _limit_threads(self._num_threads)  # what has been imported meanwhile

    def run(self, skip: int, work: WorkInfo, parts: Parts, *values: Any) -> Iterator[Any]:
        """Do one piece of work; the first *skip* blocks were taken from an earlier attempt."""
        set_current_work(work)
        for position, value in enumerate(do_work(self._chain, parts, values, self._gathers)):
            if position >= 2 * skip:
                yield value


def _limit_threads(num_threads: int) -> None:
    """Have torch use as many threads as the replica has CPUs: replicas that use all of them get in each other's way."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(num_threads)


def do_work(chain: Chain, parts: Parts, values: Sequence[Any], gathers: bool) -> Iterator[Any]:
    """Give the blocks that come of one piece of work, at least one, each followed by what is told of it.

    Large results leave while the rest is being made; small ones are joined.
    """
    begin = time.perf_counter()
    given = False
    for blocks in _in_good_sizes(chain.run(_blocks(parts, values, gathers))):
        block = compacted(concat(blocks))
        yield block
        yield _made(block, chain, begin)
        begin, given = time.perf_counter(), True
    if not given:
        yield {}
        yield _made({}, chain, begin)


def _blocks(parts: Parts, values: Sequence[Any], gathers: bool) -> Iterable[Block]:
    blocks = _read(parts, values)
    return [concat(list(blocks))] if gathers and len(values) > 1 else blocks


def _read(parts: Parts, values: Sequence[Any]) -> Iterator[Block]:
    for (start, stop), value in zip(parts, values, strict=True):
        if isinstance(value, Piece):
            yield from value.read()
        else:
            yield value if stop == UNKNOWN else slice_rows(value, start, stop)


def _in_good_sizes(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    gathered: list[Block] = []
    nbytes = 0
    for block in blocks:
        mine = nbytes_of(block)
        if gathered and nbytes + mine > TARGET_NBYTES:
            yield gathered
            gathered, nbytes = [], 0
        gathered.append(block)
        nbytes += mine
    if gathered:
        yield gathered


def _made(block: Block, chain: Chain, begin: float) -> Made:
    seconds = time.perf_counter() - begin
    notes, remarks = chain.take_notes(), chain.take_remarks()
    return Made(num_rows(block), nbytes_of(block), schema_of(block), notes, seconds, remarks)


__all__ = ["Made", "Replica", "StageTask"]
