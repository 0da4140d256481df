"""Search spaces: what may vary, in nested dictionaries, with the names that users know.

A space is anything made of dictionaries, lists and constants, with *domains* where values are to be chosen. Whoever
chooses does so domain by domain (:meth:`Space.resolve`), each under its path such as ``optimizer.lr``, in an order that
does not change, and meets only the domains of those options that were chosen: spaces are conditional. In the paths of
these stands the option too: ``model.svm.C`` is what becomes ``config["model"]["C"]``.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from shoal.errors import OptionError

#: Chooses a value for a domain, which is known by its path.
Choose = Callable[[str, "Domain"], Any]
#: Where something is: keys of dictionaries and numbers in lists.
Path = tuple[str | int, ...]
#: Under which key the name of a chosen option stands, where options are named subspaces.
CHOICE = "choice"


class Domain:
    """What one parameter may be. Immutable."""

    def sample(self, rng: random.Random) -> Any:
        """Return a value at random."""
        raise NotImplementedError

    def contains(self, value: Any) -> bool:
        """Whether *value* is one that may be chosen."""
        raise NotImplementedError

    def describe(self) -> Any:
        """Return the domain as JSON, for journals: equal domains are described alike."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True)
class Float(Domain):
    """A number from *low* to *high*, evenly or by its logarithm; a multiple of *step* if that is given."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise OptionError(f"A step must be above 0 and fit between the bounds, not {self.step!r}.", option="q")

    def sample(self, rng: random.Random) -> float:
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """Return the value that may be chosen next to *value*."""
        if self.step is not None:
            value = round(value / self.step) * self.step
            if value < self.low:
                value = math.ceil(self.low / self.step) * self.step
            if value > self.high:
                value = math.floor(self.high / self.step) * self.step
        return min(max(value, self.low), self.high)

    def contains(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def describe(self) -> Any:
        return {"float": [self.low, self.high], "log": self.log, "step": self.step}


@dataclasses.dataclass(frozen=True, slots=True)
class Integer(Domain):
    """A whole number from *low* up to *high*, which is one of them; evenly or by its logarithm; in steps."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        for value in (self.low, self.high, self.step):
            if not isinstance(value, int) or isinstance(value, bool):
                raise OptionError(f"Bounds and steps of whole numbers are whole, not {value!r}.", option="low")
        if self.low > self.high:
            raise OptionError(f"Nothing lies between {self.low} and {self.high}.", option="high")
        if self.log and self.low < 1:
            raise OptionError(f"A logarithmic range begins at 1 or above, not {self.low}.", option="low")
        if self.step < 1:
            raise OptionError(f"A step is 1 or more, not {self.step}.", option="q")

    def sample(self, rng: random.Random) -> int:
        if not self.log:
            return rng.randrange(self.low, self.high + 1, self.step)
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))
        value = self.low + round((int(value) - self.low) / self.step) * self.step
        return min(max(value, self.low), self.low + (self.high - self.low) // self.step * self.step)

    def contains(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def describe(self) -> Any:
        return {"integer": [self.low, self.high], "log": self.log, "step": self.step}


@dataclasses.dataclass(frozen=True, slots=True)
class Normal(Domain):
    """A number by the normal distribution; a multiple of *step* if that is given."""

    mean: float
    sd: float
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.sd > 0:
            raise OptionError(f"A standard deviation is above 0, not {self.sd!r}.", option="sd")

    def sample(self, rng: random.Random) -> float:
        value = rng.gauss(self.mean, self.sd)
        return value if self.step is None else round(value / self.step) * self.step

    def contains(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    def describe(self) -> Any:
        return {"normal": [self.mean, self.sd], "step": self.step}


@dataclasses.dataclass(frozen=True, slots=True)
class Choice(Domain):
    """One of some options, by its number. An option may be a space of its own: then it is met only if it is chosen.

    ``names`` is given where options are named: then the chosen one's configuration has its name under ``choice``.
    """

    options: tuple[Any, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.options:
            raise OptionError("A choice needs at least one option.", option="options")

    def sample(self, rng: random.Random) -> int:
        return rng.randrange(len(self.options))

    def contains(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.options)

    def describe(self) -> Any:
        described = [_describe(option) for option in self.options]
        return {"choice": dict(zip(self.names, described, strict=True)) if self.names else described}

    def key_of(self, number: int) -> str | int:
        """Return what tells the domains of an option from those of the others, in their paths."""
        return number if self.names is None else self.names[number]

    def number_of(self, value: Any) -> int:
        """Return the number of an option, given by itself or by its name.

        Raises
        ------
        ValueError
            It is none of them.
        """
        if self.names is not None:
            name = value.get(CHOICE) if isinstance(value, Mapping) else value
            return self.names.index(name)
        return next(number for number, option in enumerate(self.options) if _same(option, value))


@dataclasses.dataclass(frozen=True, slots=True)
class Grid(Domain):
    """Every one of some values: a trial, or ``num_samples`` of them, for each."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise OptionError("A grid needs at least one value.", option="values")

    def contains(self, value: Any) -> bool:
        return any(_same(one, value) for one in self.values)

    def describe(self) -> Any:
        return {"grid": [_describe(value) for value in self.values]}


@dataclasses.dataclass(frozen=True, slots=True)
class SampleFrom(Domain):
    """What a function returns for the configuration that was chosen before it."""

    function: Callable[[dict[str, Any]], Any]

    def contains(self, value: Any) -> bool:
        return True

    def describe(self) -> Any:
        return {"sample_from": getattr(self.function, "__name__", type(self.function).__name__)}


# -- as users write them -----------------------------------------------------------------------------------------------


def uniform(low: float, high: float) -> Float:
    """A number from *low* to *high*."""
    return Float(low, high)


def quniform(low: float, high: float, q: float) -> Float:
    """A multiple of *q* from *low* to *high*."""
    return Float(low, high, step=q)


def loguniform(low: float, high: float) -> Float:
    """A number from *low* to *high*, evenly by its logarithm."""
    return Float(low, high, log=True)


def qloguniform(low: float, high: float, q: float) -> Float:
    """A multiple of *q* from *low* to *high*, evenly by its logarithm."""
    return Float(low, high, log=True, step=q)


def randn(mean: float = 0.0, sd: float = 1.0) -> Normal:
    """A number by the normal distribution."""
    return Normal(mean, sd)


def qrandn(mean: float, sd: float, q: float) -> Normal:
    """A multiple of *q* by the normal distribution."""
    return Normal(mean, sd, q)


def randint(low: int, high: int) -> Integer:
    """A whole number from *low* up to, and without, *high*."""
    return Integer(low, _below(high))


def qrandint(low: int, high: int, q: int = 1) -> Integer:
    """A whole number from *low* in steps of *q* up to *high*, which is one of them."""
    return Integer(low, high, step=q)


def lograndint(low: int, high: int) -> Integer:
    """A whole number from *low* up to, and without, *high*, evenly by its logarithm."""
    return Integer(low, _below(high), log=True)


def qlograndint(low: int, high: int, q: int) -> Integer:
    """A whole number from *low* in steps of *q* up to *high*, evenly by its logarithm."""
    return Integer(low, high, log=True, step=q)


def choice(options: Sequence[Any] | Mapping[str, Any]) -> Choice:
    """One of some options.

    Parameters
    ----------
    options
        A list; or a mapping of names to subspaces, of which the chosen one's configuration comes with its name:
        ``choice({"svm": {"C": loguniform(0.1, 10)}, "tree": {"depth": randint(1, 9)}})`` gives
        ``{"choice": "svm", "C": 0.7}`` or ``{"choice": "tree", "depth": 3}``.
    """
    if isinstance(options, Mapping):
        for name, option in options.items():
            if not isinstance(option, Mapping) or CHOICE in option:
                raise OptionError(
                    f"A named option is a dictionary, without a key `{CHOICE}`, which will have its name; "
                    f"`{name}` is {option!r}.",
                    option="options",
                )
        return Choice(tuple(options.values()), tuple(map(str, options)))
    if isinstance(options, (str, bytes)) or not isinstance(options, Sequence):
        raise OptionError(f"`choice` takes a list of options or a mapping, not {options!r}.", option="options")
    return Choice(tuple(options))


def grid_search(values: Sequence[Any]) -> Grid:
    """Every one of *values*."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise OptionError(f"`grid_search` takes a list of values, not {values!r}.", option="values")
    return Grid(tuple(values))


def sample_from(function: Callable[[dict[str, Any]], Any]) -> SampleFrom:
    """What *function* returns, given the configuration as far as it has been chosen."""
    if not callable(function):
        raise OptionError(f"`sample_from` takes a function of the configuration, not {function!r}.", option="function")
    return SampleFrom(function)


# -- a whole space -----------------------------------------------------------------------------------------------------


class Space:
    """A search space as a whole.

    Parameters
    ----------
    tree
        Dictionaries, lists, constants and domains.
    constraint
        ``constraint(config)`` returns whether a configuration may be tried.
    """

    def __init__(self, tree: Mapping[str, Any], constraint: Callable[[dict[str, Any]], bool] | None = None) -> None:
        if not isinstance(tree, Mapping):
            raise OptionError(f"A search space is a dictionary, not {type(tree).__name__}.", option="param_space")
        self.tree = dict(tree)
        self.constraint = constraint
        _refuse_grids_in_choices(self.tree, ())

    def resolve(self, choose: Choose) -> dict[str, Any]:
        """Return a configuration in which ``choose(path, domain)`` has been asked for each domain, in order.

        Of a :class:`Choice` the number of an option is asked for. ``sample_from`` comes last and asks nobody.
        """
        later: list[tuple[Path, SampleFrom]] = []
        config: dict[str, Any] = _resolve(self.tree, (), (), choose, later)
        for path, domain in later:
            _set(config, path, domain.function(config))
        return config

    def sample(self, rng: random.Random, fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return a configuration at random, with *fixed* values for some paths; see :meth:`resolve`."""
        known = fixed or {}
        return self.resolve(lambda path, domain: known[path] if path in known else domain.sample(rng))

    def allows(self, config: dict[str, Any]) -> bool:
        """Whether the constraint allows a configuration."""
        return self.constraint is None or bool(self.constraint(config))

    def grid(self) -> list[dict[str, Any]]:
        """Return the points of the grid: for each, values by the paths of the :class:`Grid` domains."""
        found = [(path, domain.values) for path, domain in self.domains() if isinstance(domain, Grid)]
        paths = [path for path, _ in found]
        return [dict(zip(paths, values, strict=True)) for values in itertools.product(*(values for _, values in found))]

    def domains(self) -> list[tuple[str, Domain]]:
        """Return all domains with their paths, those of options too."""
        return list(_domains(self.tree, ()))

    def describe(self) -> Any:
        """Return the space as JSON, to be compared with that of another session."""
        return _describe(self.tree)

    def values_of(self, point: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
        """Return what was chosen in a configuration that somebody has written down, by path; it may leave things out.

        Not *strict*, what the space does not have is not looked at.

        Raises
        ------
        OptionError
            It has something that the space has not, or a value that cannot be chosen.
        """
        values: dict[str, Any] = {}
        _read(self.tree, point, (), values, strict)
        return values


def flatten(config: Any, path: Path = ()) -> dict[str, Any]:
    """Return a configuration with its values by path: ``{"optimizer.lr": 0.1}``."""
    if isinstance(config, Mapping) and config:
        return {name: value for key, item in config.items() for name, value in flatten(item, (*path, key)).items()}
    return {join(path): config}


def join(path: Sequence[str | int]) -> str:
    """Return a path as text."""
    return ".".join(map(str, path))


def _resolve(tree: Any, path: Path, place: Path, choose: Choose, later: list[tuple[Path, SampleFrom]]) -> Any:
    """Return what is chosen of *tree*, known by *path*, for the *place* in the configuration."""
    if isinstance(tree, SampleFrom):
        later.append((place, tree))
        return None
    if isinstance(tree, Choice):
        number = choose(join(path), tree)
        chosen = _resolve(tree.options[number], (*path, tree.key_of(number)), place, choose, later)
        return {CHOICE: tree.names[number], **chosen} if tree.names else chosen
    if isinstance(tree, Domain):
        return choose(join(path), tree)
    if isinstance(tree, Mapping):
        return {key: _resolve(item, (*path, key), (*place, key), choose, later) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_resolve(item, (*path, key), (*place, key), choose, later) for key, item in enumerate(tree)]
    return tree


def _domains(tree: Any, path: Path) -> Iterator[tuple[str, Domain]]:
    if isinstance(tree, Domain):
        yield join(path), tree
    if isinstance(tree, Choice):
        for number, option in enumerate(tree.options):
            yield from _domains(option, (*path, tree.key_of(number)))
    elif isinstance(tree, Mapping):
        for key, item in tree.items():
            yield from _domains(item, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for number, item in enumerate(tree):
            yield from _domains(item, (*path, number))


def _read(tree: Any, point: Any, path: Path, values: dict[str, Any], strict: bool) -> None:
    """Note in *values* what was chosen of *tree* in *point*."""
    name = join(path)
    if isinstance(tree, SampleFrom):
        return
    if isinstance(tree, Choice):
        try:
            number = tree.number_of(point)
        except (ValueError, StopIteration):
            raise _unfit(name, point, tree) from None
        values[name] = number
        if isinstance(point, Mapping):
            rest = {key: value for key, value in point.items() if not (tree.names and key == CHOICE)}
            _read(tree.options[number], rest, (*path, tree.key_of(number)), values, strict)
    elif isinstance(tree, Domain):
        if not tree.contains(point):
            raise _unfit(name, point, tree)
        values[name] = point
    elif isinstance(tree, Mapping) and isinstance(point, Mapping):
        for key, value in point.items():
            if key not in tree:
                if not strict:
                    continue
                near = difflib.get_close_matches(str(key), map(str, tree), n=1)
                hint = f" Did you mean `{join((*path, near[0]))}`?" if near else ""
                raise OptionError(f"`{join((*path, key))}` is not in the search space.{hint}", option="points")
            _read(tree[key], value, (*path, key), values, strict)
    elif isinstance(tree, (list, tuple)) and isinstance(point, (list, tuple)) and len(tree) == len(point):
        for number, (item, value) in enumerate(zip(tree, point, strict=True)):
            _read(item, value, (*path, number), values, strict)
    elif strict and not _same(tree, point):
        raise OptionError(f"`{name}` is always {tree!r} in the search space, not {point!r}.", option="points")


def _unfit(name: str, value: Any, domain: Domain) -> OptionError:
    return OptionError(
        f"`{name}` cannot be {value!r}: it is {json.dumps(domain.describe(), default=repr)}.", option="points"
    )


def _set(config: Any, path: Sequence[str | int], value: Any) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def _describe(tree: Any) -> Any:
    if isinstance(tree, Domain):
        return {"domain": tree.describe()}
    if isinstance(tree, Mapping):
        return {str(key): _describe(item) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_describe(item) for item in tree]
    return tree if isinstance(tree, (str, int, float, bool, type(None))) else type(tree).__qualname__


def _refuse_grids_in_choices(tree: Any, path: Path, in_choice: bool = False) -> None:
    if isinstance(tree, Grid) and in_choice:
        raise OptionError(
            f"`{join(path)}` is a grid within a choice: whether it is met depends on the trial. Use `choice` for it.",
            option="param_space",
        )
    if isinstance(tree, Choice):
        for option in tree.options:
            _refuse_grids_in_choices(option, path, True)
    elif isinstance(tree, Mapping):
        for key, item in tree.items():
            _refuse_grids_in_choices(item, (*path, key), in_choice)
    elif isinstance(tree, (list, tuple)):
        for number, item in enumerate(tree):
            _refuse_grids_in_choices(item, (*path, number), in_choice)


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one is other or (type(one) is type(other) and one == other))
    except Exception:  # boundary: arrays and the like, which have no single answer
        return False


def _check_bounds(low: float, high: float, log: bool) -> None:
    for value in (low, high):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise OptionError(f"Bounds are finite numbers, not {value!r}.", option="low")
    if low >= high:
        raise OptionError(f"The lower bound is below the upper one; {low!r} is not below {high!r}.", option="low")
    if log and low <= 0:
        raise OptionError(f"A logarithmic range begins above 0, not at {low!r}.", option="low")


def _below(high: int) -> int:
    return high - 1 if isinstance(high, int) else high
