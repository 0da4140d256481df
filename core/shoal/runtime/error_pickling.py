"""Pickling exceptions so that they can be rebuilt."""

from __future__ import annotations

import pickle

from shoal.runtime.code_pickling import CodePickler


class ErrorPickler(CodePickler):
    """Pickles exceptions so that they are rebuilt without a call of ``__init__``.

    Python rebuilds an exception as ``type(*args)``, and ``args`` is what the type passed on to
    ``Exception.__init__``: an ``__init__`` that formats a message formats it twice, one with two parameters fails.
    A class that defines its own ``__reduce__`` knows better and is left alone, as are the built-in ones.
    """

    def reducer_override(self, value: object) -> object:
        if (
            isinstance(value, BaseException)
            and type(value).__module__ != "builtins"
            and type(value).__reduce__ is BaseException.__reduce__
        ):
            return _rebuild, (type(value), value.args, value.__dict__)
        if isinstance(value, BaseException):  # not by the reducers that `distributed` registers for all of them
            return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return super().reducer_override(value)


def _rebuild(cls: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
