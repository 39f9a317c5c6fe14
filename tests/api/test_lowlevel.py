"""The functions of the `milter` module: filters made of plain callables, and the errors."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Program, start_program
from .differences import expected

Evaluate = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def begin(package: str, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts a program that uses the module's functions itself."""
    programs: list[Program] = []

    def run(
        source: str, serve: bool = False, args: tuple[str, ...] = (), **options: Any
    ) -> Program:
        source = textwrap.dedent(source) + (TAIL if serve else "")
        programs.append(
            start_program(package, tmp_path / str(len(programs)), source, *args, **options)
        )
        return programs[-1]

    yield run
    for program in programs:
        program.finish()


TAIL = """
milter.setconn(os.environ["SOCKET"])
milter.opensocket(True)
record("ended", milter.main())
"""


def test_plain_callables(begin: Callable[..., Program]) -> None:
    """Types of the arguments: envelope and body are bytes, header values too."""
    program = begin(
        """
        def see(step):
            def callback(ctx, *args):
                record(step, *args)
                return milter.CONTINUE
            return callback
        for step in ("connect", "helo", "envfrom", "envrcpt", "header", "eoh", "body", "eom",
                     "abort", "close"):
            getattr(milter, f"set_{step}_callback")(see(step))
        milter.register("plain", data=see("data"), unknown=see("unknown"))
        """,
        serve=True,
    )
    mta = program.connect()
    assert mta.negotiate() == (6, 0x1FF, 0x400)
    mta.connect()
    mta.helo()
    mta.step("U", b"FOO bar\0")
    mta.mail("<a@b>", "SIZE=1")
    mta.rcpt("<c@d>")
    mta.data()
    mta.header("X", b"v\xe9")
    mta.eoh()
    mta.body(b"text")
    mta.eom()
    mta.mail("<>")
    mta.send("A")
    mta.quit()
    program.until(lambda: "close" in program.steps())
    assert program.seen() == [
        ("connect", "localhost", 2, ("127.0.0.1", 1234)),
        ("helo", "me"),
        ("unknown", "FOO bar"),
        ("envfrom", b"<a@b>", b"SIZE=1"),
        ("envrcpt", b"<c@d>"),
        ("data",),
        ("header", "X", b"v\xe9"),
        ("eoh",),
        ("body", b"text"),
        ("eom",),
        ("envfrom", b"<>"),
        ("abort",),
        ("close",),
    ]


def test_missing_callbacks_are_not_asked_for(begin: Callable[..., Program], package: str) -> None:
    program = begin(
        """
        milter.set_eom_callback(lambda ctx: milter.ACCEPT)
        milter.set_flags(milter.ADDHDRS | milter.CHGBODY)
        milter.register("plain")
        """,
        serve=True,
    )
    mta = program.connect()
    assert mta.negotiate() == expected(package, "callbacks that are missing")
    mta.mail()
    mta.rcpt()
    assert mta.eom() == [("a", b"")]


def test_a_negotiate_callback(begin: Callable[..., Program]) -> None:
    program = begin(
        """
        def negotiate(ctx, opts):
            record(opts)
            opts[0], opts[1] = milter.QUARANTINE, milter.P_NOBODY
            return milter.CONTINUE
        milter.set_eom_callback(lambda ctx: milter.CONTINUE)
        milter.register("plain", negotiate=negotiate)
        """,
        serve=True,
    )
    assert program.connect().negotiate() == (6, 0x20, 0x10)
    ((options,),) = program.seen()
    assert options == [0x1FF, 0x1FFFFF, 0, 0]


def test_private_data(begin: Callable[..., Program]) -> None:
    """One object a connection, from any callback to any other."""
    program = begin(
        """
        def connect(ctx, *args):
            record(ctx.setpriv({"count": 0}))
            return milter.CONTINUE
        def envfrom(ctx, *args):
            ctx.getpriv()["count"] += 1
            return milter.CONTINUE
        def close(ctx):
            record(ctx.getpriv())
            record(ctx.setpriv(None))
            return milter.CONTINUE
        milter.set_connect_callback(connect)
        milter.set_envfrom_callback(envfrom)
        milter.set_close_callback(close)
        milter.register("plain")
        """,
        serve=True,
    )
    mta = program.connect()
    mta.negotiate()
    mta.connect()
    mta.mail()
    mta.mail()
    mta.quit()
    program.until(lambda: len(program.seen()) == 3)
    assert program.seen() == [(None,), ({"count": 2},), ({"count": 2},)]


