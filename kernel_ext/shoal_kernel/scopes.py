"""Python's scoping rules: which names of a cell mean the notebook's variables.

A function's local names stop there, everything else ends in the module scope, which is the notebook. What is
evaluated at once (statements, comprehensions, class bodies, defaults, decorators) is told apart from what runs when
called (bodies of functions and lambdas), because only the former can fail before the cell has defined the name.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
from collections.abc import Iterable, Iterator

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Runs(enum.Enum):
    """When the code of a scope runs."""

    AT_ONCE = "at once"
    WHEN_CALLED = "when called"
    #: A generator expression: soon, but not before the next statement for certain.
    WHEN_CONSUMED = "when consumed"


@dataclasses.dataclass
class Scope:
    """One function, class body or comprehension inside the cell; the module scope is not a ``Scope``."""

    #: Names bound here. A function's are known from the start, a class body's as it goes.
    bound: set[str]
    #: Names declared ``global`` here.
    globals: set[str] = dataclasses.field(default_factory=set)
    #: A class body: its names are invisible to the functions inside.
    is_class: bool = False
    runs: Runs = Runs.AT_ONCE


def resolves_to_module(name: str, chain: list[Scope]) -> bool:
    """Tell whether *name*, used in the innermost scope of *chain*, means a variable of the module."""
    for depth, scope in enumerate(reversed(chain)):
        if name in scope.globals:
            return True
        if name in scope.bound and (depth == 0 or not scope.is_class):
            return False
    return True


def bindings(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
    """Return the names bound in *nodes* (without nested scopes) and those declared ``global`` there."""
    found: set[str] = set()
    declared: set[str] = set()
    outer: set[str] = set()
    for node in walk_scope(nodes):
        match node:
            case ast.Global(names=names):
                declared.update(names)
            case ast.Nonlocal(names=names):
                outer.update(names)
            case _:
                found.update(bound_by(node))
    return found - declared - outer, declared


def bound_by(node: ast.AST) -> Iterator[str]:
    """Yield the names that this one node binds, not those of its children."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
        case ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases if alias.name != "*")
        case ast.ExceptHandler(name=str(name)):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name


def walk_scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield *nodes* and what is below them in the same scope, walrus targets of comprehensions too."""
    todo = list(nodes)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, COMPREHENSIONS):
            todo.append(node.generators[0].iter)
            todo.extend(_walrus_targets(node))
        elif isinstance(node, FUNCTIONS):
            todo.extend(function_header(node))
        elif isinstance(node, ast.ClassDef):
            todo.extend([*node.decorator_list, *node.bases, *(word.value for word in node.keywords)])
        else:
            todo.extend(ast.iter_child_nodes(node))


def _walrus_targets(node: ast.AST) -> Iterator[ast.Name]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.NamedExpr):
            yield child.target
        if not isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            yield from _walrus_targets(child)


def parameters(arguments: ast.arguments) -> set[str]:
    """Return the names of all parameters."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    return {argument.arg for argument in every}


def function_header(node: FunctionNode) -> list[ast.expr]:
    """Return what is evaluated when the function is defined, without annotations."""
    defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
    return defaults if isinstance(node, ast.Lambda) else [*node.decorator_list, *defaults]


def signature_annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    """Return the annotations of parameters and result."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    found = [argument.annotation for argument in every if argument.annotation is not None]
    return found if node.returns is None else [*found, node.returns]


def type_parameters(node: ast.AST) -> list[ast.AST]:
    """Return the type parameters of Python 3.12's ``def f[T]`` and ``class C[T]``."""
    return list(getattr(node, "type_params", ()))
