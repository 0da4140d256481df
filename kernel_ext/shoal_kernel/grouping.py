"""Errors of several parts of a cell, as one.

Parts that fail alike are told once. If all have failed alike the error is of the user's own type, so that ``except
ValueError`` works; else it is a group with one error for each way to fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from shoal.runtime.captured_locals import is_own
from shoal_kernel.tracebacks import linked, steps

_NUMBER = re.compile(r"(.* )(\d+)")
#: Labels that are written out; of more, the number is said.
MAX_LABELS = 12


class CellErrors(ExceptionGroup[Exception]):
    """Parts of a cell failed in different ways: one member for each way. ``except*`` takes it apart."""

    #: Makes the lines that a notebook shows of one error; set where a notebook shows it.
    render: Callable[[BaseException], list[str]] | None = None

    def derive(self, excs: Sequence[Exception]) -> CellErrors:  # type: ignore[override]
        made = CellErrors(self.message, excs)
        made.render = self.render
        return made

    def _render_traceback_(self) -> list[str]:
        """Each member as it would be shown alone, the commonest first."""
        lines = [f"{type(self).__name__}: {self.message}"]
        for number, member in enumerate(self.exceptions, 1):
            lines += ["", f"({number} of {len(self.exceptions)})"]
            lines += _plain(member) if self.render is None else self.render(member)
        return lines


def _plain(error: BaseException) -> list[str]:
    import traceback

    return "".join(traceback.format_exception(error)).rstrip().splitlines()


class _Alike(NamedTuple):
    labels: list[str]
    error: BaseException


def group_errors(failures: Sequence[tuple[str, BaseException]], num_ok: int) -> BaseException:
    """Return one error for all parts of a cell that failed.

    Parameters
    ----------
    failures
        Label and error of each; at least one.
    num_ok
        How many parts have not failed.

    Returns
    -------
    error
        Where all are alike (type, message and the user's frames), the first of them, with a note that says which
        parts it stands for. Else a :class:`CellErrors` of the first of each kind; a plain ``BaseExceptionGroup`` if one
        of them is no ``Exception``.
    """
    total = len(failures) + num_ok
    kinds: dict[Any, _Alike] = {}
    for label, error in failures:
        kinds.setdefault(_signature(error), _Alike([], error)).labels.append(label)
    found = sorted(kinds.values(), key=lambda alike: -len(alike.labels))
    rest = "" if not num_ok else f"; {num_ok} succeeded" if num_ok > 1 else "; 1 succeeded"
    if total > 1:
        for alike in found:
            _note(alike.error, f"{len(alike.labels)} of {total}: {join_labels(alike.labels)}{rest}")
    if len(found) == 1:
        return found[0].error
    message = f"{len(failures)} of {total} parts failed, in {len(found)} ways{rest}"
    members = [alike.error for alike in found]
    exceptions = [member for member in members if isinstance(member, Exception)]
    return CellErrors(message, exceptions) if len(exceptions) == len(members) else BaseExceptionGroup(message, members)


def _signature(error: BaseException) -> Any:
    """Return what two errors have in common if a user would call them the same."""
    parts = []
    for link in linked(error):
        where = [
            (step.tb_frame.f_code.co_filename, step.tb_frame.f_code.co_name, step.tb_lineno)
            for step in steps(link.__traceback__)
            if not is_own(step.tb_frame)
        ]
        kind = type(link)
        # A class that came by value is another object each time.
        parts.append((kind.__module__, kind.__qualname__, _message(link), tuple(where)))
    return tuple(parts)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # boundary: `__str__` is user code
        return "(no message: its `__str__` raised an error)"


def _note(error: BaseException, note: str) -> None:
    try:
        error.add_note(note)
    except Exception:  # boundary: an error may refuse attributes, or have notes that are no list
        return


def join_labels(labels: Sequence[str]) -> str:
    """Say several labels in short: ``rank 0-3, 5-7`` for ``rank 0``, ``rank 1`` …; ``lr=0.1, lr=0.01``."""
    prefixes = {match[1] for label in labels if (match := _NUMBER.fullmatch(label))}
    if len(prefixes) == 1 and all(_NUMBER.fullmatch(label) for label in labels) and len(labels) > 1:
        (prefix,) = prefixes
        return prefix + _ranges(sorted(int(label.removeprefix(prefix)) for label in labels))
    if len(labels) > MAX_LABELS:
        return f"{', '.join(labels[:MAX_LABELS])} and {len(labels) - MAX_LABELS} more"
    return ", ".join(labels)


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
