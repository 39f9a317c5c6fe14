"""The option packet: what classes of filters ask for, of MTAs that offer this and that."""

from __future__ import annotations

import contextlib
import struct

import pytest

from .conftest import Start
from .differences import expected
from .mta import Closed

CLASSES = {
    "nothing": "class Filter(Milter.Base): pass",
    "everything": "Filter = Seen",
    "one method": """
class Filter(Milter.Base):
    def envfrom(self, f, *params): return Milter.CONTINUE
""",
    "noreply": """
class Filter(Milter.Base):
    @Milter.noreply
    def hello(self, name): return Milter.CONTINUE
    @Milter.noreply
    def header(self, field, value): return Milter.CONTINUE
    def body(self, chunk): return Milter.CONTINUE
""",
    "noreply everywhere": "Filter = type('Filter', (Seen,), {"
    "name: Milter.noreply(getattr(Seen, name)) for name in Milter.OPTIONAL_CALLBACKS})",
    "nocallback": """
class Filter(Seen):
    @Milter.nocallback
    def header(self, field, value): return Milter.CONTINUE
    @Milter.nocallback
    def unknown(self, cmd): return Milter.CONTINUE
""",
    "rejected_recipients": """
@Milter.rejected_recipients
class Filter(Milter.Base):
    def envrcpt(self, to, *params): return Milter.CONTINUE
""",
    "header_leading_space": """
@Milter.header_leading_space
class Filter(Milter.Base):
    def header(self, field, value): return Milter.CONTINUE
""",
    "enable_protocols": """
class Filter(Milter.Base):
    def header(self, field, value): return Milter.CONTINUE
Filter = Milter.enable_protocols(Filter, Milter.P_RCPT_REJ | Milter.P_HDR_LEADSPC)
""",
    "Milter": "Filter = Milter.Milter",
    "subclass of noreply": """
class First(Milter.Base):
    @Milter.noreply
    def header(self, field, value): return Milter.CONTINUE
class Filter(First):
    def header(self, field, value): return super().header(field, value)
""",
    "mixin": """
class Mixin:
    def body(self, chunk): return Milter.CONTINUE
class Filter(Mixin, Milter.Base): pass
""",
    "bytes method": """
class Filter(Milter.Base):
    def header_bytes(self, field, value): return Milter.CONTINUE
    def header(self, field, value): return Milter.CONTINUE
""",
}

FULL = (6, 0x1FF, 0x1FFFFF)
ASKED = [
    ("nothing", FULL, (6, 0x1FF, 0x77F)),
    ("everything", FULL, (6, 0x1FF, 0x400)),
    ("one method", FULL, (6, 0x1FF, 0x77B)),
    ("noreply", FULL, (6, 0x1FF, 0x27CD)),
    ("noreply everywhere", FULL, (6, 0x1FF, 0xFF480)),
    ("nocallback", FULL, (6, 0x1FF, 0x520)),
    ("rejected_recipients", FULL, (6, 0x1FF, 0xF77)),
    ("header_leading_space", FULL, (6, 0x1FF, 0x10075F)),
    ("enable_protocols", FULL, (6, 0x1FF, 0x100F5F)),
    ("Milter", FULL, (6, 0x1FF, 0x4F790)),
    ("subclass of noreply", FULL, (6, 0x1FF, 0x75F)),
    ("mixin", FULL, (6, 0x1FF, 0x76F)),
    ("bytes method", FULL, (6, 0x1FF, 0x75F)),
    # Older MTAs: no-reply bits that they lack are emulated, not asked for.
    ("noreply everywhere", (2, 0x3F, 0x7F), (2, 0x3F, 0)),
    ("noreply everywhere", (6, 0x1FF, 0x37F), (6, 0x1FF, 0)),
    ("noreply", (6, 0x1FF, 0x3FF), (6, 0x1FF, 0x3CD)),
    ("Milter", (4, 0x3F, 0x3FF), (4, 0x3F, 0x390)),
    ("nothing", (2, 0x3F, 0x7F), (2, 0x3F, 0x7F)),
    ("everything", (3, 0x3F, 0x17F), (3, 0x3F, 0)),
    ("everything", (2, 0, 0), (2, 0x0F, 0)),  # of version 1: nothing offered means the first 4
    ("everything", (6, 1, 0x1FFFFF), (6, 1, 0x400)),
    ("everything", (7, 0x1FF, 0x1FFFFF), (6, 0x1FF, 0x400)),
    ("rejected_recipients", (6, 0x1FF, 0x7FF), (6, 0x1FF, 0x777)),
]


@pytest.mark.parametrize(("name", "offered", "asked"), ASKED)
def test_asked(
    start: Start, name: str, offered: tuple[int, int, int], asked: tuple[int, int, int]
) -> None:
    program = start(CLASSES[name] + "\nrun(Filter)\n")
    mta = program.connect()
    got = mta.negotiate(*offered)
    assert [hex(number) for number in got] == [hex(number) for number in asked]


