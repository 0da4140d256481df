"""py-spy, where it is installed: stacks and profiles of a process that cannot, or had better not, take part."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from shoal.observe.profiles import Samples, from_collapsed, pack_stacks
from shoal.runtime.environment import node_settings

#: Seconds that it may take beyond those that it looks.
GRACE = 5.0


class NotPossibleError(Exception):
    """py-spy is not there, or may not look into the process; the message says which."""


def find() -> str:
    """Return where py-spy is; "" if it is not installed, or not wanted (``SHOAL_PY_SPY=0``)."""
    if not node_settings().py_spy:
        return ""
    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy") or ""


async def dump(pid: int, timeout: float = GRACE) -> str:
    """Return the stacks of a process's Python threads. The process is not paused.

    Raises
    ------
    NotPossibleError
        See there.
    """
    text = await _run(timeout, "dump", "--pid", str(pid), "--nonblocking", "--full-filenames")
    if "Thread" not in text:
        raise NotPossibleError("py-spy has seen no Python thread")
    return text


async def record(pid: int, seconds: float, rate: float, directory: Path) -> Samples:
    """Profile a process for some seconds, which are rounded up to whole ones. The process is not paused.

    What is seen goes through a file in *directory*.

    Raises
    ------
    NotPossibleError
        See there.
    """
    duration, hertz = max(1, int(-(-seconds // 1))), max(1, round(rate))
    descriptor, path = tempfile.mkstemp(prefix="profile-", dir=directory)
    os.close(descriptor)
    try:
        await _run(
            duration + GRACE, "record", "--pid", str(pid), "--nonblocking", "--format", "raw", "--full-filenames",
            "--duration", str(duration), "--rate", str(hertz), "--output", path,
        )  # fmt: skip
        counts = from_collapsed(await asyncio.to_thread(Path(path).read_text, errors="replace"))
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    frames, stacks = pack_stacks(counts)
    return Samples(float(duration), float(hertz), duration * hertz, 0, frames, stacks, "py-spy")


async def _run(timeout: float, *arguments: str) -> str:
    program = find()
    if not program:
        raise NotPossibleError("py-spy is not installed there (`pip install shoal[profile]`), or switched off")
    process = await asyncio.create_subprocess_exec(
        program, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, said = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        raise NotPossibleError(f"py-spy took more than {timeout:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = said.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise NotPossibleError(f"py-spy may not look into it: {words[0]}")
    return out.decode(errors="replace")
