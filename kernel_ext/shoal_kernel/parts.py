"""A cell may run several times at once: for each value, on each node, as each rank. Each time is a *part*."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from IPython.core.error import UsageError

from shoal_kernel.targets import Place

#: Parts of one cell at most.
MAX_PARTS = 10_000
_short = reprlib.Repr()


@dataclasses.dataclass(frozen=True)
class Part:
    """One time that a cell runs."""

    #: What tells it from the others, for people; "" for the only one.
    label: str = ""
    #: What tells it from the others in the collected values.
    key: Any = None
    #: Variables that it has and the others have not.
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: Options of its task.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Parts:
    """All parts of a cell, and how their values are collected."""

    parts: tuple[Part, ...]
    #: ``"one"`` value, a ``"list"`` by rank, or a ``"dict"`` by key.
    kind: str

    @property
    def names(self) -> frozenset[str]:
        """Variables that the parts bring along."""
        return frozenset(self.parts[0].variables)


def only(place: Place | None = None) -> Parts:
    """One part."""
    return Parts((Part(options=place.options if place is not None else {}),), "one")


def on_places(places: Sequence[Place]) -> Parts:
    """One part in each place."""
    if len(places) == 1 and not places[0].label:
        return only(places[0])
    return Parts(tuple(Part(place.label, place.label, options=place.options) for place in places), "dict")


def for_each(clauses: Sequence[str], variables: dict[str, Any]) -> Parts:
    """One part for each value of ``NAME in EXPRESSION``; for several clauses, each combination.

    Parameters
    ----------
    clauses
        The expression is the user's own Python, evaluated here with *variables*; several names can be bound at once,
        as in ``x, y in zip(xs, ys)``.

    Raises
    ------
    UsageError
        A clause is not of this form, gives no values, or all together give too many: of one that never ends, no more
        is taken than it takes to know.
    """
    parsed = [_Clause(text) for text in clauses]
    names = [name for clause in parsed for name in clause.names]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"`--each` binds `{name}` twice.")
    values = [clause.values(variables) for clause in parsed]
    total = 1
    for number in map(len, values):
        total *= number
    if total > MAX_PARTS:
        raise UsageError(f"`--each` asks for {total:,} runs of the cell; {MAX_PARTS:,} are possible.")
    parts: list[Part] = []
    labels: Counter[str] = Counter()
    for combination in itertools.product(*values):
        bound = dict(zip(names, itertools.chain.from_iterable(combination), strict=True))
        label = _unlike(labels, ", ".join(f"{name}={_short.repr(value)}" for name, value in bound.items()))
        key = next(iter(bound.values())) if len(bound) == 1 else tuple(bound.values())
        parts.append(Part(label, key, bound))
    return Parts(tuple(parts), "dict")


def _unlike(labels: Counter[str], label: str) -> str:
    """Return a label that no other part has."""
    labels[label] += 1
    return label if labels[label] == 1 else f"{label} ({labels[label]})"


def ranks(count: int) -> Parts:
    """As many parts as there are ranks, each with ``rank`` and ``world_size``."""
    parts = (Part(f"rank {rank}", rank, {"rank": rank, "world_size": count}) for rank in range(count))
    return Parts(tuple(parts), "list")


class _Clause:
    """``NAME in EXPRESSION``, as in a comprehension."""

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            tree = ast.parse(f"(0 for {text})", "--each", mode="eval")
        except SyntaxError as error:
            raise self._refused(f"{error.msg}") from None
        comprehension = tree.body
        if not isinstance(comprehension, ast.GeneratorExp) or len(comprehension.generators) != 1:
            raise self._refused("one `in` for each `--each`")
        generator = comprehension.generators[0]
        target = generator.target
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        if generator.is_async or not all(isinstance(part, ast.Name) for part in targets):
            raise self._refused("names only, in front of `in`")
        self.names = [part.id for part in targets if isinstance(part, ast.Name)]
        reads: list[ast.expr] = [ast.Name(name, ast.Load()) for name in self.names]
        comprehension.elt = ast.Tuple(reads, ast.Load())
        self._code = compile(ast.fix_missing_locations(tree), "--each", "eval")

    def values(self, variables: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Evaluate the user's expression, not beyond what is possible: the values of the names, each time."""
        try:
            found: list[tuple[Any, ...]] = list(itertools.islice(eval(self._code, dict(variables)), MAX_PARTS + 1))
        except Exception as error:  # boundary: it is the user's code
            raise self._refused(f"{type(error).__name__}: {error}") from error
        if not found:
            raise self._refused("there is no value to run the cell for")
        if len(found) > MAX_PARTS:
            raise self._refused(f"it has more than {MAX_PARTS:,} values, and no more runs of a cell are possible")
        return found

    def _refused(self, why: str) -> UsageError:
        return UsageError(
            f'`--each "{self._text}"`: {why}. It looks like `--each "lr in [0.1, 0.01]"`; nothing was sent.'
        )