def test_version_99(start: Start, implementation: str) -> None:
    program = start("run(Seen)")
    version, actions, protocol = program.connect().negotiate(99, 0x1FF, 0xFFFFFFFF)
    assert (version, actions) == (6, 0x1FF)
    assert hex(protocol) == hex(expected(implementation, "options that nobody knows"))


def test_version_1(start: Start) -> None:
    program = start("run(Seen)")
    mta = program.connect()
    mta.send("O", struct.pack(">III", 1, 0x1FF, 0x1FFFFF))
    assert mta.is_closed()
    assert program.connect().negotiate() == (6, 0x1FF, 0x400)


def test_flags(start: Start) -> None:
    """Objects negotiate themselves: set_flags is for filters without them. Programs exist that
    name some flags and use other actions."""
    program = start(
        """
        class Filter(Milter.Base):
            def eom(self):
                record(self._actions, attempt(self.addheader, "X", "v")[0],
                       attempt(self.chgheader, "X", 1, "v")[0])
                return Milter.CONTINUE
        milter.set_flags(Milter.ADDHDRS | Milter.QUARANTINE)
        run(Filter)
        """
    )
    mta = program.connect()
    _, actions, _ = mta.negotiate()
    mta.mail()
    mta.rcpt()
    mta.eom()
    assert actions == 0x1FF
    assert program.seen() == [(0x1FF, "ok", "ok")]


def test_the_method_may_be_overridden(start: Start) -> None:
    program = start(
        """
        class Filter(Seen):
            def negotiate(self, opts):
                record(list(opts))
                result = super().negotiate(opts)
                record(list(opts), result, self._actions, self._protocol)
                opts[0] = Milter.ADDHDRS
                opts[1] = Milter.P_NOBODY | Milter.P_NR_HDR
                return Milter.CONTINUE
            def header(self, field, value): return Milter.NOREPLY
        run(Filter)
        """
    )
    mta = program.connect()
    assert mta.negotiate() == (6, 1, 0x90)
    assert program.seen() == [
        ([0x1FF, 0x1FFFFF, 0, 0],),
        ([0x1FF, 0x400, 0, 0], 0, 0x1FF, 0x400),
    ]
    mta.mail()
    mta.rcpt()
    mta.send("L", b"X\0v\0")
    assert mta.eoh() == "c"


def test_all_options(start: Start) -> None:
    program = start(
        """
        class Filter(Seen):
            def negotiate(self, opts): return Milter.ALL_OPTS
        run(Filter)
        """
    )
    assert program.connect().negotiate() == (6, 0x1FF, 0x400)


@pytest.mark.parametrize("result", ["Milter.REJECT", "Milter.TEMPFAIL", "5"])
def test_another_result_ends_the_connection(start: Start, result: str) -> None:
    program = start(
        f"""
        class Filter(Seen):
            def negotiate(self, opts): return {result}
        run(Filter)
        """
    )
    mta = program.connect()
    mta.send("O", struct.pack(">III", *FULL))
    assert mta.is_closed()


def lists(data: bytes) -> dict[int, bytes]:
    """The macro lists in an option packet, by stage."""
    found = {}
    rest = data[12:]
    while rest:
        (stage,) = struct.unpack(">I", rest[:4])
        names, _, rest = rest[4:].partition(b"\0")
        assert stage not in found
        found[stage] = names
    return found


def test_symbol_lists_by_decorator(start: Start, implementation: str) -> None:
    program = start(
        """
        class Filter(Milter.Base):
            @Milter.symlist("j", "{x}")
            def connect(self, hostname, family, hostaddr): return Milter.CONTINUE
            @Milter.noreply
            @Milter.symlist("i")
            def envfrom(self, f, *params): return Milter.CONTINUE
            @Milter.symlist("{a}", "{b}")
            def eom(self): return Milter.CONTINUE
        run(Filter)
        """,
        tracebacks=implementation == "oracle",
    )
    mta = program.connect()
    _, data = mta.negotiate_raw()
    assert (lists(data) or None) == expected(implementation, "@symlist")


def test_symbol_lists_by_call(start: Start) -> None:
    program = start(
        """
        class Filter(Milter.Base):
            def negotiate(self, opts):
                self._ctx.setsymlist(Milter.M_CONNECT, "j {x}")
                self._ctx.setsymlist(Milter.M_EOM, "")
                self._ctx.setsymlist(Milter.M_EOH, " ".join("{%d}" % n for n in range(50)))
                record(attempt(self._ctx.setsymlist, Milter.M_CONNECT, "i"))
                record(attempt(self._ctx.setsymlist, 7, "i"))
                record(attempt(self._ctx.setsymlist, -1, "i"))
                record(attempt(self._ctx.setsymlist, Milter.M_DATA, None))
                return super().negotiate(opts)
        run(Filter)
        """
    )
    _, data = program.connect().negotiate_raw()
    assert lists(data) == {
        0: b"j {x}",
        5: b"",
        6: b" ".join(b"{%d}" % n for n in range(50)),
    }
    assert [kind for ((kind, _),) in program.seen()] == ["error"] * 3 + ["TypeError"]


@pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)
def test_symbol_lists_by_method(start: Start) -> None:
    """(The older package's method fails by a TypeError.)"""
    program = start(
        """
        class Filter(Milter.Base):
            def negotiate(self, opts):
                result = super().negotiate(opts)
                self.setsymlist(Milter.M_ENVFROM, "i", "{auth_authen}")
                self.setsymlist(Milter.M_DATA, "i {x}")
                return result
        run(Filter)
        """
    )
    _, data = program.connect().negotiate_raw()
    assert lists(data) == {2: b"i {auth_authen}", 4: b"i {x}"}


@pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)
def test_symbol_lists_that_the_mta_does_not_know(start: Start) -> None:
    """The lists are a wish: the session goes on without them."""
    program = start(
        """
        class Filter(Milter.Base):
            @Milter.symlist("i")
            def envfrom(self, f, *params): return Milter.CONTINUE
        run(Filter)
        """
    )
    _, data = program.connect().negotiate_raw(actions=0xFF)
    assert lists(data) == {}


@pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)
@pytest.mark.parametrize("count", [43, 48, 50])
def test_a_long_symbol_list(start: Start, count: int) -> None:
    """What was asked for comes first; the usual macros fill up to the 50 that Sendmail takes."""
    program = start(
        f"""
        class Filter(Milter.Base):
            @Milter.symlist(*["{{m%d}}" % n for n in range({count})])
            def envfrom(self, f, *params): return Milter.CONTINUE
        run(Filter)
        """
    )
    _, data = program.connect().negotiate_raw()
    names = lists(data)[2].split()
    assert names[:count] == [b"{m%d}" % n for n in range(count)]
    assert len(names) == min(50, count + 8)


NOREPLY = """
class Filter(Milter.Base):
    @Milter.noreply
    def envfrom(self, f, *params):
        record(self._protocol & Milter.P_NR_MAIL != 0)
        return Milter.CONTINUE
    @Milter.noreply
    def envrcpt(self, to, *params): return int(to)
run(Filter)
"""


def test_noreply(start: Start) -> None:
    program = start(NOREPLY)
    mta = program.connect()
    mta.negotiate()
    mta.send("M", b"<a>\0")
    mta.send("R", b"0\0")
    assert mta.eom() == [("c", b"")]
    assert program.seen() == [(True,)]


def test_noreply_for_an_mta_that_awaits_one(start: Start) -> None:
    program = start(NOREPLY)
    mta = program.connect()
    mta.negotiate(protocol=0x3FF)
    assert mta.mail() == "c"
    assert mta.rcpt("0") == "c"
    assert mta.eom() == [("c", b"")]


def test_another_result_where_no_reply_goes_out(start: Start) -> None:
    """It is an error of the filter; the MTA still gets no packet that it does not await."""
    program = start(NOREPLY, tracebacks=True)
    mta = program.connect()
    mta.negotiate()
    mta.send("M", b"<a>\0")
    mta.send("R", b"1\0")
    program.until(lambda: "must be CONTINUE with @noreply" in program.output())
    mta.send("Q")
    assert mta.is_closed()


@pytest.mark.parametrize("step", ["envrcpt", "header"])
def test_an_exception_where_no_reply_goes_out(start: Start, implementation: str, step: str) -> None:
    program = start(
        f"""
        class Filter(Milter.Base):
            def envfrom(self, f, *params): return Milter.CONTINUE
            def envrcpt(self, to, *params): return Milter.CONTINUE
            def header(self, field, value): return Milter.CONTINUE
            def eoh(self): return Milter.CONTINUE
            @Milter.noreply
            def {step}(self, *args): raise ValueError("no such thing")
        run(Filter)
        """,
        tracebacks=True,
    )
    mta = program.connect()
    mta.negotiate()
    for command, data in (("M", b"<a>\0"), ("R", b"<b>\0"), ("L", b"X\0y\0"), ("N", b""),
                          ("A", b""), ("M", b"<c>\0"), ("Q", b"")):  # fmt: skip
        mta.send(command, data)
    letters = []
    with contextlib.suppress(Closed):
        while True:
            letters.append(mta.receive()[0])
    assert letters == expected(implementation, "an exception in a @noreply callback")[step]


def test_leading_space(start: Start) -> None:
    program = start(
        """
        @Milter.header_leading_space
        class Filter(Milter.Base):
            def header(self, field, value):
                record(value)
                return Milter.CONTINUE
            def eom(self):
                self.addheader("X", " v")
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    mta.header("Subject", " text")
    assert mta.eom()[0] == ("h", b"X\0 v\0")
    assert program.seen() == [(" text",)]
