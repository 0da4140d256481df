"""Names a cell reads and writes: by example, and against what the compiler makes of real modules."""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import importlib.util
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_kernel.analysis import CellAnalysis, analyse
from shoal_kernel.visiting import IMPLICIT


def run(source: str) -> CellAnalysis:
    return analyse(textwrap.dedent(source))


def reads(source: str) -> set[str]:
    return {name for name in run(source).reads if not hasattr(builtins, name)}


def missing(source: str, *known: str) -> list[str]:
    return [read.name for read in run(source).undefined({*known, *vars(builtins)})]


MATCH = """
match p:
    case {'k': v, **rest}: a = v, rest
    case [h, *t]: a = h, t
    case C(x=1) | D.E as q: a = q
    case _: a = 1
a
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("y = x + 1", {"x"}),
        ("x = 1\ny = x", set()),
        ("x = x + 1", {"x"}),
        ("x += 1", {"x"}),
        ("x[0] = 1", {"x"}),
        ("x.a.b = 1", {"x"}),
        ("x: int", set()),
        ("x: T = 1\nx", {"T"}),
        ("import a.b as c\nc.d", set()),
        ("import a.b\na.b", set()),
        ("from a import b as c\nc", set()),
        ("for i in xs:\n    y = i\ny", {"xs", "y"}),
        ("while more():\n    n = 1", {"more"}),
        ("with open(p) as f, g(f) as h:\n    t = h\nt", {"p", "g"}),
        ("with suppress(E):\n    t = 1\nt", {"suppress", "E", "t"}),
        ("if c:\n    x = 1\nelse:\n    x = 2\nx", {"c"}),
        ("if c:\n    x = 1\nx", {"c", "x"}),
        ("if c:\n    x = 1\nelse:\n    raise E\nx", {"c", "E"}),
        ("try:\n    x = f()\nexcept E as e:\n    x = e\nx", {"f", "E"}),
        ("try:\n    x = f()\nexcept E:\n    pass\nx", {"f", "E", "x"}),
        ("try:\n    x = 1\nfinally:\n    y = 2\nx, y", set()),
        ("[a + b for a in xs if c]", {"xs", "b", "c"}),
        ("{k: v for k, v in d.items()}", {"d"}),
        ("[x for x in x]", {"x"}),
        ("[(y := f(x)) for x in xs]\ny", {"f", "xs", "y"}),
        ("(y := 1)\ny", set()),
        ("a and (b := 1)\nb", {"a", "b"}),
        ("f = lambda a, b=c: a + b + d", {"c", "d"}),
        ("def f(a, *b, c=d, **e) -> R:\n    return a, b, c, e, g", {"d", "R", "g"}),
        ("@deco\ndef f(): pass", {"deco"}),
        ("def f():\n    return later\nlater = 1\nf()", {"later"}),
        ("def f():\n    x = 1\n    def g():\n        return x, y\n    return g", {"y"}),
        ("def f():\n    global n\n    n = n + 1", {"n"}),
        ("def f():\n    x = 0\n    def g():\n        nonlocal x\n        x += 1", set()),
        ("class A(B, metaclass=M):\n    x = x\n    y = x\n    def m(self): y, __class__", {"B", "M", "x", "y"}),
        ("class A:\n    xs = [1]\n    ys = [z for x in xs for y in xs]", {"z", "xs"}),
        (MATCH, {"p", "C", "D"}),
        ("f'{a!r:{b}}'", {"a", "b"}),
        ("await f(x)", {"f", "x"}),
        ("async for i in s:\n    pass", {"s"}),
        ("del x", {"x"}),
        ("x = 1\ndel x", set()),
        ("x = 1\ndel x\nx", {"x"}),
        ("(x := 1) if c else y", {"c", "y"}),
        ("try:\n    pass\nexcept* E:\n    a = b", {"E", "b"}),
        ("__name__, __class__", set()),
    ],
)  # fmt: skip
def test_reads(source: str, expected: set[str]) -> None:
    assert reads(source) == expected


@pytest.mark.parametrize(
    ("source", "writes", "rebinds"),
    [
        ("a, (b, *c) = d", {"a", "b", "c"}, {"a", "b", "c"}),
        ("x += 1", {"x"}, {"x"}),
        ("if c:\n    x = 1", {"x"}, set()),
        ("if c:\n    x += 1", {"x"}, {"x"}),
        ("x[0] = x.y = 1", set(), {"x"}),
        ("a, b.c = 1, 2", {"a"}, {"a", "b"}),
        ("xs.append(1)", set(), set()),
        ("del x[0]", set(), {"x"}),
        ("def f():\n    global g\n    g = 1\n    h = 2", {"f", "g"}, {"f"}),
        ("class A:\n    b = 1", {"A"}, {"A"}),
        ("import a.b, c as d\nfrom e import f", {"a", "d", "f"}, {"a", "d", "f"}),
        ("[(y := x) for x in xs]", {"y"}, set()),
        ("with a as b:\n    c = 1", {"b", "c"}, {"b", "c"}),
        ("def f(x):\n    x.y = 1", {"f"}, {"f"}),
        ("try:\n    a = 1\nexcept E as e:\n    pass", {"a", "e"}, set()),
    ],
)
def test_writes(source: str, writes: set[str], rebinds: set[str]) -> None:
    found = run(source)
    assert (found.writes, found.rebinds) == (writes, rebinds)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("y = x", ["x"]),
        ("print(x); x = 1", ["x"]),
        ("x += 1", ["x"]),
        ("b, a", ["b", "a"]),
        ("def f():\n    return x", []),
        ("lambda: x", []),
        ("def f(a=x): pass", ["x"]),
        ("class A:\n    y = x", ["x"]),
        ("[x for _ in range(3)]", ["x"]),
        ("g = (x for _ in range(3))\nx = 1", []),
        ("g = (x for _ in range(3))", ["x"]),
        ("for i in range(3):\n    if i:\n        x\n    x = i", []),
        ("if c:\n    x = 1\nx", ["c"]),
        ("try:\n    x\nexcept NameError:\n    x = 1\nx", []),
        ("try:\n    x\nexcept ValueError:\n    pass", ["x"]),
        ("globals()['x'] = 1\nx", []),
        ("from m import *\nx", []),
        ("from __future__ import annotations\ndef f(a: T): pass", []),
        ("x = 1\ndel x\nx", []),
    ],
)
def test_undefined_names_are_those_that_must_fail(source: str, expected: list[str]) -> None:
    assert missing(source) == expected


def test_a_read_knows_its_place() -> None:
    read = run("x = 1\ny = (x +\n     zeta)").reads["zeta"]
    assert (read.line, read.column) == (3, 5)


@pytest.mark.parametrize(
    ("source", "has_value", "is_silenced"),
    [
        ("x", True, False),
        ("x;", True, True),
        ("f(\n  1\n) ;  # quiet", True, True),
        ("x  # no ; here", True, False),
        ("'a;'", True, False),
        ("'é\x0c'; ", True, True),
        ("x = 1;", False, False),
        ("for i in y:\n    i", False, False),
    ],
)
def test_last_expression(source: str, has_value: bool, is_silenced: bool) -> None:
    found = run(source)
    assert (found.has_value, found.is_silenced) == (has_value, is_silenced)


@pytest.mark.parametrize("source", ["x = = 1", "return 1", "yield 1", "break", "def f(:", "%time x", "!ls", "x = !ls"])
def test_what_the_compiler_refuses_is_a_syntax_error(source: str) -> None:
    with pytest.raises(SyntaxError):
        analyse(source)


# -- against the compiler ----------------------------------------------------------------------------------------------

MODULES = [
    "argparse", "ast", "asyncio.base_events", "bisect", "calendar", "collections", "configparser", "contextlib", "csv",
    "dataclasses", "datetime", "decimal", "difflib", "doctest", "enum", "fractions", "functools", "gettext", "heapq",
    "inspect", "json.decoder", "logging", "optparse", "pathlib", "pickle", "pickletools", "platform", "random",
    "re._parser", "shutil", "socket", "statistics", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "typing", "unittest.mock", "urllib.request", "uuid", "weakref", "zipfile", "turtle",
]  # fmt: skip


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def names_by_operation(code: types.CodeType, *operations: str) -> set[str]:
    return {part.argval for part in dis.get_instructions(code) if part.opname in operations}


def compiled_names(source: str) -> tuple[set[str], set[str]]:
    """Return the global names that the bytecode of *source* reads and writes."""
    module = compile(source, "<m>", "exec", dont_inherit=True)
    read = names_by_operation(module, "LOAD_NAME", "DELETE_NAME")
    written = names_by_operation(module, "STORE_NAME")
    for code in codes(module):
        read |= names_by_operation(code, "LOAD_GLOBAL", "DELETE_GLOBAL")
        written |= names_by_operation(code, "STORE_GLOBAL")
        if code is not module:  # a class body: its own names are not the module's
            read |= names_by_operation(code, "LOAD_NAME") - names_by_operation(code, "STORE_NAME")
    return read - IMPLICIT, written - IMPLICIT


@pytest.mark.parametrize("name", MODULES)
def test_agrees_with_the_compiler(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    read, written = compiled_names(source)
    found = analyse(source)
    assert found.writes - IMPLICIT == written
    assert read - found.reads.keys() <= found.writes, "a name is read, not certainly assigned before, and not shipped"
    assert found.reads.keys() - read <= class_names(source) | unevaluated_names(source)


def class_names(source: str) -> set[str]:
    """Names bound in class bodies: what they mean when read there first depends on the run."""
    return {
        target.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for target in ast.walk(node)
        if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
    }


def unevaluated_names(source: str) -> set[str]:
    """Names in annotations, which ``from __future__ import annotations`` turns into strings."""
    tree = ast.parse(source)
    notes = [getattr(node, field, None) for node in ast.walk(tree) for field in ("annotation", "returns")]
    return {name.id for note in notes if note is not None for name in ast.walk(note) if isinstance(name, ast.Name)}


NAMES = st.sampled_from("abc")
EXPRESSIONS = st.recursive(
    NAMES,
    lambda part: st.one_of(
        st.builds("({} + {})".format, part, part),
        st.builds("[{} for {} in {}]".format, part, NAMES, part),
        st.builds("(lambda {}: {})".format, NAMES, part),
        st.builds("({} if {} else {})".format, part, part, part),
    ),
    max_leaves=6,
)
STATEMENTS = st.recursive(
    st.one_of(
        st.builds("{} = {}".format, NAMES, EXPRESSIONS),
        st.builds("{} += {}".format, NAMES, EXPRESSIONS),
        st.builds("{}".format, EXPRESSIONS),
        st.builds("del {}".format, NAMES),
    ),
    lambda part: st.one_of(
        st.builds("{}\n{}".format, part, part),
        st.builds(lambda test, body: f"if {test}:\n{textwrap.indent(body, ' ')}", EXPRESSIONS, part),
        st.builds(
            lambda name, xs, body: f"for {name} in {xs}:\n{textwrap.indent(body, ' ')}", NAMES, EXPRESSIONS, part
        ),
        st.builds(lambda name, body: f"def {name}():\n{textwrap.indent(body, ' ')}", NAMES, part),
        st.builds(lambda name, body: f"class {name}:\n{textwrap.indent(body, ' ')}", NAMES, part),
    ),
    max_leaves=8,
)


class Recorder(dict[str, object]):
    """A namespace that lends a value to any name of the alphabet and notes what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> object:
        if name in "abc" and name not in self:
            self.asked.add(name)
            return Number()
        return super().__getitem__(name)

    def __delitem__(self, name: str) -> None:
        if name in self:
            super().__delitem__(name)
        else:
            self.asked.add(name)


class Number:
    """Adds up, iterates, and is true."""

    def __add__(self, other: object) -> Number:
        return self

    __radd__ = __add__

    def __iter__(self) -> Iterator[Number]:
        return iter([self])


@given(STATEMENTS)
def test_whatever_a_run_asks_the_notebook_for_was_found(source: str) -> None:
    try:
        found = analyse(source)
    except SyntaxError:
        return
    namespace = Recorder()
    with contextlib.suppress(Exception):  # names that functions look up in the real globals, odd sums
        exec(compile(source, "<m>", "exec"), {"__builtins__": builtins.__dict__, "__name__": "m"}, namespace)
    assert namespace.asked <= found.reads.keys()
