"""Exceptions in callbacks of ours: where they are reported, and with what."""

from __future__ import annotations

import pytest

from .conftest import Start

REPORTED = """
import logging
class ToRecord(logging.Handler):
    def emit(self, line):
        kind, value, trace = line.exc_info or (None, None, None)
        frames = []
        while trace:
            frames.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        record("log", line.name, line.levelname, line.getMessage(), kind and kind.__name__,
               str(value), frames)
logging.getLogger("Milter").addHandler(ToRecord())
logging.getLogger("Milter").propagate = False
class Filter(Milter.Base):
    def connect(self, hostname, family, hostaddr): return Milter.CONTINUE
    def envfrom(self, f, *params): self.fail()
    def fail(self): raise ValueError("no such thing")
    def hello(self, name): return None
    def abort(self): raise KeyError("abort")
    def close(self): raise KeyError("close")
"""


@pytest.fixture(params=["ours-lowlevel", "ours-fast"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_log_has_the_traceback_and_the_queue_id(start: Start) -> None:
    program = start(REPORTED + "run(Filter)")
    mta = program.connect()
    mta.negotiate()
    mta.connect("mail.example", "192.0.2.1")
    mta.macros("M", "i", "4ABC9")
    assert mta.mail()[0] == "y"
    ((_, logger, level, message, kind, text, frames),) = program.seen()
    assert (logger, level, kind, text) == ("Milter", "ERROR", "ValueError", "no such thing")
    assert frames[-2:] == ["envfrom", "fail"]
    for word in ("testfilter", "mail.example", "4ABC9", "envfrom"):
        assert word in message


def test_without_a_queue_id(start: Start) -> None:
    program = start(REPORTED + "run(Filter)")
    mta = program.connect()
    mta.negotiate()
    assert mta.mail()[0] == "y"
    ((*_, message, _, _, _),) = program.seen()
    assert "queue" not in message
    assert "testfilter" in message


def test_a_result_that_is_no_int(start: Start) -> None:
    program = start(REPORTED + "run(Filter)")
    mta = program.connect()
    mta.negotiate()
    assert mta.helo()[0] == "y"
    ((*_, kind, text, _),) = program.seen()
    assert (kind, text) == ("error", "The helo callback must return int, not None")


def test_abort_and_close(start: Start) -> None:
    program = start(REPORTED + "run(Filter)")
    mta = program.connect()
    mta.negotiate()
    mta.connect()
    mta.mail()
    mta.close()
    program.until(lambda: any("'close'" in str(what) for what in program.seen()))
    assert [what[4:6] for what in program.seen() if what[4]] == [
        ("ValueError", "no such thing"),
        ("KeyError", "'close'"),
    ]


def test_where_no_reply_is_awaited(start: Start) -> None:
    """The policy's answer is that of the next step that has one, and the log says so."""
    program = start(
        REPORTED
        + """
    def envfrom(self, f, *params): return Milter.CONTINUE
    def envrcpt(self, to, *params): return Milter.CONTINUE
    @Milter.noreply
    def header(self, field, value): self.fail()
    def eoh(self): return Milter.CONTINUE
run(Filter)
"""
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.mail() == "c"
    assert mta.rcpt() == "c"
    mta.send("L", b"X\0y\0")
    kind, reply = mta.eoh()
    assert (kind, reply[:3]) == ("y", b"451")
    exception, consequence = (what for what in program.seen() if what[0] == "log")
    assert exception[4:6] == ("ValueError", "no such thing")
    assert consequence[3].endswith(
        ": header: TEMPFAIL cannot be sent, since the MTA waits for no reply at this step: it is "
        "the answer to the next step that has one"
    )


def test_a_factory_that_raises(start: Start) -> None:
    program = start(REPORTED + "def make(): raise OSError('no database')\nrun(make)")
    mta = program.connect()
    mta.send("O", b"\0\0\0\6\0\0\1\xff\0\x1f\xff\xff")
    assert mta.is_closed()
    program.await_lines(2)
    exception, consequence = program.seen()
    assert exception[4:] == ("OSError", "no database", exception[6])
    assert exception[6][-1] == "make"
    assert consequence[3].endswith(": the negotiate callback failed: the connection is closed")


def test_the_hook_of_the_program(start: Start) -> None:
    program = start(
        REPORTED
        + """
def hook(args): record("hook", args.exc_type.__name__, str(args.exc_value),
                           bool(args.exc_traceback))
sys.unraisablehook = hook
run(Filter)
"""
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.mail()[0] == "y"
    assert [what for what in program.seen() if what[0] == "hook"] == [
        ("hook", "ValueError", "no such thing", True)
    ]


def test_on_standard_error(start: Start) -> None:
    """Where the program sets up no logging: once, with the traceback."""
    program = start(
        """
        class Filter(Milter.Base):
            def envfrom(self, f, *params): raise ValueError("no such thing")
        run(Filter)
        """,
        tracebacks=True,
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.mail()[0] == "y"
    assert program.output().count("ValueError: no such thing") == 1
    assert program.output().count("Traceback") == 1


@pytest.mark.parametrize("stderr", ["None", "2", "open(os.devnull)", "object()"])
def test_no_standard_error(start: Start, stderr: str) -> None:
    """Daemons put many things in its place: the message is answered all the same."""
    program = start(
        f"""
        class Filter(Milter.Base):
            def envfrom(self, f, *params): raise ValueError("no such thing")
        sys.stderr = {stderr}
        run(Filter)
        sys.stderr = sys.__stderr__  # Python itself wants it in the end
        """,
        tracebacks=True,
    )
    mta = program.connect()
    mta.negotiate()
    for _ in range(3):
        assert mta.mail()[0] == "y"
    assert mta.helo() == "c"


def test_a_handler_that_raises(start: Start) -> None:
    """The log itself fails: the message is answered all the same."""
    program = start(
        """
        import logging
        class Broken(logging.Handler):
            def emit(self, line): raise OSError("disk full")
        logging.getLogger("Milter").addHandler(Broken())
        class Filter(Milter.Base):
            def envfrom(self, f, *params): raise ValueError("no such thing")
        run(Filter)
        """,
        tracebacks=True,
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.mail()[0] == "y"
    assert mta.helo() == "c"
    program.until(lambda: "disk full" in program.output())


def test_an_exception_holds_no_object(start: Start) -> None:
    """What a callback raised is let go: no connection's object stays behind for it."""
    program = start(
        """
        import gc, weakref, logging
        logging.getLogger("Milter").addHandler(logging.NullHandler())
        logging.getLogger("Milter").propagate = False
        made = []
        class Filter(Milter.Base):
            def __init__(self): made.append(weakref.ref(self))
            def hello(self, name):
                gc.collect()
                record([ref() is None for ref in made])
                return Milter.CONTINUE
            def envfrom(self, f, *params): raise ValueError("no such thing")
            def close(self): return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.quit()

    def let_go() -> bool:
        again = program.connect()
        again.negotiate()
        again.helo()
        gone: list[bool] = program.seen()[-1][0]
        again.quit()
        return gone[0]

    program.until(let_go)


DEBUG = """
import logging
logging.getLogger("Milter").setLevel(LEVEL)
class Keep(logging.Handler):
    def emit(self, it): it.levelno <= 10 and record(it.levelname, it.getMessage())
logging.getLogger("Milter").addHandler(Keep())
class Filter(Milter.Base):
    def envfrom(self, *args): return Milter.TEMPFAIL
run(Filter)
"""


@pytest.mark.parametrize("level", ["logging.DEBUG", "logging.INFO"])
def test_each_answer_is_a_debug_line(start: Start, level: str) -> None:
    program = start(DEBUG.replace("LEVEL", level))
    mta = program.connect()
    mta.negotiate()
    mta.macros("M", "i", "4ABC9")
    assert mta.mail() == "t"
    lines = program.seen()
    if level == "logging.INFO":
        assert lines == []
        return
    ((name, text),) = lines
    assert name == "DEBUG"
    assert "queue id 4ABC9: envfrom: TEMPFAIL, without a reply of the filter's" in text
