"""The text of one task as a terminal would show it, with bounds.

A :class:`Screen` understands what progress bars do: a return that overwrites the line, and the cursor that moves up to
a bar above. A :class:`Lane` is the screen of one task up to a cap; of what follows it keeps the last lines and counts
the others. Nothing here knows of notebooks, threads or clocks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

#: Lines that are shown of what lies beyond the cap, and their characters.
LAST_LINES, LAST_CHARS = 100, 16 * 1024
#: How far above its end a screen can be written to.
REACH = 64
#: Characters of one line beyond the cap; of longer ones the end is kept.
MAX_LINE = 8 * 1024
_CONTROL = re.compile("[\r\b\x1b]")
_MOVES = re.compile("\x1b\\[(\\d*)([AB])|(\b+)|\r")


@dataclasses.dataclass(slots=True)
class Row:
    """A line, and how often it came in a row. ``kind`` is stdout, stderr, note or display."""

    kind: str
    text: str
    count: int = 1
    ended: bool = False


class Screen:
    """Lines of text that can be written to near their end, at one place for each kind of text."""

    def __init__(self, fold: bool = True) -> None:
        self.rows: list[Row] = []
        #: Lines that have ended, without those that fold into the one before, and the characters in them.
        self.num_lines = self.num_chars = 0
        self._fold = fold
        #: Where each kind goes on: a row and a column. A kind whose last text ended its line has none.
        self._cursors: dict[str, tuple[Row, int]] = {}

    def write(self, kind: str, text: str) -> None:
        for number, line in enumerate(text.replace("\r\n", "\n").split("\n")):
            if number:
                self._end_line(kind)
            if line:
                self._put(kind, line)

    def add(self, kind: str, text: str) -> None:
        """Append a line that is no text of the task's."""
        self.rows.append(Row(kind, text, ended=True))

    def drop_first(self) -> Row:
        """Remove the first row, wherever the cursors are."""
        row = self.rows.pop(0)
        self._cursors = {kind: cursor for kind, cursor in self._cursors.items() if cursor[0] is not row}
        return row

    def is_mid_line(self, kind: str) -> bool:
        """Whether text of that kind has begun a line, of usual length, and not ended it."""
        return kind in self._cursors and len(self._cursors[kind][0].text) < MAX_LINE

    def num_open_chars(self) -> int:
        return sum(len(row.text) for row, _ in self._cursors.values())

    def _put(self, kind: str, line: str) -> None:
        row, column = self._cursors.get(kind) or (self._new_row(kind), 0)
        if not _CONTROL.search(line):
            self._cursors[kind] = (row, _overwrite(row, column, line))
            return
        start = 0
        for move in _MOVES.finditer(line):
            column = _overwrite(row, column, line[start : move.start()])
            start = move.end()
            if move[2]:
                row = self._neighbour(row, int(move[1] or 1) * (-1 if move[2] == "A" else 1))
            else:
                column = max(0, column - len(move[3])) if move[3] else 0
        self._cursors[kind] = (row, _overwrite(row, column, line[start:]))

    def _new_row(self, kind: str) -> Row:
        row = Row(kind, "")
        self.rows.append(row)
        return row

    def _end_line(self, kind: str) -> None:
        row, _ = self._cursors.pop(kind) if kind in self._cursors else (self._new_row(kind), 0)
        below = self._neighbour(row, 1)
        if below is not row:
            self._cursors[kind] = (below, 0)
        if row.ended:  # a bar that has been drawn before
            return
        row.ended = True
        before = self.rows[-2] if len(self.rows) > 1 else None
        if self._fold and before is not None and row is self.rows[-1] and _same(before, row):
            before.count += 1
            self.rows.pop()
        else:
            self.num_lines += 1
            self.num_chars += len(row.text) + 1

    def _neighbour(self, row: Row, distance: int) -> Row:
        """Return the row of the same kind that many above (below) *row*, or the last there is on the way."""
        if distance > 0 and row is self.rows[-1]:
            return row
        near = [other for other in self.rows[-REACH:] if other.kind == row.kind]
        places = [place for place, other in enumerate(near) if other is row]
        if not places:
            return row
        return near[max(0, min(len(near) - 1, places[0] + distance))]


def _same(before: Row, row: Row) -> bool:
    return before.ended and before.kind == row.kind and before.text == row.text


def _overwrite(row: Row, column: int, text: str) -> int:
    """Write *text* at *column* as a terminal does, and return the column behind it."""
    if not text:
        return column
    if column == len(row.text):
        row.text += text
    elif "\x1b" in row.text or "\x1b" in text:  # colours take no column: counting would cut one in two
        row.text = text if column == 0 else row.text + text
        return len(row.text)
    else:
        row.text = f"{row.text[:column]:<{column}}{text}{row.text[column + len(text) :]}"
    return column + len(text)


