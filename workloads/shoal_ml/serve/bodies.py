"""Bodies of requests and responses: JSON, numpy arrays, Arrow tables, text and bytes."""

from __future__ import annotations

import io
import json
import sys
import typing
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

JSON = "application/json"
#: What ``numpy.save`` writes, without pickles.
NUMPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
BYTES = "application/octet-stream"


class BadBodyError(ValueError):
    """The body is not what its type says, or its type is none that is known; ``status`` is what to answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def decode(content_type: str, body: bytes) -> Any:
    """Return the value in a request's body; a body without a type is JSON.

    Raises
    ------
    BadBodyError
        It is malformed, or of a type that is not known.
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind in ("", JSON) or kind.endswith("+json"):
            return json.loads(body) if body else None
        if kind == NUMPY:
            import numpy as np

            return np.load(io.BytesIO(body), allow_pickle=False)
        if kind == ARROW:
            import pyarrow as pa

            with pa.ipc.open_stream(body) as reader:
                return reader.read_all()
        if kind.startswith("text/"):
            return body.decode()
    except (ValueError, EOFError, OSError, RecursionError) as error:
        raise BadBodyError(f"The body is no {kind or JSON}: {error}") from None
    if kind == BYTES:
        return body
    raise BadBodyError(
        f"Bodies of type `{kind[:80]}` are not read here: send {JSON}, {NUMPY}, {ARROW}, text or {BYTES}.", 415
    )


def encode(value: Any, accept: str) -> tuple[str, bytes]:
    """Return type and bytes of a response's body; *accept* is what the client would like."""
    if isinstance(value, bytes | bytearray | memoryview):
        return BYTES, bytes(value)
    if isinstance(value, str):
        return "text/plain; charset=utf-8", value.encode()
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and NUMPY in accept:
        target = io.BytesIO()
        numpy.save(target, value, allow_pickle=False)
        return NUMPY, target.getvalue()
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(value, arrow.Table):
        sink = io.BytesIO()
        with arrow.ipc.new_stream(sink, value.schema) as writer:
            writer.write_table(value)
        return ARROW, sink.getvalue()
    return JSON, _dumps(value).encode()


def _plain(value: Any) -> Any:
    """Return what JSON can say of a value: arrays and tensors as lists, dataframes as records."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    for name in ("tolist", "model_dump", "to_pylist"):
        method = getattr(value, name, None)
        if callable(method):
            return method()
    if hasattr(value, "to_dict"):
        return value.to_dict(orient="records")
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError(
        f"a {type(value).__name__} is nothing that JSON can say: return JSON, bytes, an array or a Response"
    )


_dumps = json.JSONEncoder(default=_plain, ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def wanted_argument(function: Callable[..., Any]) -> str:
    """Return what a function is to get over HTTP: ``"request"``, ``"body"`` or ``""`` for nothing.

    The request is for a parameter without annotation, or one that says ``Request``; any other annotation asks for the
    decoded body.
    """
    try:
        parameters = [
            parameter
            for parameter in signature(function).parameters.values()
            if parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return "request"
    if not parameters:
        return ""
    annotation = parameters[0].annotation
    if isinstance(annotation, str):
        annotation = _resolve(function, parameters[0].name, annotation)
    if annotation is Parameter.empty:
        return "request"
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return "request" if name.rpartition(".")[2] in ("Request", "Any", "object") else "body"


def _resolve(function: Callable[..., Any], name: str, written: str) -> Any:
    try:
        return typing.get_type_hints(function).get(name, written)
    except Exception:  # boundary: annotations are user code
        return written
