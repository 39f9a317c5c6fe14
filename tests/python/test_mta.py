"""Milter.testing.MTA with filters in the same process, blocking and in an event loop: targets,
arguments, several sessions, exceptions, callbacks that hang, errors that are kept."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import Milter
import pytest
from fake import GO_ON, FakeFilter, answer, options
from Milter import _wire, testing
from Milter.testing import (
    MTA,
    POSTFIX,
    AddHeader,
    AsyncMTA,
    AsyncSession,
    Auth,
    CallbackError,
    Client,
    ConnectError,
    FilterClosed,
    FilterTimeout,
    ProtocolError,
    Quarantine,
    Session,
    SessionOver,
    Tls,
)

MESSAGE = b"Subject: one\n\nbody\n"
STEPS = ["connect", "hello", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"]


class Seeing(Milter.Base):
    """Writes down the steps that it sees, and some of their macros."""

    def __init__(self):
        self.seen = []
        self.macros = {}

    def step(self, name, *names):
        self.seen.append(name)
        self.macros.update({each: self.getsymval(each) for each in names})
        return Milter.CONTINUE

    def connect(self, hostname, family, hostaddr):
        self.client = hostname, hostaddr
        return self.step("connect", "j", "_", "{client_addr}")

    def hello(self, name):
        return self.step("hello", "{tls_version}", "{cert_subject}")

    def envfrom(self, sender, *params):
        return self.step("envfrom", "{auth_authen}", "{auth_type}", "{mail_host}", "i")

    def envrcpt(self, rcpt, *params):
        return self.step("envrcpt")

    def data(self):
        return self.step("data")

    def header(self, name, value):
        return self.step("header")

    def eoh(self):
        return self.step("eoh")

    def body(self, chunk):
        return self.step("body")

    def eom(self):
        self.addheader("X-Seen", str(len(self.seen)))
        return self.step("eom", "i", "{mine}", "{msg_id}")

    def abort(self):
        return self.step("abort")

    def close(self):
        return self.step("close")


# ------------------------------------------------------------------------------------- targets


def test_a_class():
    with MTA(Seeing) as mta:
        assert mta.filter is None
        result = mta.send(MESSAGE)
        assert result.changes == (AddHeader("X-Seen", "8"),)
        assert result.message == b"Subject: one\nX-Seen: 8\n\nbody\n"
        seeing = mta.filter
        assert seeing.seen == STEPS
        mta.send(MESSAGE)
        assert mta.filter is seeing  # the same session
    assert seeing.seen == [*STEPS, *STEPS[2:], "close"]  # and it waited for the end
    assert mta.filter is None


def test_a_factory_and_the_keywords_of_its_server():
    made = []

    def factory():
        made.append(Raising("envfrom"))
        return made[-1]

    options = {"exception_policy": Milter.REJECT, "name": "mine"}
    with MTA(factory, server=options, strict=False) as mta:
        result = mta.send(MESSAGE)
    assert len(made) == 1
    assert str(result.reply) == "554 5.3.0 mine: error in the mail filter"


def test_a_server_and_a_path(tmp_path):
    server = Milter.Server(Seeing, f"unix:{tmp_path / 's'}")
    with pytest.raises(ConnectError, match="does not listen"):
        MTA(server).open()
    with server:
        for target in (server, tmp_path / "s", f"unix:{tmp_path / 's'}"):
            with MTA(target) as mta:
                assert mta.send(MESSAGE).changes == (AddHeader("X-Seen", "8"),)
                assert mta.filter is None  # it may be anywhere


def test_what_is_no_target():
    with pytest.raises(TypeError, match="neither a socket specification nor"):
        MTA(7).open()


def test_nothing_is_left_behind():
    before = set(threading.enumerate())
    with MTA(Seeing) as mta:
        mta.send(MESSAGE)
        first, second = mta.session(), mta.session()
        first.close()
        second.vanish()
        with pytest.raises(SessionOver):
            second.mail("a@b")
    assert set(threading.enumerate()) <= before  # threads of other tests may have ended


def test_sessions_at_once_have_objects_of_their_own():
    mta = MTA(Seeing)
    sessions = [mta.session(f"c{number}[192.0.2.{number}]") for number in range(5)]
    for session in sessions:
        session.mail("a@b")
    for session in sessions:
        assert session.rcpt("c@d").kind == "continue"
    assert [session.filter.client for session in sessions] == [
        (f"c{number}", (f"192.0.2.{number}", 54321)) for number in range(5)
    ]
    for session in sessions:
        session.vanish()
        assert session.filter.seen == [*STEPS[:4], "abort", "close"]


@pytest.mark.parametrize("step", range(4))
def test_a_session_that_breaks_off(step):
    session = MTA(Seeing).open()
    steps = [
        session.negotiate,
        session.connect,
        lambda: session.helo("h"),
        lambda: session.mail("a@b"),
    ]
    for each in steps[: step + 1]:
        each()
    session.vanish()
    assert session.filter.seen == [*STEPS[:step], *["abort"] * (step == 3), "close"]


# ------------------------------------------------------------------------ client, login and TLS


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_client_login_and_tls(profile):
    with MTA(Seeing, profile=profile, hostname="mx.test", macros={"{mine}": "m"}) as mta:
        tls = Tls(subject="CN=ann", issuer="CN=ca")
        result = mta.send(
            MESSAGE, client="h.test[192.0.2.1]:99", helo="h", auth=Auth("ann", "LOGIN"), tls=tls
        )
        first, seeing = result, mta.filter
        assert seeing.client == ("h.test", ("192.0.2.1", 99))
        assert seeing.seen == ["connect", "hello", *STEPS[1:]]  # HELO once more after STARTTLS
        assert "X-Seen: 9\n" in result.message.decode()
        expected = {
            "j": "mx.test",
            "_": "h.test [192.0.2.1]",
            "{client_addr}": None,
            "{tls_version}": "TLSv1.3",
            "{cert_subject}": "CN=ann",
            "{auth_authen}": "ann",
            "{auth_type}": "LOGIN",
            "{mail_host}": "example.org" if profile == "postfix" else "example.org.",
            "i": "QUEUEID001",
            "{mine}": "m",
            "{msg_id}": None if profile == "postfix" else "<QUEUEID001@mx.test>",
        }
        assert seeing.macros == expected
        mta.send(MESSAGE, client="h.test[192.0.2.1]:99", helo="h", tls=tls)
        assert mta.filter is seeing
        assert seeing.macros["{auth_authen}"] is None
        mta.send(MESSAGE, client="h.test[192.0.2.1]:99", helo="h", tls=True)
        assert mta.filter is not seeing  # another client
        assert not mta.filter.macros["{cert_subject}"]
        steps = [line.split()[1] for line in first.trace if line[0] == ">" and "MACRO" not in line]
        assert steps[: 5 if profile == "postfix" else 4] == (
            ["OPTNEG", "CONNECT", "HELO", *["ABORT"] * (profile == "postfix"), "HELO"]
        )


def test_sendmails_connect_information():
    with MTA(Seeing, profile="sendmail") as mta:
        result = mta.send(b"Message-ID: <m@x>\n\n", "<>", client="unknown[::1]")
        assert "> CONNECT [::1] 6 54321 IPv6:::1" in result.trace
        assert mta.filter.macros["_"] == "[::1]"
        assert mta.filter.macros["{mail_host}"] == ""
        assert mta.filter.macros["{msg_id}"] == "<m@x>"
    with MTA(Seeing, profile="sendmail") as mta:
        trace = mta.send(MESSAGE, client=Client("h", "192.0.2.1")).trace
    assert "> MACRO CONNECT j=mta.example.org _=h [192.0.2.1] {daemon_name}=MTA " \
        "{if_name}=mta.example.org {if_addr}=192.0.2.25" in trace  # fmt: skip


def test_macros_of_a_message_only():
    with MTA(Seeing) as mta:
        mta.send(MESSAGE, macros={"{mine}": "1"})
        assert mta.filter.macros["{mine}"] == "1"
        mta.send(MESSAGE)
        assert mta.filter.macros["{mine}"] is None


@pytest.mark.parametrize(
    ("profile", "version", "protocol"),
    [
        ("postfix", 2, 0x7F), ("postfix", 3, 0x17F), ("postfix", 4, 0x37F), ("postfix", 5, 0x37F),
        ("postfix", 6, 0x1FFFFF),
        *(("sendmail", version, 0x1FFFFF) for version in (2, 3, 4, 5, 6)),
    ],
)  # fmt: skip
def test_what_is_offered(tmp_path, profile, version, protocol):
    """Postfix: as its milter_protocol has it (protocol sheet 2.7; it has no 5, which has no more
    than 4); Sendmail: all that it knows, whatever its version is said to be."""
    answers = {b"O": options(version=version)}
    with (
        FakeFilter(tmp_path / "s", answers) as fake,
        MTA(fake.spec, profile=profile, version=version, keep_bytes=True) as mta,
    ):
        sent = mta.send(MESSAGE).sent
    assert sent.startswith(_wire.encode(_wire.TO_FILTER, b"O", version, 0x1FF, protocol))


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
@pytest.mark.parametrize("command", [b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E", b"U"])
@pytest.mark.parametrize("protocol", [0, 0x400], ids=["not negotiated", "negotiated"])
def test_skip_at_any_step(tmp_path, profile, command, protocol):
    """Whatever the MTA makes of it, it is nothing that ends the test."""
    answers = {b"O": options(protocol=protocol), command: answer(b"s")}
    with FakeFilter(tmp_path / "s", answers) as fake:
        session = MTA(fake.spec, profile=profile, strict=False).session()
        assert session.unknown("WHAT?").kind in ("continue", "skip", "tempfail")
        assert session.send(MESSAGE).verdict in ("accepted", "tempfailed")
        session.close()


def test_a_str_is_a_path(tmp_path):
    with MTA(Seeing) as mta:
        for text in ("Subject: x\n\nhi", "\r\n", "x\n"):
            with pytest.raises(ValueError, match=r"a str is the path .* text\.encode\(\)"):
                mta.send(text)
        (tmp_path / "m.eml").write_bytes(MESSAGE)
        assert mta.send(str(tmp_path / "m.eml")).verdict == "accepted"


class Clock:
    """Time that goes on by what the filter needs for its answers."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class SlowFilter(FakeFilter):
    """Takes 20 of a clock's seconds for each command."""

    def __init__(self, path, clock):
        super().__init__(path)
        self.clock = clock

    def serve(self, connection):
        class Slow:
            def __init__(slow):
                slow.sendall = lambda data: (self.wait(), connection.sendall(data))
                slow.recv = connection.recv

        super().serve(Slow())

    def wait(self):
        self.clock.now += 20


