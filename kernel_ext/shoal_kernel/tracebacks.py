"""Tracebacks as a notebook shows them: the user's frames, without those that led into them and without ours.

Our frames say nothing to a user, unless the error is a bug of ours: then all are shown. ``%config Remote.show_internals
= True`` shows them always.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import TracebackType

from shoal.errors import ShoalError
from shoal.runtime.captured_locals import is_library, is_own
from shoal.runtime.frames import has_travelled

_show_internals = False


def show_internals(on: bool) -> None:
    """Say whether frames of shoal itself are shown."""
    global _show_internals
    _show_internals = on


def trim(traceback: TracebackType | None, filename: str) -> TracebackType | None:
    """Cut what comes before the first frame of *filename*; None if there is no such frame."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename != filename:
        traceback = traceback.tb_next
    return traceback


def hide_internals(error: BaseException) -> None:
    """Cut our frames out of the tracebacks of *error*, of what it was raised from, and of the members of a group."""
    if not _show_internals:
        for link in linked(error):
            link.__traceback__ = _without_internals(link, isinstance(error, ShoalError))


def linked(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, what it was raised from, and the members of groups, each once."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        todo += [link.__cause__, link.__context__]
        todo += link.exceptions if isinstance(link, BaseExceptionGroup) else ()


def steps(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """Yield the links of a traceback, outermost first."""
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def chain(links: list[TracebackType]) -> TracebackType | None:
    """Make a traceback of these links of others."""
    following: TracebackType | None = None
    for link in reversed(links):
        following = TracebackType(following, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return following


def _without_internals(error: BaseException, meant: bool) -> TracebackType | None:
    """Return the traceback without our frames, unless the error was not *meant* and is a bug of ours."""
    links = list(steps(error.__traceback__))
    own = [number for number, link in enumerate(links) if is_own(link.tb_frame)]
    if not own or (not meant and _is_bug_of_ours(error, links, own[-1])):
        return error.__traceback__
    if not any(_is_users(link) for link in links[own[-1] :]):
        links = links[: own[-1]]  # what we called is no more the user's than we are
    return chain([link for link in links if not is_own(link.tb_frame)])


def _is_users(link: TracebackType) -> bool:
    frame = link.tb_frame
    return not is_own(frame) and (has_travelled(frame) or not is_library(frame))


def _is_bug_of_ours(error: BaseException, links: list[TracebackType], last_own: int) -> bool:
    """Whether *error* was not meant to be raised where our innermost frame is."""
    if isinstance(error, KeyboardInterrupt) or any(map(_is_users, links[last_own:])):
        return False
    innermost = links[-1]
    return innermost is not links[last_own] or isinstance(error, AssertionError) or not _raises(innermost)


def _raises(link: TracebackType) -> bool:
    """Whether a frame ended with a ``raise``: input that it refuses, and no accident."""
    code = link.tb_frame.f_code.co_code
    return 0 <= link.tb_lasti < len(code) and dis.opname[code[link.tb_lasti]] == "RAISE_VARARGS"
