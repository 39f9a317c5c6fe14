"""A filter that does what it is told: it reports each callback with its arguments on a socket,
makes the calls that come back, and returns the verdict that ends them. See play.py for the other
end. Runs on the older package as well as on ours, by the module's functions or by a class.

Usage: scripted.py SOCKET CONTROL WAY STEP...
WAY is functions or class; the steps are the callbacks that there are.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import Milter
import milter

SOCKET, CONTROL, WAY, *STEPS = sys.argv[1:]

control = socket.socket(socket.AF_UNIX)
stream = control.makefile("rwb")


def to_bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return str(value).encode()


def put(*fields: Any) -> None:
    stream.write(b"%d\n" % len(fields))
    for value in map(to_bytes, fields):
        stream.write(b"-1\n" if value is None else b"%d\n%b" % (len(value), value))
    stream.flush()


def get() -> list[Any]:
    """What to do: its name, then arguments as str."""
    fields: list[Any] = []
    for _ in range(int(stream.readline())):
        length = int(stream.readline())
        fields.append(
            None if length < 0 else stream.read(length).decode("utf-8", "surrogateescape")
        )
    return fields


def make(ctx: Any, call: str, args: list[Any]) -> Any:
    """Makes one call; returns what is to be reported."""
    try:
        if call == "getsymval":
            return ctx.getsymval(args[0])
        if call == "insheader":
            index, name, value = args
            ctx.addheader(name, value, int(index))
        elif call == "chgheader":
            name, index, value = args
            ctx.chgheader(name, int(index), value)
        elif call == "setsymlist":
            stage, names = args
            ctx.setsymlist(int(stage), names)
        elif call == "addrcpt_par":
            ctx.addrcpt(*args)
        elif call == "setmlreply":
            ctx.setreply(*args)
        elif call == "replacebody":
            ctx.replacebody(args[0].encode("utf-8", "surrogateescape"))
        else:
            getattr(ctx, call)(*args)
    except milter.error:
        return "fails"
    except Exception as error:
        return type(error).__name__
    return "ok"


def serve(ctx: Any, step: str, *args: Any, options: Any = None) -> int:
    put(step, *args)
    while True:
        call, *rest = get()
        if call != "return":
            put(make(ctx, call, rest))
            continue
        if options is not None and len(rest) == 3:
            options[0:2] = map(int, rest[1:])
        return int(rest[0])


def address(family: int, hostaddr: Any) -> str | None:
    if family == socket.AF_INET:
        return f"{hostaddr[0]}:{hostaddr[1]}"
    if family == socket.AF_INET6:
        return f"[{hostaddr[0]}]:{hostaddr[1]}"
    return hostaddr


def on_connect(ctx: Any, host: str, family: int, hostaddr: Any) -> int:
    return serve(ctx, "connect", host, address(family, hostaddr))


def on_negotiate(ctx: Any, options: list[int]) -> int:
    return serve(ctx, "negotiate", *options, options=options)


def on(step: str) -> Any:
    return lambda ctx, *args: serve(ctx, step, *args)


CALLBACKS = {step: on(step) for step in STEPS}
for special in (on_connect, on_negotiate):
    name = special.__name__[3:]
    if name in STEPS:
        CALLBACKS[name] = special


def serve_functions() -> None:
    later = ("unknown", "data", "negotiate")
    for step, callback in CALLBACKS.items():
        if step not in later:
            getattr(milter, f"set_{step}_callback")(callback)
    milter.register("scripted", **{step: CALLBACKS.get(step) for step in later})
    milter.setconn(SOCKET)
    milter.opensocket(True)
    milter.main()


def serve_class() -> None:
    def method(callback: Any) -> Any:
        return lambda self, *args: callback(self._ctx, *args)

    methods: dict[str, Any] = {
        "hello" if step == "helo" else step: method(callback)
        for step, callback in CALLBACKS.items()
    }
    Milter.factory = type("Scripted", (Milter.Base,), methods)
    Milter.runmilter("scripted", SOCKET)


control.connect(CONTROL)
serve_functions() if WAY == "functions" else serve_class()
