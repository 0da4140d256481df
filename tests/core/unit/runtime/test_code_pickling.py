"""Code keeps its file on the way, whatever the version of cloudpickle."""

from __future__ import annotations

import pickle
import types
from typing import Any

from shoal.runtime.code_pickling import dumps_by_value


def make_function(filename: str) -> Any:
    source = "def outer(x):\n    def inner(y):\n        return x + y\n    return inner\n"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, filename, "exec"), namespace)
    return namespace["outer"]


def test_functions_and_those_inside_keep_their_file() -> None:
    outer = pickle.loads(dumps_by_value(make_function("<cell 3>")))
    nested = [constant for constant in outer.__code__.co_consts if isinstance(constant, types.CodeType)]
    assert [code.co_filename for code in (outer.__code__, *nested)] == ["<cell 3>", "<cell 3>"]
    assert outer(1)(2) == 3 and outer(1).__code__.co_filename == "<cell 3>"


def test_classes_too() -> None:
    class Local:
        def method(self) -> int:
            return 1

    Local.__module__ = "__main__"
    rebuilt = pickle.loads(dumps_by_value(Local))
    assert rebuilt().method() == 1 and rebuilt.method.__code__.co_filename == __file__


def test_buffers_stay_out_of_the_pickle() -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = dumps_by_value(pickle.PickleBuffer(b"x" * 10_000), buffers.append)
    assert len(data) < 100 and len(buffers) == 1
