"""Tab after ``%remote`` and ``%%remote``: options, subcommands, places, actors, background cells, remote variables.

Everything is read from the tables that the magic itself uses, and from what the cluster says. Nothing that the user
has written is evaluated. The code in a remote cell keeps IPython's own completion.

A completion has no field for a description; the one for its type is shown beside it by JupyterLab and by IPython's
terminal, so the description goes there.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

import shoal
from shoal.api.session import stay_in_background

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

T = TypeVar("T")

#: Seconds that the cluster may take to answer: somebody has pressed a key.
TIME_LIMIT = 0.15
#: Seconds for which an answer is good.
FRESH = 2.0
_CELL_MAGIC = re.compile(r"%%remote\s(?P<line>.*)")
#: With or without an assignment before it.
_LINE_MAGIC = re.compile(r"\s*(?:[^=%!?'\"#]+=\s*)?%remote\s(?P<line>.*)")
_WORD = re.compile(r""""[^"]*("|$)|'[^']*('|$)|\S+""")


class Described(Protocol):
    """What there is to know of a subcommand."""

    @property
    def help(self) -> str: ...
    @property
    def argument(self) -> str: ...
    @property
    def options(self) -> Mapping[str, bool]: ...


#: What could stand at the cursor, and what to say beside each.
Candidates = Iterable[tuple[str, str]]


class Completing:
    """The matcher, for one shell.

    Parameters
    ----------
    parser
        The magic's, which has its options.
    subcommands
        By name.
    ids
        Returns the ids of background cells.
    remote_names
        Returns the variables that an actor keeps; takes its name and a number of seconds.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        parser: argparse.ArgumentParser,
        subcommands: Mapping[str, Described],
        ids: Callable[[], Iterable[str]],
        remote_names: Callable[[str, float], Iterable[str]],
    ) -> None:
        self._shell: Any = shell  # IPython declares its completer for some kinds of shell only
        self._options = {
            option: action
            for action in parser._actions
            for option in action.option_strings
            if not isinstance(action, argparse._HelpAction)
        }
        self._subcommands = subcommands
        self._remote_names = remote_names
        self._ids = Answer(lambda: list(ids()))
        self._nodes = Answer(shoal.nodes)
        self._actors = Answer(_named_actors)
        self._names: dict[str, Answer[str]] = {}
        self._values: dict[str, Callable[[], Candidates]] = {"--on": self._places, "--actor": self._actors_known}
        # IPython hangs the matcher's priority and identifier on the function.
        self._matcher = context_matcher(identifier="shoal_kernel.Completing", priority=50)(
            lambda context: self.match(context)
        )

    def start(self) -> None:
        self._shell.Completer.custom_matchers.append(self._matcher)

    def stop(self) -> None:
        self._shell.Completer.custom_matchers.remove(self._matcher)

    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return the completions at the cursor; none if it is no place of ours."""
        try:
            return self._match(context)
        except Exception:  # boundary: IPython would print a traceback into the cell that somebody is writing
            return _result("", ())

    def _match(self, context: CompletionContext) -> SimpleMatcherResult:
        before = context.full_text.split("\n")[: context.cursor_line]
        magic = next((_CELL_MAGIC.match(line) for line in before if line.strip()), None)
        if magic is not None:
            return self._in_body(magic["line"], context.token)
        found = None if any(map(str.strip, before)) else _CELL_MAGIC.fullmatch(context.text_until_cursor)
        if found is not None:
            return self._in_line(found["line"], is_cell=True)
        found = _LINE_MAGIC.fullmatch(context.text_until_cursor)
        if found is None:
            return _result("", ())
        ours = self._in_line(found["line"], is_cell=False)
        return ours if ours.get("suppress") else self._with_names(ours, context)

    # -- the line of the magic -----------------------------------------------------------------------------------

    def _in_line(self, line: str, *, is_cell: bool) -> SimpleMatcherResult:
        words, fragment = _split(line)
        used, wanted, rest = self._walk(words, {name: _takes_value(action) for name, action in self._options.items()})
        if wanted is None and not rest and fragment.startswith("-") and "=" in fragment:
            wanted, _, fragment = fragment.partition("=")
        if wanted is not None:
            values = self._values.get(wanted)
            return _result(fragment, () if values is None else values(), alone=True)
        if rest:
            found = None if is_cell or used else self._subcommands.get(rest[0])
            return _result("", ()) if found is None else self._after_subcommand(found, rest[1:], fragment)
        options = [(name, action.help or "") for name, action in self._options.items() if self._may_follow(name, used)]
        if is_cell or fragment.startswith("-"):
            return _result(fragment, options, alone=True)
        commands = [] if used else [(name, found.help) for name, found in self._subcommands.items()]
        return _result(fragment, [*commands, *options])  # among the names that an expression may begin with

    def _after_subcommand(self, command: Described, words: Sequence[str], fragment: str) -> SimpleMatcherResult:
        used, wanted, rest = self._walk(words, command.options)
        if wanted is not None:
            return _result(fragment, (), alone=True)
        options = [(name, "") for name in command.options if name not in used]
        ids = [] if command.argument != "ID" or rest else [(name, "background cell") for name in self._ids.get()]
        return _result(fragment, [*ids, *options], alone=True)

    def _with_names(self, ours: SimpleMatcherResult, context: CompletionContext) -> SimpleMatcherResult:
        """Add what IPython knows of an expression: with jedi, which reads no magics, it would not say it."""
        completer = self._shell.Completer
        if not completer.use_jedi:
            return ours
        theirs: SimpleMatcherResult = completer.python_matcher(context)
        if not ours["completions"]:
            return theirs
        if theirs.get("matched_fragment", context.token) == ours["matched_fragment"]:
            ours["completions"] = [*ours["completions"], *theirs["completions"]]
        return ours

    def _walk(self, words: Iterable[str], takes_value: Mapping[str, bool]) -> tuple[set[str], str | None, list[str]]:
        """Return the options among *words*, the one whose value comes next, and what is no option."""
        used: set[str] = set()
        wanted: str | None = None
        rest: list[str] = []
        for word in words:
            if wanted is not None:
                wanted = None
            elif rest or not word.startswith("-"):
                rest.append(word)
            else:
                option, equals, _ = word.partition("=")
                used.add(option)
                wanted = option if takes_value.get(option) and not equals else None
        return used, wanted, rest

    def _may_follow(self, option: str, used: set[str]) -> bool:
        action = self._options[option]
        return isinstance(action, argparse._AppendAction) or used.isdisjoint(action.option_strings)

    def _places(self) -> Candidates:
        yield "any", "wherever there is room"
        yield "all", "one run on each node"
        nodes = self._nodes.get()
        for number, node in enumerate(nodes):
            yield str(number), f"node {number}: {node.labels.get('host', node.id)}"
        labels = dict.fromkeys(label for node in nodes for label in sorted(node.labels.items()))
        for key, value in labels:
            yield (f"host:{value}", "a host") if key == "host" else (f"label:{key}={value}", "a label")

    def _actors_known(self) -> Candidates:
        return [(name, about) for name, about in self._actors.get() if name.isidentifier()]

    # -- the cell ------------------------------------------------------------------------------------------------

    def _in_body(self, line: str, token: str) -> SimpleMatcherResult:
        words, last = _split(line)
        actor = _value_of("--actor", [*words, last])
        if actor is None or (token and not token.isidentifier()):
            return _result("", ())
        answer = self._names.get(actor)
        if answer is None:
            answer = self._names[actor] = Answer(lambda: list(self._remote_names(actor, TIME_LIMIT)))
        return _result(token, [(name, f"in {actor}") for name in answer.get()])


