"""Decorators for callbacks and their classes, and the tables of which callbacks there are.

They only mark: what the marks mean is read from the class when a connection is negotiated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import milter

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

#: Callbacks that an MTA can leave out: name -> (no-reply bit, do-not-send bit).
OPTIONAL_CALLBACKS: dict[str, tuple[int, int]] = {
    "connect": (milter.P_NR_CONN, milter.P_NOCONNECT),
    "hello": (milter.P_NR_HELO, milter.P_NOHELO),
    "envfrom": (milter.P_NR_MAIL, milter.P_NOMAIL),
    "envrcpt": (milter.P_NR_RCPT, milter.P_NORCPT),
    "data": (milter.P_NR_DATA, milter.P_NODATA),
    "unknown": (milter.P_NR_UNKN, milter.P_NOUNKNOWN),
    "header": (milter.P_NR_HDR, milter.P_NOHDRS),
    "eoh": (milter.P_NR_EOH, milter.P_NOEOH),
    "body": (milter.P_NR_BODY, milter.P_NOBODY),
}

#: Callbacks that macros can be asked for: name -> stage of the macro list.
MACRO_CALLBACKS: dict[str, int] = {
    "connect": milter.M_CONNECT,
    "hello": milter.M_HELO,
    "envfrom": milter.M_ENVFROM,
    "envrcpt": milter.M_ENVRCPT,
    "data": milter.M_DATA,
    "eom": milter.M_EOM,
    "eoh": milter.M_EOH,
}

#: What @decode takes.
_STRATEGIES = ("bytes", "strict", "ignore", "replace", "surrogateescape")

#: What a function's bits for negotiation are kept under.
MARK = "milter_protocol"
#: What a @noreply function's original is kept under, together with the function itself.
INNER = "_milterkit_inner"


def _bits_of(func: Callable[..., Any], decorator: str) -> tuple[int, int]:
    """Return the bits of an optional callback, or raise ValueError."""
    name = func.__name__.removesuffix("_bytes")
    if name not in OPTIONAL_CALLBACKS:
        raise ValueError(f"@{decorator} applied to non-optional method: {func.__name__}")
    return OPTIONAL_CALLBACKS[name]


def _mark(func: Callable[..., Any], bits: int) -> None:
    setattr(func, MARK, getattr(func, MARK, 0) | bits)


def noreply(func: F) -> F:
    """Declare that a callback never has anything to answer but CONTINUE.

    The MTA then sends the step without waiting for a reply, where it can. If the callback returns
    something else all the same, RuntimeError is raised and the exception policy applies. Raises
    ValueError for a method that is no optional callback. Protocol sheet 2.3, 3.5.
    """
    no_reply, _ = _bits_of(func, "noreply")

    @wraps(func)
    def wrapper(self: Any, *args: Any) -> Any:
        result = func(self, *args)
        if not self._protocol & no_reply:
            return result
        if result != milter.CONTINUE:
            raise RuntimeError(f"{func.__name__} return code must be CONTINUE with @noreply")
        return milter.NOREPLY

    _mark(wrapper, no_reply)
    setattr(wrapper, INNER, (wrapper, func))
    return cast(F, wrapper)


def nocallback(func: F) -> F:
    """Declare that a callback is not to be called: the MTA does not send its step.

    For a subclass that wants less than its parent. Raises ValueError for a method that is no
    optional callback. Protocol sheet 2.3.
    """
    _, no_send = _bits_of(func, "nocallback")

    @wraps(func)
    def wrapper(*args: Any) -> Any:
        return func(*args)

    _mark(wrapper, no_send)
    return cast(F, wrapper)


def decode(strategy: str) -> Callable[[F], F]:
    """Choose how envfrom, envrcpt or header get their text.

    strategy: 'bytes' passes bytes; 'strict' passes str, or bytes where the value is not UTF-8;
    'ignore', 'replace' and 'surrogateescape' (the default) pass str by that error handler. Raises
    ValueError for any other one, the name of an encoding for example.
    """
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"@decode({strategy!r}): it must be 'bytes', 'strict', 'ignore', 'replace' or "
            "'surrogateescape'; all but 'bytes' decode UTF-8"
        )

    def decorate(func: F) -> F:
        func.error_strategy = strategy  # type: ignore[attr-defined]
        return func

    return decorate


def symlist(*names: str) -> Callable[[F], F]:
    """Ask the MTA for macros at a callback's step, besides those that MTAs send there anyway.

    names: as the MTA writes them, "i" or "{auth_authen}". Raises ValueError for a method whose
    step has no macros. Protocol sheet 2.6.
    """

    def decorate(func: F) -> F:
        if func.__name__ not in MACRO_CALLBACKS:
            raise ValueError(f"@symlist applied to non-symlist method: {func.__name__}")
        func._symlist = names  # type: ignore[attr-defined]
        return func

    return decorate


def symlists(methods: object) -> dict[str, tuple[str, ...]]:
    """Return what the methods of a class ask for by @symlist: names of macros by callback."""
    found = {
        name: getattr(getattr(methods, name, None), "_symlist", None) for name in MACRO_CALLBACKS
    }
    return {name: names for name, names in found.items() if names is not None}


def enable_protocols(klass: C, mask: int) -> C:
    """Let a class ask for protocol options that are off by default; returns the class.

    mask: P_RCPT_REJ, P_HDR_LEADSPC or both.
    """
    klass._enabled_protocols = getattr(klass, "_enabled_protocols", 0) | mask  # type: ignore[attr-defined]
    return klass


def rejected_recipients(klass: C) -> C:
    """Class decorator: let envrcpt see recipients that the MTA has rejected itself, too.

    They have the macro {rcpt_mailer} = "error". Protocol sheet 2.7, RCPT_REJ.
    """
    return enable_protocols(klass, milter.P_RCPT_REJ)


def header_leading_space(klass: C) -> C:
    """Class decorator: let header values keep the space after the colon.

    Values that the filter adds or changes then need their own. Protocol sheet 2.7, HDR_LEADSPC.
    """
    return enable_protocols(klass, milter.P_HDR_LEADSPC)
