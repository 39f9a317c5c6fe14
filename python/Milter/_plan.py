"""How the engine calls the objects of a class: read once from the class, never from an object.

Called is the method of the name, as it is at that moment: programs give objects callbacks of their
own (`self.eom = self.eom_of_trusted`), and change classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from ._base import Base, _marks_of
from ._decorators import INNER, OPTIONAL_CALLBACKS

#: Methods in the order of the engine's steps (enum mkit_step).
METHODS = (
    "connect",
    "hello",
    "envfrom",
    "envrcpt",
    "data",
    "header",
    "eoh",
    "body",
    "eom",
    "unknown",
    "abort",
    "close",
    "negotiate",
)
#: Methods that do nothing as long as they are Base's own.
_EMPTY_IN_BASE = ("eom", "abort", "close")

#: A method's name, or a function that takes the object first; its no-reply bit; how its text is
#: decoded.
Entry = tuple[str | Callable[..., Any], int, str]


def _lookup(klass: type, name: str) -> Any:
    return inspect.getattr_static(klass, name, None)


def _call(name: str, attribute: Any) -> str | Callable[..., Any]:
    """Return what to call for a class's attribute of that name: of a @noreply method what it wraps,
    since the engine itself does what the wrapper does."""
    wrapper, inner = getattr(attribute, INNER, (None, None))
    return inner if wrapper is attribute and isinstance(inner, FunctionType) else name


def _entry(klass: type, name: str) -> Entry | None:
    attribute = _lookup(klass, name)
    bytes_attribute = _lookup(klass, f"{name}_bytes")
    called, strategy = name, getattr(attribute, "error_strategy", "surrogateescape")
    if bytes_attribute is not None and bytes_attribute is not _lookup(Base, f"{name}_bytes"):
        called, attribute, strategy = f"{name}_bytes", bytes_attribute, "bytes"
    if attribute is None or (name in _EMPTY_IN_BASE and attribute is _lookup(Base, name)):
        return None
    no_reply, no_send = OPTIONAL_CALLBACKS.get(name, (0, 0))
    marks = _marks_of(klass, name)
    if marks & no_send:
        return None
    return _call(called, attribute), marks & no_reply, strategy


def plan(klass: type) -> list[Entry | None]:
    """Return for each step how it is called on objects of a class; None where it is not."""
    return [_entry(klass, name) for name in METHODS]