def test_diagnostics(begin: Callable[..., Program]) -> None:
    """Contexts made and freed; all of them are freed in the end."""
    program = begin(
        """
        import gc
        record(milter.getdiag())
        def connect(ctx, *args):
            gc.collect()
            record(milter.getdiag())
            return milter.CONTINUE
        milter.set_connect_callback(connect)
        milter.register("plain")
        """,
        serve=True,
    )
    mta = program.connect()
    mta.negotiate()
    mta.connect()
    mta.quit()
    program.until(lambda: len(program.seen()) == 2)
    made = 1

    def freed() -> bool:
        nonlocal made
        made += 1
        mta = program.connect()
        mta.negotiate()
        mta.connect()
        return bool(program.seen()[-1][0][1] >= 1)

    program.until(freed)
    assert program.seen()[0] == ((0, 0),)
    assert program.seen()[1] == ((1, 0),)
    assert program.seen()[-1][0][0] == made


def test_main_while_it_runs(begin: Callable[..., Program]) -> None:
    program = begin(
        """
        def connect(ctx, *args):
            record(attempt(milter.main))
            return milter.CONTINUE
        milter.set_connect_callback(connect)
        milter.register("plain")
        """,
        serve=True,
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.connect() == "c"
    (((kind, text),),) = program.seen()
    assert kind == "error"
    assert text.startswith("milter module in use")


def test_stop_in_a_callback_and_main_again(begin: Callable[..., Program], package: str) -> None:
    turns = expected(package, "how often main can serve")
    program = begin(
        """
        def helo(ctx, name):
            milter.stop()
            return milter.ACCEPT
        milter.set_helo_callback(helo)
        milter.register("plain")
        for turn in range(int(sys.argv[1])):
            milter.setconn(os.environ["SOCKET"] + str(turn))
            milter.opensocket(True)
            record("ended", milter.main())
        """,
        args=(str(turns),),
    )
    for turn in range(turns):
        mta = program.connect(str(turn))
        mta.negotiate()
        if package == "ours":
            assert mta.helo() == "a"
        else:  # it may end before it has answered
            mta.send("H", b"me\0")
        program.await_lines(turn + 1)
        mta.close()
    assert program.wait() == 0
    assert program.seen() == [("ended", None)] * turns


CALLS: list[tuple[str, str]] = [
    ("set_flags('x')", "TypeError"),
    ("set_flags()", "TypeError"),
    ("set_flags(1.0)", "TypeError"),
    ("set_flags(-1)", "ok"),
    ("set_flags(0)", "ok"),
    ("set_connect_callback(5)", "TypeError"),
    ("set_connect_callback('x')", "TypeError"),
    ("set_connect_callback()", "TypeError"),
    ("set_eom_callback(len, len)", "TypeError"),
    ("set_exception_policy(milter.TEMPFAIL)", "ok"),
    ("set_exception_policy(milter.REJECT)", "ok"),
    ("set_exception_policy(milter.CONTINUE)", "ok"),
    ("set_exception_policy(milter.ACCEPT)", "ok"),
    ("set_exception_policy(milter.DISCARD)", "error"),
    ("set_exception_policy(7)", "error"),
    ("set_exception_policy(99)", "error"),
    ("set_exception_policy(-1)", "error"),
    ("set_exception_policy('x')", "TypeError"),
    ("register()", "TypeError"),
    ("register(None)", "TypeError"),
    ("register(b'x')", "TypeError"),
    ("register('x', data=5)", "TypeError"),
    ("register('x', unknown=5)", "TypeError"),
    ("register('x', negotiate=5)", "TypeError"),
    ("register('x', other=None)", "TypeError"),
    ("register(name='x')", "ok"),
    ("register('x', None, None, None)", "ok"),
    ("register('x', data=None, unknown=None, negotiate=None)", "ok"),
    ("setconn('')", "error"),
    ("setconn(None)", "TypeError"),
    ("setconn(b'x')", "TypeError"),
    ("setconn('unix:/run/x')", "ok"),
    ("settimeout(5)", "ok"),
    ("settimeout(0)", "ok"),
    ("settimeout('x')", "TypeError"),
    ("settimeout(1.5)", "TypeError"),
    ("setbacklog(5)", "ok"),
    ("setbacklog(0)", "error"),
    ("setbacklog(-1)", "error"),
    ("setbacklog('x')", "TypeError"),
    ("setdbg(5)", "ok"),
    ("setdbg('x')", "TypeError"),
    ("opensocket()", "TypeError"),
    ("opensocket('x')", "TypeError"),
    ("opensocket(True)", "error"),  # nothing to open yet
    ("getdiag(1)", "TypeError"),
    ("getversion(1)", "TypeError"),
    ("stop(1)", "TypeError"),
    ("main(1)", "TypeError"),
]


@pytest.mark.parametrize(("call", "result"), CALLS, ids=[call for call, _ in CALLS])
def test_arguments(evaluate: Evaluate, call: str, result: str) -> None:
    (((kind, value),),) = evaluate(f"record(attempt(lambda: milter.{call}))")
    assert kind == result
    assert value is None if kind == "ok" else value != ""


@pytest.mark.parametrize("function", ["setdbg", "settimeout"])
def test_negative_numbers(evaluate: Evaluate, package: str, function: str) -> None:
    ((kind,),) = evaluate(f"record(attempt(milter.{function}, -1)[0])")
    assert kind == expected(package, f"{function}(-1)")


def test_what_functions_return(evaluate: Evaluate) -> None:
    results = evaluate(
        """
        def one(ctx): return 0
        def two(ctx): return 0
        record(milter.getversion(), milter.getdiag())
        record(milter.set_eom_callback(one))
        record(milter.set_eom_callback(two) is one)
        record(milter.set_eom_callback(None) is two)
        record(milter.set_eom_callback(None))
        """
    )
    assert results == [((1, 0, 1), (0, 0)), (None,), (True,), (True,), (None,)]


def test_error_texts(evaluate: Evaluate) -> None:
    """Texts that programs may show or compare."""
    results = evaluate(
        """
        record(attempt(milter.setconn, "")[1].startswith("cannot set connection"))
        milter.register("x")
        record(attempt(milter.opensocket, True)[1].startswith("cannot opensocket"))
        """
    )
    assert results == [(True,), (True,)]


@pytest.mark.parametrize(
    "spec",
    ["nothing:x", "inet:", "inet:x@127.0.0.1", "inet:1@[::1]", "unix:" + "x" * 200,
     "inet6:1@[127.0.0.1]", "fd:", "fd:x"],
)  # fmt: skip
def test_bad_sockets(evaluate: Evaluate, package: str, spec: str) -> None:
    (((first, _), (second, text)),) = evaluate(
        f"""
        milter.register("x")
        record(attempt(milter.setconn, {spec!r}), attempt(milter.opensocket, True))
        """
    )
    assert first == expected(package, "setconn of what cannot be opened")
    assert second == "error"
    assert text.startswith("cannot opensocket")


@pytest.mark.parametrize("spec", ["/nonexistent/folder/socket", "inet:1@192.0.2.1", "fd:99"])
def test_sockets_that_cannot_be_opened(evaluate: Evaluate, spec: str) -> None:
    results = evaluate(
        f"""
        milter.register("x")
        milter.setconn({spec!r})
        kind, text = attempt(milter.opensocket, True)
        record(kind, text.startswith("cannot opensocket"))
        record(attempt(milter.main)[0])
        """
    )
    assert results == [("error", True), ("error",)]


def test_callbacks_that_are_changed_while_it_runs(
    begin: Callable[..., Program], package: str
) -> None:
    program = begin(
        """
        def first(ctx, *args):
            milter.set_helo_callback(second)
            return milter.CONTINUE
        def second(ctx, *args):
            return milter.REJECT
        milter.set_helo_callback(first)
        milter.register("plain")
        """,
        serve=True,
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"
    assert mta.helo() == expected(package, "callbacks that are changed while main runs")
