"""A program for the older package and for ours: drives a filter through Milter.testctx and
Milter.test as plans say, and prints what happened. Plans come as JSON on stdin."""

from __future__ import annotations

import functools
import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import Milter
from Milter.test import TestBase
from Milter.testctx import TestCtx

RECORDS = (
    "_reply", "_addrcpt", "_delrcpt", "_body", "_bodyreplaced", "_headerschanged", "_msg",
    "_envfromchanged", "_sender", "_symlist",
)  # fmt: skip
plan: dict[str, Any] = {}
seen: list[Any] = []


def plain(value: Any) -> Any:
    """For JSON; line ends are LF, as the older package has them everywhere."""
    if isinstance(value, BytesIO):
        return plain(value.getvalue())
    if isinstance(value, bytes):
        return value.decode("latin-1").replace("\r\n", "\n")
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("latin-1").replace("\r\n", "\n")
    if hasattr(value, "items"):
        return [[name, plain(str(text))] for name, text in value.items()]
    if isinstance(value, set):
        return sorted(map(plain, value))
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def told(name: str, *args: Any) -> Any:
    """Notes a callback, does what is planned there, and answers."""
    seen.append([name, plain(args)])
    if name in plan.get("visible", ()):
        values = [told.filter.getsymval(macro) for macro in plan["macros"]]  # type: ignore[attr-defined]
        seen.append(["macros", values])
    for action, *values in plan.get("actions", {}).get(name, ()):
        try:
            getattr(told.filter, action)(*values)  # type: ignore[attr-defined]
        except (Milter.error, OSError, RuntimeError):
            seen.append([action, "refused"])
    return plan.get("answers", {}).get(name, Milter.CONTINUE)


class Filter(Milter.Base):
    """Notes what it is told."""

    def connect(self, hostname: str, family: int, hostaddr: Any) -> Any:
        told.filter = self  # type: ignore[attr-defined]
        address = hostaddr if isinstance(hostaddr, str) else hostaddr[0]
        return told("connect", hostname, address)  # the older mixin has any family

    def hello(self, hostname: str) -> Any:
        return told("hello", hostname)

    def envfrom(self, f: str, *params: str) -> Any:
        return told("envfrom", f, *params)

    def envrcpt(self, to: str, *params: str) -> Any:
        return told("envrcpt", to, *params)

    def data(self) -> Any:
        return told("data")

    def header(self, field: str, value: str) -> Any:
        return told("header", field, value)

    def eoh(self) -> Any:
        return told("eoh")

    def body(self, blk: bytes) -> Any:
        return told("body", blk)

    def eom(self) -> Any:
        return told("eom", self.getsymval("i"), self.getsymval("{mail_addr}"))

    def abort(self) -> Any:
        return told("abort")

    def close(self) -> Any:
        return told("close")


class Quiet(Filter):
    """Leaves most out."""

    hello = Milter.Base.hello
    data = Milter.Base.data
    header = Milter.Base.header
    body = Milter.Base.body


def asking(klass: type, lists: dict[str, list[str]]) -> type:
    """A filter that asks for macros by @symlist: by callback, their names."""

    def marked(name: str, names: list[str]) -> Any:
        method = getattr(klass, name)

        @functools.wraps(method)
        def own(self: Any, *args: Any) -> Any:
            return method(self, *args)

        return Milter.symlist(*names)(own)

    return type("Asking", (klass,), {name: marked(name, names) for name, names in lists.items()})


def drive(log: str) -> Any:
    """One plan through the context or the mixin."""
    seen.clear()
    quiet = plan.get("quiet", False)
    klass: Any = asking(Quiet if quiet else Filter, plan.get("symlist", {}))
    Milter.factory = klass
    if plan["mixin"]:
        at: Any = type("Mixed", (TestBase, klass), {})(log)
        names = ("setsymval", "connect", "feedFile")
    else:
        at = TestCtx(log)
        names = ("_setsymval", "_connect", "_feedFile")
    set_macro, connect, feed = (getattr(at, name) for name in names)
    results: list[Any] = []
    try:
        for name, value in plan.get("macros", {}).items():
            set_macro(name, value)
        results.append(connect(*plan.get("connect", ())))
        if results == [Milter.CONTINUE]:
            results += [
                feed(BytesIO(content.encode("latin-1")), *plan.get("envelope", ()))
                for content in plan["messages"]
            ]
    except Exception as error:
        results.append(type(error).__name__)
    return {
        "results": results,
        "seen": list(seen),
        "records": {name: plain(getattr(at, name)) for name in RECORDS},
    }


def main() -> None:
    """Does the plans, each with what it can change put back."""
    log = sys.argv[1]
    answers = []
    for each in json.load(sys.stdin):
        plan.clear()
        plan.update(each)
        answers.append(drive(log))
    Path(log).unlink(missing_ok=True)
    print("\n" + json.dumps(answers))  # the older package prints too


if __name__ == "__main__":
    main()