class Answer(Generic[T]):
    """What a question to the cluster was last answered with.

    Whoever asks waits for :data:`TIME_LIMIT` seconds at most; what comes later is there the next time.
    """

    def __init__(self, ask: Callable[[], Sequence[T]]) -> None:
        self._ask = ask
        self._known: Sequence[T] = ()
        self._asked = float("-inf")
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def get(self) -> Sequence[T]:
        """Return what is known; nothing without a cluster, which is never started for this."""
        if not shoal.is_initialized():
            return ()
        with self._lock:
            if self._thread is None and time.monotonic() - self._asked > FRESH:
                self._thread = threading.Thread(target=self._find_out, name="shoal-completion", daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(TIME_LIMIT)
        return self._known

    def _find_out(self) -> None:
        stay_in_background()
        try:
            known = self._ask()
        except Exception:  # boundary: a cluster that is gone, or has no time; there is nothing to complete
            known = ()
        with self._lock:
            self._known, self._asked, self._thread = known, time.monotonic(), None


def _named_actors() -> list[tuple[str, str]]:
    actors = shoal.snapshot()["actors"]
    return [(actor["name"], actor["class_name"]) for actor in actors if actor["name"] and actor["state"] != "dead"]


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _split(line: str) -> tuple[list[str], str]:
    """Return the words of *line* that are complete, and the one that the cursor is in: "" if it is in none."""
    words = [match[0] for match in _WORD.finditer(line)]
    if words and (not line[-1].isspace() or _is_open(words[-1])):
        return words[:-1], words[-1]
    return words, ""


def _is_open(word: str) -> bool:
    """Whether *word* begins with a quote that does not end."""
    return word[0] in "\"'" and (len(word) == 1 or word[-1] != word[0])


def _value_of(option: str, words: Sequence[str]) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return following or None
        if word.startswith(f"{option}="):
            return word.partition("=")[2] or None
    return None


def _result(fragment: str, candidates: Candidates, *, alone: bool = False) -> SimpleMatcherResult:
    """Return those of *candidates* that begin with *fragment*; *alone* if nothing else makes sense there."""
    found = list(_beginning_with(fragment, candidates))
    return SimpleMatcherResult(completions=found, matched_fragment=fragment, suppress=alone, ordered=True)


def _beginning_with(fragment: str, candidates: Candidates) -> Iterator[SimpleCompletion]:
    for text, about in candidates:
        if text.startswith(fragment):
            yield SimpleCompletion(text, type=about.rstrip(".") or None)