def test_the_timeout_is_for_each_answer(tmp_path, monkeypatch):
    """Ten answers of 20 s each come in time where 30 s are the most for one."""
    clock = Clock()
    monkeypatch.setattr("Milter.testing.session.time", clock)
    with SlowFilter(tmp_path / "s", clock) as slow, MTA(slow.spec, timeout=30) as mta:
        assert mta.send(MESSAGE).verdict == "accepted"
        assert clock.now >= 1000 + 9 * 20

    async def main():
        asyncio.get_running_loop().time = clock.monotonic
        async with AsyncMTA(slow.spec, timeout=30) as mta:
            assert (await mta.send(MESSAGE)).verdict == "accepted"

    with SlowFilter(tmp_path / "t", clock) as slow:
        asyncio.run(main())


def test_bytes_on_request():
    with MTA(Seeing, keep_bytes=True) as mta:
        first, second = mta.send(MESSAGE), mta.send(MESSAGE)
    offer = _wire.encode(_wire.TO_FILTER, b"O", 6, 0x1FF, 0x1FFFFF)
    assert first.sent.startswith(offer)
    assert first.received.startswith(b"\0\0\0\x0dO")
    assert first.received.endswith(b"\0\0\0\nhX-Seen\x008\0\0\0\0\1c")
    assert second.sent.startswith(_wire.encode(_wire.TO_FILTER, b"D", b"M", [
        b"{mail_addr}", b"sender@example.org", b"{mail_host}", b"example.org",
        b"{mail_mailer}", b"smtp"]))  # fmt: skip
    with MTA(Seeing) as mta, pytest.raises(ValueError, match="keep_bytes=True"):
        _ = mta.send(MESSAGE).sent


