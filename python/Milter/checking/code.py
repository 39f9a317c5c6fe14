"""Functions of a filter as syntax: what they call, store and return, as far as that can be told
without running them. Knows nothing of milters."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = [
    "NOTHING",
    "Code",
    "Function",
    "Store",
    "ancestors",
    "blocks",
    "called_name",
    "calls",
    "first_parameter",
    "goes_past",
    "guarded",
    "is_super",
    "literal",
    "local_names",
    "module_code",
    "outcomes",
    "own",
    "parameters",
    "resolve",
    "starts",
    "stores",
    "walk",
]

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_INNER = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
#: What is not known, where None would be a value.
NOTHING = object()


class Code(NamedTuple):
    """A function of the filter: its source, the file that has it, and the names of its module."""

    node: Function
    file: str
    scope: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name, for messages."""
        return "lambda" if isinstance(self.node, ast.Lambda) else self.node.name


def module_code(file: str, scope: Mapping[str, Any]) -> Code:
    """A function without names of its own, for `resolve` to look at what stands in a module."""
    nothing = ast.arguments([], [], None, [], [], None, [])
    return Code(ast.Lambda(nothing, ast.Constant(None), lineno=1, col_offset=0), file, scope)


class Store(NamedTuple):
    """An attribute of the receiver that gets a value, as `self.NAME = VALUE`.

    value: None where it is not written out, as in a loop or an unpacked call. node: the target.
    """

    name: str
    value: ast.expr | None
    node: ast.Attribute


def starts(node: Function) -> tuple[int, str]:
    """What a code object says of where it begins: line and name."""
    if isinstance(node, ast.Lambda):
        return node.lineno, "<lambda>"
    return min(each.lineno for each in (node, *node.decorator_list)), node.name


def parameters(node: Function) -> list[str]:
    """The names of the positional parameters."""
    return [each.arg for each in (*node.args.posonlyargs, *node.args.args)]


def first_parameter(node: Function) -> str | None:
    """By which name the function knows its object or context."""
    return next(iter(parameters(node)), None)


def _content(node: ast.AST) -> Iterator[ast.AST]:
    """What a function does when it is called: its body, without decorators and defaults."""
    if isinstance(node, ast.Lambda):
        return iter((node.body,))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return iter(node.body)
    return ast.iter_child_nodes(node)


def walk(node: ast.AST, receiver: str | None = None) -> Iterator[ast.AST]:
    """All below a node, inner functions too but for those that mean something else by the
    receiver's name, as `Filter.eom = lambda self: ...` does."""
    for child in _content(node):
        if not isinstance(child, Function) or receiver not in parameters(child):
            yield child
            yield from walk(child, receiver)


def calls(node: ast.AST, receiver: str | None = None) -> Iterator[ast.Call]:
    """All calls that `walk` comes to."""
    return (each for each in walk(node, receiver) if isinstance(each, ast.Call))


def called_name(call: ast.Call) -> str:
    """The last name of what is called: `f` of f(), x.f() and x.y.f()."""
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def is_super(value: ast.expr) -> bool:
    """Whether it is a call of super()."""
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and (
        value.func.id == "super"
    )  # fmt: skip


def own(node: ast.AST) -> Iterator[ast.AST]:
    """What a function consists of, without the functions inside it."""
    for child in _content(node):
        if not isinstance(child, _INNER):
            yield child
            yield from own(child)


def literal(node: ast.AST | None) -> Any:
    """The value of a constant, with its sign; NOTHING for what is no constant."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = literal(node.operand)
        return -value if isinstance(value, int) else NOTHING
    return node.value if isinstance(node, ast.Constant) else NOTHING


def outcomes(value: ast.expr) -> Iterator[ast.expr]:
    """What an expression can come to, of x if y else z both x and z. Of `and` and `or` it is the
    last: the others are there for their truth."""
    if isinstance(value, ast.IfExp):
        yield from outcomes(value.body)
        yield from outcomes(value.orelse)
    elif isinstance(value, ast.BoolOp):
        yield from outcomes(value.values[-1])
    else:
        yield value


@lru_cache(maxsize=256)
def local_names(node: Function) -> frozenset[str]:
    """The names of a function's own: its parameters and what it assigns."""
    arguments = node.args
    named = [*parameters(node), *(each.arg for each in arguments.kwonlyargs)]
    named += [each.arg for each in (arguments.vararg, arguments.kwarg) if each]
    stored = (
        each.id
        for each in own(node)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    )
    return frozenset((*named, *stored))


