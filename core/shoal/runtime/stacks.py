"""What the threads of this process are doing, as text: the user's own frames are marked."""

from __future__ import annotations

import asyncio
import functools
import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

#: Frames of one stack at most: the innermost.
MAX_FRAMES = 100
#: Coroutines described at most.
MAX_COROUTINES = 50
#: Where idle threads of the standard library's pools are.
_POOL = os.path.join("concurrent", "futures", "thread.py")
_OURS = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_ours(filename: str) -> bool:
    """Whether a file is shoal's."""
    return filename.startswith(_OURS)


@functools.lru_cache(4096)
def is_users(filename: str) -> bool:
    """Whether a file is neither shoal's nor a library's: a notebook's cell, a script, a module beside it."""
    return not (is_ours(filename) or filename.startswith(_LIBRARIES) or filename.startswith("<frozen "))


def frames_of(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of a stack, the outermost first, without those of shoal around the user's."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    frames.reverse()
    return frames[around(frames, lambda one: one.f_code.co_filename) :][-MAX_FRAMES:]


def around(frames: Sequence[Any], filename_of: Callable[[Any], str]) -> int:
    """Return how many frames, from the outermost, lead to what shoal was asked to run."""
    first = next((index for index, one in enumerate(frames) if is_users(filename_of(one))), None)
    if first is not None:
        return first
    last = max((index for index, one in enumerate(frames) if is_ours(filename_of(one))), default=-1)
    return last + 1 if last + 1 < len(frames) else 0


def describe_threads(works: Mapping[int, str], asleep: Mapping[int, str], own: Sequence[int] = ()) -> str:
    """Describe every thread of this process.

    Parameters
    ----------
    works
        What threads run, by their number, in words.
    asleep
        What threads that have nothing to run are for.
    own
        Threads of shoal itself: in one line each.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    current = threading.get_ident()
    parts, rest = [], []
    for ident, frame in sorted(sys._current_frames().items(), key=lambda row: (row[0] not in works, row[0])):
        name = names.get(ident, f"{ident:#x}")
        if ident == current or ident in own:
            rest.append(f"thread {name}: shoal's own")
        elif ident in asleep:
            rest.append(f"thread {name}: {asleep[ident]}")
        elif frame.f_code.co_name == "_worker" and frame.f_code.co_filename.endswith(_POOL):
            rest.append(f"thread {name}: waits for work, in a thread pool")
        else:
            work = f" runs {works[ident]}" if ident in works else ""
            lines = [_frame_lines(one.f_code, one.f_lineno) for one in frames_of(frame)]
            parts.append("\n".join([f"thread {name}{work}", *lines]))
        del frame
    return "\n\n".join([*parts, "\n".join(rest)]).rstrip()


def describe_coroutines(tasks: Sequence[tuple[str, asyncio.Task[Any]]]) -> str:
    """Describe what coroutines wait for: each with what it runs, in words."""
    parts = []
    for work, task in tasks[:MAX_COROUTINES]:
        lines = [f"coroutine runs {work}"]
        coroutine: Any = task.get_coro()
        frames: list[FrameType] = []
        while coroutine is not None and len(frames) < MAX_FRAMES:
            frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
            if frame is None:
                break
            frames.append(frame)
            coroutine = getattr(coroutine, "cr_await", None)
        skip = around(frames, lambda one: one.f_code.co_filename)
        lines += [_frame_lines(one.f_code, one.f_lineno) for one in frames[skip:]]
        parts.append("\n".join(lines))
    if len(tasks) > MAX_COROUTINES:
        parts.append(f"… and {len(tasks) - MAX_COROUTINES} more coroutines")
    return "\n\n".join(parts)


def _frame_lines(code: CodeType, line: int | None) -> str:
    mark = ">" if is_users(code.co_filename) else " "
    text = linecache.getline(code.co_filename, line or 0).strip()
    head = f'{mark} File "{code.co_filename}", line {line}, in {code.co_qualname}'
    return f"{head}\n{mark}     {text}" if text else head


def mark_users(text: str) -> str:
    """Mark the user's frames in stacks that another program has written, one frame a line with its file's name."""
    return "\n".join(_marked(line) for line in text.splitlines())


def _marked(line: str) -> str:
    stripped = line.strip()
    _, quote, rest = stripped.partition('File "')  # the fault handler: `File "x.py", line 3 in f`
    filename = rest.partition('"')[0] if quote else stripped.rpartition(" (")[2].rpartition(":")[0]  # `f (x.py:3)`
    if not filename or not (quote or stripped.endswith(")")):
        return line
    return f"{'>' if is_users(filename) else ' '} {stripped}"
