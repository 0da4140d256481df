"""One pass over a cell's syntax tree, in order of evaluation: what is read, what is bound, and what is certain."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from shoal_kernel import scopes
from shoal_kernel.scopes import Comprehension, FunctionNode, Runs, Scope

#: Names every module or class body has, or that the compiler makes.
IMPLICIT = frozenset(
    {"__annotations__", "__builtins__", "__class__", "__debug__", "__doc__", "__loader__", "__module__", "__name__"}
    | {"__package__", "__qualname__", "__spec__"}
)
#: Calls after which any name may exist.
_NAMESPACE_CALLS = frozenset({"globals", "locals", "exec", "eval"})
_NAME_ERRORS = frozenset({"NameError", "UnboundLocalError", "Exception", "BaseException"})


@dataclasses.dataclass(frozen=True)
class Read:
    """The first place where a cell reads a name of the notebook."""

    name: str
    #: Position in the source given to :func:`analyse`: lines from 1, columns (UTF-8 bytes) from 0.
    line: int
    column: int
    #: Whether the cell cannot run without it: read at once, not assigned before, its absence not handled.
    is_required: bool


class Visit:
    """One pass over a module. ``definite`` and ``maybe`` hold the module's names bound so far."""

    def __init__(self, lazy_annotations: bool) -> None:
        self.definite: set[str] = set()
        self.maybe: set[str] = set()
        self.rebinds: set[str] = set()
        self.star_imports: list[str] = []
        self.is_dynamic = False
        self._reads: dict[str, Read] = {}
        #: Names whose required reading is in a generator expression.
        self._in_generator: set[str] = set()
        self._chain: list[Scope] = []
        #: Depth of code in which a missing name is handled, and of code that may not run.
        self._lenient = 0
        self._conditional = 0
        self._lazy_annotations = lazy_annotations

    def settled_reads(self) -> dict[str, Read]:
        """A generator's body runs later: what the cell assigns anywhere is not missing there."""
        forgiven = self._in_generator & self.maybe
        return {
            name: dataclasses.replace(read, is_required=read.is_required and name not in forgiven)
            for name, read in self._reads.items()
        }

    # -- names -----------------------------------------------------------------------------------------------

    def read(self, name: str, node: ast.expr) -> None:
        if name in IMPLICIT or name in self.definite or not scopes.resolves_to_module(name, self._chain):
            return
        runs = {scope.runs for scope in self._chain}
        required = not (self._lenient or Runs.WHEN_CALLED in runs or name in self.maybe)
        before = self._reads.get(name)
        if before is None or (required and not before.is_required):
            self._reads[name] = Read(name, node.lineno, node.col_offset, required)
            if required and Runs.WHEN_CONSUMED in runs:
                self._in_generator.add(name)

    def bind(self, name: str) -> None:
        scope = self._chain[-1] if self._chain else None
        if scope is not None and scope.is_class and name not in scope.globals:
            scope.bound.add(name)
        elif scopes.resolves_to_module(name, self._chain):
            self.maybe.add(name)
            if scope is None:
                self.definite.add(name)
                if not self._conditional:
                    self.rebinds.add(name)

    def change(self, target: ast.expr) -> None:
        """An assignment to *target* changes the variable it starts from."""
        while isinstance(target, (ast.Attribute, ast.Subscript, ast.Starred)):
            target = target.value
        if isinstance(target, (ast.Tuple, ast.List)):
            for part in target.elts:
                if not isinstance(part, ast.Name):
                    self.change(part)
        elif isinstance(target, ast.Name) and not self._chain:
            self.rebinds.add(target.id)

    # -- nodes, in order of evaluation -----------------------------------------------------------------------

    def block(self, body: Iterable[ast.AST]) -> None:
        for node in body:
            self.node(node)

    def node(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                self.read(name, node)
            case ast.Name(id=name, ctx=ast.Del()):
                self.read(name, node)
                self.definite.discard(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node)
                self.bind(node.name)
            case ast.Lambda():
                self._function(node)
            case ast.ClassDef():
                self._class(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node)
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign() | ast.Delete() | ast.NamedExpr():
                self._assignment(node)
            case ast.BoolOp(values=[first, *others]):
                self.node(first)
                with self._tentative():
                    self.block(others)
            case ast.IfExp():
                self.node(node.test)
                self._branches([[node.body], [node.orelse]])
            case ast.If():
                self.node(node.test)
                self._branches([node.body, node.orelse])
            case ast.For() | ast.AsyncFor() | ast.While():
                self._loop(node)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.With() | ast.AsyncWith():
                self._with(node)
            case ast.Match():
                self._match(node)
            case _:
                self._other(node)

    def _other(self, node: ast.AST) -> None:
        match node:
            case ast.ImportFrom(module=module, names=[ast.alias(name="*")]):
                self.star_imports.append("." * node.level + (module or ""))
                self.is_dynamic = True
            case ast.Call(func=ast.Name(id=called)) if called in _NAMESPACE_CALLS:
                self.is_dynamic = True
        for child in ast.iter_child_nodes(node):
            self.node(child)
        for name in scopes.bound_by(node):
            self.bind(name)

    def _assignment(self, node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete | ast.NamedExpr) -> None:
        match node:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                value = node.value if isinstance(node, ast.Assign) else None
            case _:
                value, targets = node.value, [node.target]
        if isinstance(node, ast.AugAssign):
            self.change(node.target)
            if isinstance(node.target, ast.Name):
                self.read(node.target.id, node.target)
        if value is not None:
            self.node(value)
        if isinstance(node, ast.AnnAssign):
            if not any(scope.runs is Runs.WHEN_CALLED for scope in self._chain):
                self._annotations([node.annotation])
            if value is None and isinstance(node.target, ast.Name):
                return
        for target in targets:
            if not isinstance(target, ast.Name):
                self.change(target)
            self.node(target)

    # -- scopes ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _inside(self, scope: Scope) -> Iterator[None]:
        self._chain.append(scope)
        try:
            yield
        finally:
            self._chain.pop()

    def _annotations(self, nodes: Iterable[ast.AST]) -> None:
        self._lenient += self._lazy_annotations
        self.block(nodes)
        self._lenient -= self._lazy_annotations

    def _function(self, node: FunctionNode) -> None:
        self.block(scopes.function_header(node))
        type_names = scopes.type_parameters(node)
        with self._inside(Scope({name for part in type_names for name in scopes.bound_by(part)})):
            body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
            if not isinstance(node, ast.Lambda):
                self._annotations(scopes.signature_annotations(node))
            bound, declared = scopes.bindings(body)
            with self._inside(Scope(bound | scopes.parameters(node.args), declared, runs=Runs.WHEN_CALLED)):
                self.block(type_names)
                self.block(body)

    def _class(self, node: ast.ClassDef) -> None:
        self.block(node.decorator_list)
        type_names = scopes.type_parameters(node)
        with self._inside(Scope({name for part in type_names for name in scopes.bound_by(part)})):
            self.block([*node.bases, *node.keywords])
            _, declared = scopes.bindings(node.body)
            with self._inside(Scope(set(), declared, is_class=True)):
                self.block(node.body)
        self.bind(node.name)

    def _comprehension(self, node: Comprehension) -> None:
        self.node(node.generators[0].iter)
        bound, _ = scopes.bindings(part.target for part in node.generators)
        runs = Runs.WHEN_CONSUMED if isinstance(node, ast.GeneratorExp) else Runs.AT_ONCE
        with self._inside(Scope(bound, runs=runs)):
            for number, part in enumerate(node.generators):
                if number:
                    self.node(part.iter)
                self.node(part.target)
                self.block(part.ifs)
            self.block([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

    # -- flow ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _tentative(self) -> Iterator[None]:
        """Code that may not run, or not to its end: what it binds is not definite after it."""
        before = set(self.definite)
        self._conditional += 1
        try:
            yield
        finally:
            self._conditional -= 1
            self.definite = before

    def _branches(self, branches: Sequence[Sequence[ast.AST]]) -> None:
        """Exactly one of *branches* runs."""
        ends: list[set[str]] = []
        for body in branches:
            with self._tentative():
                self.block(body)
                if not (body and isinstance(body[-1], (ast.Raise, ast.Return, ast.Continue, ast.Break))):
                    ends.append(self.definite)
        if ends:
            self.definite = set.intersection(*ends)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        self.node(node.test if isinstance(node, ast.While) else node.iter)
        bound, _ = scopes.bindings(node.body)
        with self._tentative():
            if not self._chain:
                self.maybe |= bound  # by an earlier turn
            if not isinstance(node, ast.While):
                self.node(node.target)
            self.block(node.body)
        with self._tentative():
            self.block(node.orelse)

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        before = set(self.definite)
        lenient = any(_catches_name_error(handler) for handler in node.handlers)
        with self._tentative():
            self._lenient += lenient
            self.block(node.body)
            self._lenient -= lenient
            self.block(node.orelse)
            ends = [self.definite]
        for handler in node.handlers:
            with self._tentative():
                self.definite = set(before)
                self.block([] if handler.type is None else [handler.type])
                if handler.name:
                    self.bind(handler.name)
                self.block(handler.body)
                self.definite.discard(handler.name or "")
                if not isinstance(handler.body[-1], (ast.Raise, ast.Return, ast.Continue, ast.Break)):
                    ends.append(self.definite)
        self.definite = before
        self.block(node.finalbody)
        self.definite |= set.intersection(*ends)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        self.block(node.items)
        if any(_swallows_errors(item.context_expr) for item in node.items):
            with self._tentative():
                self.block(node.body)
        else:
            self.block(node.body)

    def _match(self, node: ast.Match) -> None:
        self.node(node.subject)
        cases: list[list[ast.AST]] = []
        for case in node.cases:
            guard = [] if case.guard is None else [case.guard]
            cases.append([case.pattern, *guard, *case.body])
        last = node.cases[-1]
        always_matches = last.guard is None and isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        self._branches(cases if always_matches else [*cases, []])


def _catches_name_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in _NAME_ERRORS for kind in types)


def _swallows_errors(manager: ast.expr) -> bool:
    """Tell whether *manager* looks like ``contextlib.suppress(…)``."""
    if not isinstance(manager, ast.Call):
        return False
    function = manager.func
    return (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) == "suppress"
