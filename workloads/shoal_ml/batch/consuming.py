"""Results as they come, in this process: blocks, batches of a wanted size, rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import shoal
from shoal_ml.batch.batch_formats import to_batch
from shoal_ml.batch.blocks import Block, concat, num_rows, slice_rows
from shoal_ml.batch.execution import Run, RunOptions
from shoal_ml.batch.handles import UNKNOWN, Handle
from shoal_ml.batch.plan import Plan


def load(handle: Handle) -> Block:
    """Return the rows that a handle means; arrays share memory with the store of this node."""
    block: Block = shoal.get(handle.value)
    return block if handle.stop == UNKNOWN else slice_rows(block, handle.start, handle.stop)


def iterate_handles(plan: Plan, options: RunOptions) -> Iterator[Handle]:
    """Run a plan and give its blocks' handles. Leaving the iterator cancels the run."""
    with Run(plan, options) as run:
        yield from run


def iterate_blocks(plan: Plan, options: RunOptions) -> Iterator[Block]:
    """Run a plan and give its blocks, those without rows too."""
    for handle in iterate_handles(plan, options):
        yield load(handle)


def in_batches(blocks: Iterable[Block], batch_size: int | None, *, drop_last: bool = False) -> Iterator[Block]:
    """Cut and join blocks, so that each but the last has *batch_size* rows; None leaves them as they are."""
    gathered: deque[Block] = deque()
    rows = 0
    for block in blocks:
        if batch_size is None:
            if num_rows(block):
                yield block
            continue
        gathered.append(block)
        rows += num_rows(block)
        while rows >= batch_size:
            yield concat(_take(gathered, batch_size))
            rows -= batch_size
    if rows and not drop_last:
        yield concat(list(gathered))


def _take(blocks: deque[Block], rows: int) -> list[Block]:
    """Take the first *rows* rows."""
    taken: list[Block] = []
    while rows:
        block = blocks.popleft()
        mine = num_rows(block)
        if mine > rows:
            blocks.appendleft(slice_rows(block, rows, mine))
            block, mine = slice_rows(block, 0, rows), rows
        taken.append(block)
        rows -= mine
    return taken


def iterate_batches(
    plan: Plan, options: RunOptions, batch_size: int | None, batch_format: str, drop_last: bool
) -> Iterator[Any]:
    """Run a plan and give its rows in batches."""
    blocks = iterate_blocks(plan, options)
    try:
        for block in in_batches(blocks, batch_size, drop_last=drop_last):
            yield to_batch(block, batch_format)
    finally:
        blocks.close()  # type: ignore[attr-defined]


__all__ = ["in_batches", "iterate_batches", "iterate_blocks", "iterate_handles", "load"]