class Budget:
    """How much text may still be kept, for all that share it."""

    def __init__(self, num_lines: int, num_chars: int) -> None:
        self.num_lines = num_lines
        self.num_chars = num_chars

    @property
    def spent(self) -> bool:
        return self.num_lines <= 0 or self.num_chars <= 0

    def split(self, text: str) -> tuple[str, str]:
        """Cut *text* where the budget is spent, if that is in it; by characters, at the end of the line there."""
        part, rest = split_after_lines(text, self.num_lines)
        if len(part) <= self.num_chars:
            return part, rest
        cut = part.find("\n", self.num_chars) + 1 or len(part)
        return part[:cut], part[cut:] + rest

    def spend(self, num_lines: int, num_chars: int) -> None:
        self.num_lines -= num_lines
        self.num_chars -= num_chars


class Tail:
    """The end of text beyond the cap: its last lines, and how many are before them."""

    def __init__(self, fold: bool) -> None:
        self._screen = Screen(fold)
        self.num_hidden = 0

    @property
    def rows(self) -> list[Row]:
        return self._screen.rows

    def write(self, kind: str, text: str) -> None:
        cut = _start_of_last_lines(text, LAST_LINES)
        if cut:
            skipped = text[:cut].count("\n")
            self.hide_shown()
            self.num_hidden += skipped
            text = text[cut:]
        self._screen.write(kind, text[-MAX_LINE * 2 :] if "\n" not in text else text)
        self._trim()

    def hide_shown(self) -> None:
        """Count what is shown as hidden: text is missing behind it."""
        while self.rows:
            self._hide_first()

    def _hide_first(self) -> int:
        """Hide a row and return its size. One that has not ended is counted when its end comes."""
        row = self._screen.drop_first()
        self.num_hidden += row.count if row.ended else 0
        return len(row.text)

    def _trim(self) -> None:
        rows = self.rows
        num_chars = 0
        for row in rows:
            if len(row.text) > MAX_LINE:
                row.text = "…" + row.text[-MAX_LINE // 2 :]
            num_chars += len(row.text)
        while len(rows) > LAST_LINES or (num_chars > LAST_CHARS and len(rows) > 1):
            num_chars -= self._hide_first()


def _start_of_last_lines(text: str, num_lines: int) -> int:
    """Return where the last *num_lines* lines of *text* begin."""
    place = len(text)
    for _ in range(num_lines + 1):
        place = text.rfind("\n", 0, place)
        if place < 0:
            return 0
    return place + 1


class Lane:
    """The text of one task. Lanes of one cell share a budget."""

    def __init__(self, name: str, budget: Budget, fold: bool = True) -> None:
        self.name = name
        self._budget = budget
        self._fold = fold
        self.screen = Screen(fold)
        self.tail: Tail | None = None

    @property
    def num_hidden(self) -> int:
        return self.tail.num_hidden if self.tail is not None else 0

    @property
    def num_lines(self) -> int:
        """Every line, also folded and hidden ones."""
        return sum(row.count for row in self.all_rows()) + self.num_hidden

    def all_rows(self) -> Iterator[Row]:
        yield from self.screen.rows
        if self.tail is not None:
            yield from self.tail.rows

    def write(self, kind: str, text: str) -> None:
        while text and not self._budget.spent:
            part, text = self._budget.split(text)
            self._write_counted(kind, part)
        if text and self.screen.is_mid_line(kind):
            part, text = split_after_lines(text, 1)
            self._write_counted(kind, part)
        if text:
            self.tail = self.tail or Tail(self._fold)
            self.tail.write(kind, text)

    def elide(self, num_lines: int, said: str) -> None:
        """Text is missing here, of so many lines; *said* is shown in its place."""
        if self._budget.spent and self.tail is None:
            self.tail = Tail(self._fold)
        if self.tail is None:
            self.screen.add("note", said)
        else:
            self.tail.hide_shown()
            self.tail.num_hidden += num_lines

    def hold_display(self, data: str) -> None:
        """Keep a display in its place between the lines."""
        self.screen.add("display", data)

    def _write_counted(self, kind: str, text: str) -> None:
        screen = self.screen
        lines, chars = screen.num_lines, screen.num_chars + screen.num_open_chars()
        screen.write(kind, text)
        self._budget.spend(screen.num_lines - lines, screen.num_chars + screen.num_open_chars() - chars)


def split_after_lines(text: str, num_lines: int) -> tuple[str, str]:
    """Cut *text* behind that many line ends."""
    if text.count("\n") < num_lines:
        return text, ""
    place = -1
    for _ in range(num_lines):
        place = text.find("\n", place + 1)
    return text[: place + 1], text[place + 1 :]
