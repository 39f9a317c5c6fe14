"""What a program's file says of how it is served, by its source alone: the socket, and what it does
before it serves that loading it as a module leaves out."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from Milter.checking.code import called_name

__all__ = ["socket_of", "undone"]

#: Where a socket's specification stands: function -> its place among the arguments.
_SOCKET_IN = {"runmilter": 1, "setconn": 0, "Server": 1}
#: Calls that whoever serves a class does without, or does himself.
_SERVING = {
    "runmilter", "setconn", "opensocket", "main", "set_flags", "settimeout", "setbacklog",
    "set_exception_policy", "Server", "serve_forever", "start", "join", "setdbg", "register",
    "print", "flush", "exit", "basicConfig", "getLogger", "setLevel", "info", "debug",
    "set_connect_callback", "set_close_callback",
}  # fmt: skip
_CONTAINERS = (ast.If, ast.Try, ast.With)


def socket_of(tree: ast.Module, scope: Mapping[str, Any]) -> str | None:
    """The specification that a file gives to runmilter, setconn or Server; the last one, if it has
    several; None if there is none that can be read off. scope: the module's names."""
    found = None
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        at = _SOCKET_IN.get(called_name(call))
        if at is not None:
            named = [each.value for each in call.keywords if each.arg in ("socketname", "socket")]
            for value in (*call.args[at : at + 1], *named):
                found = _text(value, tree, scope) or found
    return found


def _text(value: ast.expr, tree: ast.Module, scope: Mapping[str, Any]) -> str | None:
    """A text that is written out, there or where its name gets it."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if not isinstance(value, ast.Name):
        return None
    for each in ast.walk(tree):
        targets = each.targets if isinstance(each, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == value.id for target in targets):
            given = each.value if isinstance(each, ast.Assign) else value
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                return given.value
    known = scope.get(value.id)
    return known if isinstance(known, str) else None


def undone(tree: ast.Module) -> list[tuple[int, str]]:
    """Lines, with their text, of what the file does under `if __name__ == "__main__":` besides
    choosing the filter and serving it; its own functions that are called there are looked into."""
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    return [
        (node.lineno, ast.unparse(node).split("\n")[0])
        for block in tree.body
        if isinstance(block, ast.If) and _is_main(block.test)
        for node in _doing_more(block.body, functions, set())
    ]


def _is_main(test: ast.expr) -> bool:
    return ast.unparse(test) in ("__name__ == '__main__'", "'__main__' == __name__")


def _doing_more(
    body: Sequence[ast.stmt], functions: Mapping[str, ast.FunctionDef], seen: set[str]
) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, _CONTAINERS):
            parts = [node.body, *(getattr(node, name, []) for name in ("orelse", "finalbody"))]
            for part in parts:
                yield from _doing_more(part, functions, seen)
        elif isinstance(node, ast.Expr | ast.Return | ast.Assign):
            call = node.value
            name = called_name(call) if isinstance(call, ast.Call) else ""
            if name in functions and isinstance(call, ast.Call) and name not in seen:
                seen.add(name)
                yield from _doing_more(functions[name].body, functions, seen)
            elif not _is_of_serving(node, name):
                yield node
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Pass | ast.FunctionDef):
            yield node


def _is_of_serving(node: ast.Expr | ast.Return | ast.Assign, name: str) -> bool:
    """Whether a statement only tells what to serve, where and how; or does nothing."""
    if name:
        return name in _SERVING
    if isinstance(node, ast.Assign):  # of the factory, of a name for the socket
        return all(not isinstance(each, ast.Call) for each in ast.walk(node.value))
    return isinstance(node, ast.Return) or isinstance(node.value, ast.Constant)
