"""A log that is followed on a thread of its own."""

from __future__ import annotations

import threading
from typing import Any

import shoal

TIMEOUT = 30.0


class Follower:
    """Follows a log on a thread of its own."""

    def __init__(self, target: Any, **options: Any) -> None:
        self.lines: list[Any] = []
        self.error: BaseException | None = None
        self._iterator = shoal.logs(target, follow=True, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for line in self._iterator:
                self.lines.append(line)
        except BaseException as error:
            self.error = error

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]

    def join(self) -> None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive() and self.error is None, (self.error, self.texts[-5:])