def resolve(node: ast.AST, code: Code) -> Any:
    """The object that a dotted name of the module stands for; NOTHING if it is local or unknown."""
    if isinstance(node, ast.Name):
        return NOTHING if node.id in local_names(code.node) else code.scope.get(node.id, NOTHING)
    if isinstance(node, ast.Attribute):
        owner = resolve(node.value, code)
        return NOTHING if owner is NOTHING else getattr(owner, node.attr, NOTHING)
    return NOTHING


def stores(node: ast.AST, receiver: str | None) -> Iterator[Store]:
    """The attributes of the receiver that a function gives a value, inner functions included."""
    for each in walk(node, receiver):
        pairs: list[tuple[ast.expr, ast.expr | None]] = []
        if isinstance(each, ast.Assign):
            pairs = [pair for target in each.targets for pair in _unpacked(target, each.value)]
        elif isinstance(each, ast.AnnAssign) and each.value:
            pairs = [(each.target, each.value)]
        elif isinstance(each, ast.For | ast.comprehension):
            pairs = _unpacked(each.target, None)
        elif isinstance(each, ast.With):
            pairs = [(item.optional_vars, None) for item in each.items if item.optional_vars]
        for target, value in pairs:
            if isinstance(target, ast.Attribute) and _is_name(target.value, receiver):
                yield Store(target.attr, value, target)


def _unpacked(target: ast.expr, value: ast.expr | None) -> list[tuple[ast.expr, ast.expr | None]]:
    """Pairs of a single target and its value, of a, b = x, y too."""
    if not isinstance(target, ast.Tuple | ast.List):
        return [(target, value)]
    values: list[ast.expr | None] = [None] * len(target.elts)
    if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
        values = [*value.elts]
    pairs = zip(target.elts, values, strict=True)
    return [pair for one, its in pairs for pair in _unpacked(one, its)]


def _is_name(node: ast.AST, name: str | None) -> bool:
    return isinstance(node, ast.Name) and node.id == name


# --------------------------------------------------------------------------------------- places


@lru_cache(maxsize=256)
def _parents(root: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(root) for child in ast.iter_child_nodes(node)}


def ancestors(node: ast.AST, root: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Pairs of a node that holds the first one, from the inside out, and its child on the way."""
    parents = _parents(root)
    while node is not root and node in parents:
        yield parents[node], node
        node = parents[node]


def guarded(node: ast.AST, root: ast.AST, *names: str) -> bool:
    """Whether it stands in a try: whose handlers catch everything, or one of these exceptions."""
    return any(
        isinstance(each, ast.Try)
        and child in each.body
        and any(_catches(handler.type, names) for handler in each.handlers)
        for each, child in ancestors(node, root)
    )


def _catches(kind: ast.expr | None, names: tuple[str, ...]) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    caught = {getattr(each, "attr", getattr(each, "id", "")) for each in kinds if each}
    return kind is None or bool(caught & {*names, "Exception", "BaseException"})


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements of a function, the outer ones first; not those of functions in it."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block
            for each in block:
                if not isinstance(each, _INNER):
                    yield from blocks(each)
    for inner in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield from blocks(inner)


def goes_past(body: list[ast.stmt]) -> bool:
    """Whether the statements can end without return or raise. A call that never comes back, to
    sys.exit for example, is not known as such."""
    last = body[-1] if body else ast.Pass()
    if isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break):
        return False
    if isinstance(last, ast.If):
        return goes_past(last.body) or goes_past(last.orelse)
    if isinstance(last, ast.With | ast.AsyncWith):
        # A context manager may take an exception, but few do.
        return goes_past(last.body)
    if isinstance(last, ast.Try):
        if last.finalbody and not goes_past(last.finalbody):
            return False
        normal = goes_past(last.orelse if last.orelse else last.body)
        return normal or any(goes_past(each.body) for each in last.handlers)
    if isinstance(last, ast.While):
        endless = isinstance(last.test, ast.Constant) and bool(last.test.value)
        return not endless or any(isinstance(each, ast.Break) for each in own(last))
    if isinstance(last, ast.Match):
        everything = any(
            isinstance(each.pattern, ast.MatchAs)
            and each.pattern.pattern is None
            and not each.guard
            for each in last.cases
        )
        return not everything or any(goes_past(each.body) for each in last.cases)
    return True