# ----------------------------------------------------------------------------------- exceptions


class Raising(Seeing):
    """Raises at one step."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def step(self, name, *names):
        super().step(name)
        if name == self.where:
            raise ValueError(f"no {name}")
        return Milter.CONTINUE


NAMES = {"hello": "helo", "envfrom": "mail", "envrcpt": "rcpt"}


@pytest.mark.parametrize("where", STEPS)
def test_what_a_callback_raises_is_raised(where, monkeypatch, caplog):
    """With its traceback; it is also in the log, and nothing is left to the unraisable hook."""
    hooked = []
    monkeypatch.setattr(sys, "unraisablehook", hooked.append)
    mta = MTA(lambda: Raising(where))
    name = NAMES.get(where, where)
    with pytest.raises(CallbackError, match=f"at {name}: .* ValueError: no {where}") as caught:
        mta.send(MESSAGE)
    mta.close()
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    trace = cause.__traceback__
    functions = []
    while trace:
        functions.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert functions == [where, "step"]
    assert caught.value.step == name
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert hooked == []


@pytest.mark.parametrize("where", ["abort", "close"])
def test_what_the_last_callbacks_raise(where):
    session = MTA(lambda: Raising(where)).session()
    session.mail("a@b")
    with pytest.raises(CallbackError, match=f"at {where}"):
        session.close()
    session.close()


def test_what_a_callback_raises_is_kept():
    with MTA(lambda: Raising("envrcpt"), strict=False, profile="sendmail") as mta:
        first, second = mta.send(MESSAGE), mta.send(MESSAGE)
    assert first.verdict == "tempfailed"
    assert str(first.reply).startswith("451 4.3.0 <rcpt@example.org>... ")
    assert [str(error) for error in first.errors] == [
        "at rcpt: the filter raised ValueError: no envrcpt"
    ]
    assert len(second.errors) == 1


def test_other_faults_of_callbacks():
    class NoVerdict(Milter.Base):
        def eom(self):
            return None

    with pytest.raises(CallbackError, match=r"at eom: .* The eom callback must return int"):
        MTA(NoVerdict).send(MESSAGE)

    def no_object():
        raise KeyError("nothing")

    with pytest.raises(CallbackError, match="KeyError"):
        MTA(no_object).send(MESSAGE)


# -------------------------------------------------------------------------------------- hanging


@pytest.fixture
def waiting():
    """A filter's class whose end of message waits for the end of the test."""
    go = threading.Event()

    class Waiting(Milter.Base):
        def eom(self):
            go.wait()
            return Milter.CONTINUE

    yield Waiting
    go.set()


