"""What an executor answers when its agent asks: where its threads are, and where their time goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal.model import messages as m
from shoal.runtime.sampler import sample
from shoal.runtime.stacks import describe_coroutines, describe_threads

if TYPE_CHECKING:
    from shoal.runtime.calling import Item
    from shoal.runtime.owner import Owner
    from shoal.transport.stream import Stream


class ExecutorAnswers:
    """See the module's description. Made and used on the executor's event loop."""

    def __init__(self, owner: Owner, running: Callable[[], list[Item]]) -> None:
        """``running()`` returns what has begun and not ended."""
        self._owner = owner
        self._running = running
        self._own_thread = threading.get_ident()
        self._is_profiled = False

    def serve(self, stream: Stream, question: m.Ask) -> None:
        """Answer a question that the agent has passed on."""
        match question.topic, question.details:
            case "stack", ():
                stream.send_nowait(m.Answer(question.request, self._stacks()))
            case "profile", (float() | int() as seconds, float() | int() as rate):
                self._profile(stream, question.request, seconds, rate)
            case _:
                failed = f"an executor knows nothing of `{question.topic}` with {len(question.details)} details"
                stream.send_nowait(m.Answer(question.request, None, failed))

    def _stacks(self) -> str:
        main = threading.main_thread().ident or 0
        works: dict[int, str] = {}
        coroutines: list[tuple[str, asyncio.Task[Any]]] = []
        for item in self._running():
            cell = f" of cell {item.recipe.cell.partition('#')[0]}" if item.recipe.cell else ""
            work = f"`{item.recipe.name}` ({item.run.task_id}){cell}"
            if isinstance(item.runner, asyncio.Task):
                coroutines.append((work, item.runner))
                works[main] = "the actor's event loop"
            else:
                works[item.runner if item.runner is not None else main] = work
        asleep = {
            thread.ident: "waits for work"
            for thread in threading.enumerate()
            if thread.ident is not None
            and thread.ident not in works
            and (thread.ident == main or thread.name.startswith("shoal-"))
        }
        threads = describe_threads(works, asleep, (self._own_thread,))
        return "\n\n".join(filter(None, (threads, describe_coroutines(coroutines))))

    def _profile(self, stream: Stream, request: int, seconds: float, rate: float) -> None:
        if self._is_profiled:
            stream.send_nowait(m.Answer(request, None, "it is being profiled already: ask again when that has ended"))
            return
        self._is_profiled = True

        def look() -> None:
            try:
                answer = m.Answer(request, tuple(sample(seconds, rate, (self._own_thread,))))
            except Exception as error:  # boundary: whoever asked is told
                answer = m.Answer(request, None, f"{type(error).__name__}: {error}")
            self._owner.inbox.put(self._profiled, (stream, answer))

        threading.Thread(target=look, name="shoal-profile", daemon=True).start()

    def _profiled(self, answered: tuple[Stream, m.Answer]) -> None:
        self._is_profiled = False
        stream, answer = answered
        stream.send_nowait(answer)
