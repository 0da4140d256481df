"""The door between a driver's threads and its event loop, which runs on thread ``shoal-io``.

The kernel's main thread never runs our loop, so a notebook's own ``asyncio`` is left alone, and the loop goes on
whatever the main thread does. Coroutines go in through :meth:`Portal.call`; events that need no answer through the
owner's inbox.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """An event loop on a thread of its own, from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; returns when its loop runs."""
        running = threading.Event()

        def run() -> None:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                self._loop.call_soon(running.set)
                self._loop.run_forever()

        self._thread = threading.Thread(target=run, name="shoal-io", daemon=True)
        self._thread.start()
        running.wait()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None) -> T:
        """Run *coroutine* on the loop and return its result; called from any other thread.

        Raises
        ------
        TimeoutError
            It took longer than *timeout* seconds, and was cancelled.
        """
        assert self._loop is not None and threading.current_thread() is not self._thread
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except BaseException:
            # Interrupted or too late: nothing of it goes on behind the caller's back.
            future.cancel()
            raise

    def stop(self, timeout: float = 5.0) -> None:
        """Stop the loop and wait for the thread."""
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout)
