"""Cloudpickle, with code that remembers the file it was written in.

From 3.1.3 on, cloudpickle calls the file of all code ``<dynamic-code>``, so that equal functions have equal pickles.
Then a traceback shows no source, and ``inspect.getsource`` finds none. Here code travels under its own filename,
whatever the version: the cell's, where it came from a notebook.
"""

from __future__ import annotations

import io
import pickle
import types
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import cloudpickle

_reduce_code: Callable[[types.CodeType], tuple[Any, ...]] = cloudpickle.Pickler.dispatch_table[types.CodeType]


def _reduce_with_filename(code: types.CodeType) -> tuple[Any, ...]:
    make, arguments = _reduce_code(code)
    return _make_code, (make, arguments, code.co_filename)


def _make_code(make: Callable[..., types.CodeType], arguments: tuple[Any, ...], filename: str) -> types.CodeType:
    return make(*arguments).replace(co_filename=filename)


class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A ``cloudpickle.Pickler``; see the module's description."""

    dispatch_table: ClassVar[Any] = ChainMap(
        {types.CodeType: _reduce_with_filename}, cloudpickle.Pickler.dispatch_table
    )

    def __init__(
        self,
        file: io.BytesIO,
        protocol: int | None = None,
        buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
        reducers: Mapping[type, Callable[[Any], Any]] | None = None,
    ) -> None:
        """*reducers* say how to reduce some types, for this pickler alone."""
        if reducers:
            # Before the pickler is initialized, which is when it looks for its table.
            self.__dict__["dispatch_table"] = ChainMap(dict(reducers), *self.dispatch_table.maps)
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)


def dumps_by_value(
    value: Any,
    buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
    reducers: Mapping[type, Callable[[Any], Any]] | None = None,
) -> bytes:
    """Pickle *value* (protocol 5); code that cannot be imported at the other end goes along.

    *reducers* say how to reduce some types in this pickle.
    """
    with io.BytesIO() as stream:
        CodePickler(stream, protocol=5, buffer_callback=buffer_callback, reducers=reducers).dump(value)
        return stream.getvalue()
