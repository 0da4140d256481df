"""What makes one model: a function of the user, or a scikit-learn estimator."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import cloudpickle

from shoal.errors import OptionError

#: Parameters that a training function may have beside its own, and what they get.
SPECIAL = ("key", "data")


class Fitted(NamedTuple):
    """What came of one fit."""

    model: Any
    metrics: dict[str, float]


class Trainer(Protocol):
    """Makes a model of one group. It travels to the executors."""

    #: Changes when the code does.
    code_hash: str

    def fit(self, key: Any, rows: Any, params: Mapping[str, Any], data: Any) -> Fitted: ...


class FunctionTrainer:
    """Calls ``function(rows, **params)``, or ``function(key, **params)`` where groups have no rows."""

    def __init__(self, function: Callable[..., Any], *, has_rows: bool) -> None:
        self._function = function
        self._has_rows = has_rows
        self._names, self._takes_any = _keywords(function)
        self.code_hash = hash_code(function)

    def check(self, params: Mapping[str, Any], *, has_data: bool) -> None:
        """Raise OptionError if the function does not take these *params*."""
        for name in params:
            if name in SPECIAL:
                raise OptionError(f"`{name}` is no free name for a parameter: `fit_many` passes it.", option="params")
            if not self._takes_any and name not in self._names:
                near = difflib.get_close_matches(name, self._names, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise OptionError(f"`{_name(self._function)}` has no parameter `{name}`.{hint}", option="params")
        if has_data and not self._takes_any and "data" not in self._names:
            raise OptionError(
                f"`data` is given, but `{_name(self._function)}` has no parameter `data` to take it.", option="data"
            )

    def fit(self, key: Any, rows: Any, params: Mapping[str, Any], data: Any) -> Fitted:
        offered = {"data": data} if data is not None else {}
        if self._has_rows:
            offered["key"] = key
        special = {name: value for name, value in offered.items() if name in self._names}
        return as_fitted(self._function(rows if self._has_rows else key, **params, **special))


class EstimatorTrainer:
    """Fits a clone of a scikit-learn estimator, or of anything with its interface (XGBoost's, LightGBM's)."""

    def __init__(
        self,
        estimator: Any,
        *,
        target: str | None,
        features: Sequence[str] | None,
        by: Sequence[str],
        cv: int | None,
        scoring: str | None,
    ) -> None:
        self._estimator = estimator
        self._target = target
        self._features = None if features is None else list(features)
        self._by = list(by)
        self._cv = cv
        self._scoring = scoring
        described = (type(estimator).__qualname__, sorted(map(repr, estimator.get_params().items())), target, features)
        self.code_hash = _digest(repr((described, cv, scoring)).encode())

    def check(self, params: Mapping[str, Any], *, has_data: bool) -> None:
        """Raise OptionError if the estimator does not take these *params*."""
        known = self._estimator.get_params(deep=True)
        for name in params:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise OptionError(
                    f"`{type(self._estimator).__name__}` has no parameter `{name}`.{hint}", option="params"
                )
        if has_data:
            raise OptionError("`data` is for training functions: an estimator has no use for it.", option="data")

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise OptionError if *target* or *features* are not among the columns."""
        if self._target is None:
            raise OptionError("Say with `target` which column an estimator has to predict.", option="target")
        for option, names in (("target", [self._target]), ("features", self._features or [])):
            for name in names:
                if name not in columns:
                    raise OptionError(f"`{option}` names `{name}`, which is no column.", option=option)

    def fit(self, key: Any, rows: Any, params: Mapping[str, Any], data: Any) -> Fitted:
        from sklearn.base import clone
        from sklearn.model_selection import cross_val_score

        features = rows[self._features] if self._features else rows.drop(columns=[self._target, *self._by])
        target = rows[self._target]
        model = clone(self._estimator).set_params(**params)
        metrics: dict[str, float] = {}
        if self._cv:
            scores = cross_val_score(clone(model), features, target, cv=self._cv, scoring=self._scoring)
            metrics["score"] = float(scores.mean())
        return Fitted(model.fit(features, target), metrics)


def as_fitted(returned: Any) -> Fitted:
    """Take what a training function has returned: a model, or a pair of model and metrics.

    Raises
    ------
    TypeError
        It is None, or a metric is no number.
    """
    model: Any = returned
    metrics: Mapping[Any, Any] = {}
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        model, metrics = returned
    if model is None:
        raise TypeError("The training function has returned None: it returns the model, or (model, metrics).")
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"The metric `{name}` is no number: {value!r}.") from None
    return Fitted(model, numbers)


def hash_code(function: Callable[..., Any]) -> str:
    """Return a hash of a function's code, its defaults and the values it has closed over."""
    return _digest(repr(_described(function, set())).encode())


def _described(value: Any, seen: set[int]) -> Any:
    """Return what can be told of *value* that is the same in each session."""
    if isinstance(value, types.CodeType):
        return (value.co_code, value.co_names, tuple(_described(item, seen) for item in value.co_consts))
    function = inspect.unwrap(getattr(value, "func", value))
    if isinstance(function, types.FunctionType):
        if id(function) in seen:
            return "itself"
        seen.add(id(function))
        cells = tuple(_cell(cell) for cell in function.__closure__ or ())
        names = function.__code__.co_names
        called = [
            function.__globals__[name]
            for name in names
            if isinstance(function.__globals__.get(name), types.FunctionType)
            and function.__globals__[name].__module__ == function.__module__
        ]
        partial = (getattr(value, "args", ()), getattr(value, "keywords", None))
        parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells, called, partial)
        return tuple(_described(part, seen) for part in parts)
    if isinstance(value, (tuple, list)):
        return tuple(_described(item, seen) for item in value)
    if isinstance(value, (str, bytes, int, float, complex, type(None))):
        return value
    try:
        return _digest(cloudpickle.dumps(value))
    except Exception:  # boundary: objects of the user's; what does not pickle is told of when it has to travel
        return type(value).__qualname__


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _keywords(function: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """Return the names that a function takes beside its first argument, and whether it takes any."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return (), True
    rest = parameters[1:] if parameters and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY else parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = tuple(parameter.name for parameter in rest if parameter.kind in named)
    return names, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in rest)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