def impatient(session):
    """Waits only for what will not come: the steps before have the usual time."""
    session._timeout = session._patience = 0.05
    return session


def test_a_callback_that_does_not_return(waiting):
    with pytest.raises(FilterTimeout, match=r"at eom: no answer within 0\.05 seconds"):
        impatient(MTA(waiting).session()).send(MESSAGE)
    session = impatient(MTA(waiting, strict=False).session())
    result = session.send(MESSAGE)
    assert str(result.reply) == "451 4.7.1 Service unavailable - try again later"
    assert [type(error) for error in result.errors] == [FilterTimeout]
    session.close()
    assert "a callback is still busy" in str(session.errors[-1])


HANGS = """
import Milter, threading
from Milter.testing import MTA, FilterTimeout
class Hanging(Milter.Base):
    def eom(self): threading.Event().wait()
session = MTA(Hanging).session()
session._timeout = session._patience = 0.05
try:
    session.send(b"\\n")
except FilterTimeout as error:
    print(error, flush=True)
"""


def test_a_program_ends_while_a_callback_hangs():
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "at eom: no answer within 0.05 seconds\n"


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "header", "eoh", "body", "eom"])
def test_time_out_without_waiting(profile, step):
    """The MTA does what it does after its time-out; the filter sees its connection end."""
    with MTA(Seeing, profile=profile) as mta:
        result = mta.send(MESSAGE, time_out_at=step)
        seeing = mta.filter
        again = mta.send(MESSAGE)
    assert (result.verdict, result.step, result.errors) == ("tempfailed", step, ())
    assert result.code == 451
    assert seeing.seen[-1] == "close"
    assert again.verdict == "accepted"


