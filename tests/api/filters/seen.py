"""What the filter programs of these tests share: they write down what they saw, one JSON line a
callback, for the test to read. Runs under the older package as well as under ours."""

from __future__ import annotations

import json
import os
import sys  # noqa: F401 (for the programs)
import threading
from typing import Any

import Milter
import milter

_file = open(os.environ["RECORD"], "a", buffering=1)  # noqa: SIM115 (open until the program ends)
_lock = threading.Lock()


def plain(value: Any) -> Any:
    """A value as JSON; bytes and tuples keep their type."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[plain(key), plain(item)] for key, item in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {"object": type(value).__name__}


def record(*what: Any) -> None:
    line = json.dumps(plain(what)) + "\n"
    with _lock:
        _file.write(line)


def attempt(call: Any, *args: Any, **keywords: Any) -> tuple[str, Any]:
    """What a call gives: ("ok", its value) or (the exception's name, its text)."""
    try:
        return ("ok", call(*args, **keywords))
    except Exception as error:
        return (type(error).__name__, str(error))


class Seen(Milter.Base):
    """Writes down every callback with its arguments and goes on."""

    def _see(self, step: str, *args: Any) -> int:
        record(step, *args)
        return Milter.CONTINUE

    def connect(self, hostname: str, family: int, hostaddr: Any) -> int:
        return self._see("connect", hostname, family, hostaddr)

    def hello(self, hostname: str) -> int:
        return self._see("hello", hostname)

    def envfrom(self, f: str, *params: str) -> int:
        return self._see("envfrom", f, *params)

    def envrcpt(self, to: str, *params: str) -> int:
        return self._see("envrcpt", to, *params)

    def data(self) -> int:
        return self._see("data")

    def header(self, field: str, value: str) -> int:
        return self._see("header", field, value)

    def eoh(self) -> int:
        return self._see("eoh")

    def body(self, chunk: bytes) -> int:
        return self._see("body", chunk)

    def unknown(self, cmd: str) -> int:
        return self._see("unknown", cmd)

    def eom(self) -> int:
        return self._see("eom")

    def abort(self) -> int:
        return self._see("abort")

    def close(self) -> int:
        return self._see("close")


def _lowlevel(name: str, socketname: str, timeout: int = 0, rmsock: bool = True) -> None:
    """Serves by the module's functions alone, with the objects that Milter.factory makes."""

    def method(step: str) -> Any:
        return lambda ctx, *args: getattr(ctx.getpriv(), step)(*args)

    for step, call in (
        ("connect", Milter.connect_callback),
        ("helo", method("hello")),
        ("envfrom", method("envfrom_bytes")),
        ("envrcpt", method("envrcpt_bytes")),
        ("header", method("header_bytes")),
        ("eoh", method("eoh")),
        ("body", method("body")),
        ("eom", method("eom")),
        ("abort", method("abort")),
        ("close", Milter.close_callback),
    ):
        getattr(milter, f"set_{step}_callback")(call)
    milter.register(
        name,
        unknown=method("unknown"),
        data=method("data"),
        negotiate=Milter.negotiate_callback,
    )
    milter.setconn(socketname)
    if timeout:
        milter.settimeout(timeout)
    milter.opensocket(rmsock)
    milter.main()


def serve(**keywords: Any) -> Any:
    """What the program calls instead of Milter.runmilter: the way that the test is about."""
    if os.environ["WAY"] == "lowlevel":
        return _lowlevel(**keywords)
    return Milter.runmilter(**keywords)


def run(factory: Any, **keywords: Any) -> None:
    """Serves `factory` on the test's socket until the program is stopped."""
    Milter.factory = factory
    result = serve(name="testfilter", socketname=os.environ["SOCKET"], **keywords)
    record("ended", result)