@pytest.mark.parametrize(
    ("profile", "action", "verdict", "reply"),
    [
        ("postfix", "accept", "accepted", None),
        ("postfix", "quarantine", "quarantined", None),
        ("postfix", "reject", "rejected", "550 5.5.0 Service unavailable"),
        ("sendmail", "accept", "accepted", None),
        ("sendmail", "reject", "rejected", "554 5.7.1 Command rejected"),
        ("sendmail", "shutdown", "tempfailed", "421 4.7.0 mta.example.org closing connection"),
    ],
)
def test_default_actions(profile, action, verdict, reply):
    with MTA(Seeing, profile=profile, default_action=action) as mta:
        result = mta.send(MESSAGE, time_out_at="body")
    assert (result.verdict, result.reply and str(result.reply)) == (verdict, reply)


def test_an_action_that_the_mta_does_not_have():
    with pytest.raises(ValueError, match="sendmail has no action 'quarantine'; it has: tempfail"):
        MTA(Seeing, profile="sendmail", default_action="quarantine")


# ------------------------------------------------------------------------------ in an event loop


def test_async():
    async def main():
        async with AsyncMTA(Seeing) as mta:
            result = await mta.send(MESSAGE)
            seeing = mta.filter
        assert result.message == b"Subject: one\nX-Seen: 8\n\nbody\n"
        assert seeing.seen == [*STEPS, "close"]

        async def one(number):
            async with await AsyncMTA(Seeing).session(f"c{number}[192.0.2.{number}]") as session:
                await session.mail("a@b", auth=Auth("ann"))
                assert (await session.rcpt("c@d")).kind == "continue"
                await session.abort()
                return (await session.send(MESSAGE)).verdict, session.filter.client[0]

        return await asyncio.gather(*map(one, range(10)))

    assert asyncio.run(main()) == [("accepted", f"c{number}") for number in range(10)]


def test_async_errors(waiting):
    async def main():
        with pytest.raises(CallbackError, match="no body"):
            await AsyncMTA(lambda: Raising("body")).send(MESSAGE)
        with pytest.raises(FilterTimeout):
            await AsyncMTA(waiting, timeout=0.05).send(MESSAGE)
        async with AsyncMTA(Seeing, strict=False) as mta:
            assert (await mta.send(MESSAGE, time_out_at="eom")).verdict == "tempfailed"
            assert mta.current.closed
            await mta.vanish()
        session = await AsyncMTA(Seeing).open()
        await session.negotiate()
        await session.send_packet(b"K")
        await session.send_raw(b"\0\0\0\1Z")
        with pytest.raises(FilterClosed):
            await session.read_packet()
        await session.close()

    asyncio.run(main())


def test_both_have_the_same_methods():
    """One mechanism, two ways to wait."""

    def public(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(AsyncMTA) == public(MTA)
    assert public(AsyncSession) == public(Session)


# ------------------------------------------------------------------------- errors of the filter


def test_an_answer_too_many_names_where_it_can_come_from(tmp_path):
    """If it is late, it is taken for the answer to the next step; so both are named."""
    with FakeFilter(tmp_path / "s", {b"R": GO_ON + answer(b"r")}) as fake:
        with MTA(fake.spec) as mta, pytest.raises(ProtocolError) as caught:
            mta.send(MESSAGE)
        assert str(caught.value) == (
            "at rcpt: REJECT came unasked: rcpt was answered twice, or, if it was late, mail "
            "before it"
        )
        assert caught.value.kind == "unasked"
        with MTA(fake.spec, strict=False) as mta:
            result = mta.send(MESSAGE)
        # As in life: the second answer is taken for that to DATA.
        assert (result.verdict, result.step) == ("rejected", "data")
        assert [error.kind for error in result.errors] == ["unasked"]


def test_a_filter_that_is_not_asked_for_an_answer_gives_one(tmp_path):
    """It is noticed at once, or taken for the next answer, which is then one too many."""
    asked = options(protocol=_wire.PROTOCOL["NR_HDR"])

    def go_on(session):
        session.eoh()
        session.close()

    with FakeFilter(tmp_path / "s", {b"O": asked, b"L": GO_ON}) as fake:
        session = MTA(fake.spec).session()
        session.header(b"A", b"1")
        with pytest.raises(ProtocolError, match=r"came unasked: .* header"):
            go_on(session)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({b"E": b"\0\0\0\x05hX\0v\0\0\0\0\1c"}, "action"),
        ({b"M": b"\0\0\0\x05hX\0v\0\0\0\0\1c"}, "change"),
        ({b"M": b"\0\0\0\x0ay550 4.1.1\0"}, "packet"),
        ({b"M": b"\0\0\0\x0cy550 4.1.1 x"}, "packet"),
        ({b"M": b"\0\0\0\x0dy250 4.1.1 x\0"}, "reply"),
        ({b"M": b"\0\0\0\1Z"}, "packet"),
        ({b"M": b"\0\0\0\1f"}, "answer"),
        ({b"M": None}, "closed"),
        ({b"O": b"\0\0\0\x0dO\0\0\0\7\0\0\0\0\0\0\0\0"}, "version"),
        ({b"O": b"\0\0\0\x0dO\0\0\0\6\0\0\2\0\0\0\0\0"}, "actions"),
        ({b"E": b"\0\0\0\1s"}, "skip at the end"),
    ],
)
def test_errors_are_told_or_kept(tmp_path, answers, kind):
    with FakeFilter(tmp_path / "s", {b"O": options(actions=0), **answers}) as fake:
        with MTA(fake.spec) as mta, pytest.raises(ProtocolError) as caught:
            mta.send(MESSAGE)
        assert caught.value.kind == kind
        for profile in ("postfix", "sendmail"):
            with MTA(fake.spec, strict=False, profile=profile) as mta:
                result = mta.send(MESSAGE)
                assert [error.kind for error in result.errors] == [kind]
                assert mta.send(MESSAGE).verdict == result.verdict


def test_progress_early(tmp_path):
    """Postfix knows it everywhere, Sendmail at the end only."""
    with FakeFilter(tmp_path / "s", {b"M": answer(b"p") + GO_ON}) as fake:
        with MTA(fake.spec) as mta:
            assert mta.send(MESSAGE).verdict == "accepted"
        with (
            MTA(fake.spec, profile="sendmail") as mta,
            pytest.raises(ProtocolError, match="PROGRESS is known at the end"),
        ):
            mta.send(MESSAGE)


def test_a_filter_that_never_stops_answering(tmp_path):
    """PROGRESS for ever does not extend the time that there is for an answer."""

    class Endless(FakeFilter):
        def serve(self, connection):
            try:
                super().serve(connection)
                while True:
                    connection.sendall(answer(b"p") * 100)
            except ConnectionError:
                pass

    with (
        Endless(tmp_path / "s", {b"E": None}) as fake,
        MTA(fake.spec, timeout=0.1) as mta,
        pytest.raises(FilterTimeout),
    ):
        mta.send(MESSAGE)


def test_a_filter_that_does_not_read(tmp_path):
    class Deaf(FakeFilter):
        def serve(self, connection):
            connection.recv(100)
            connection.sendall(options(protocol=0xFF080))
            while connection.recv(1 << 16, 2):  # MSG_PEEK: nothing is taken out
                if over.wait(0.01):
                    return

    over = threading.Event()
    with Deaf(tmp_path / "s") as fake:
        with (
            MTA(fake.spec, timeout=0.1) as mta,
            pytest.raises(FilterTimeout, match="the filter does not read"),
        ):
            mta.send(b"\n" + b"x" * 3_000_000)
        over.set()


def test_conversations_in_other_hands():
    """Quarantine as an action and as a verdict; a profile of one's own."""

    class Holding(Milter.Base):
        def eom(self):
            self.quarantine("why")
            return Milter.CONTINUE

    with MTA(Holding, profile=replace(POSTFIX, chunk=3)) as mta:
        result = mta.send(MESSAGE)
    assert (result.verdict, result.quarantine) == ("quarantined", "why")
    assert result.changes == (Quarantine("why"),)


def test_the_example_of_the_docstring():
    assert testing.__doc__
    code = testing.__doc__.split("\n\n", 1)[1].split("It speaks")[0]
    names = {}
    exec(textwrap.dedent(code), names)
    names["test_it_tags"]()
