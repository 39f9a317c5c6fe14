"""A callback that passes the server's deadline: its step is answered without it, its connection
goes on, and what it says afterwards counts for nothing. Callbacks wait for an event, never for a
time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import ClassVar

import Milter
import milter
import pytest

from .mta import DEADLINE, Mta, packet, strings

MOMENT = 0.05  # seconds; the deadline of these servers


class Late(Milter.Base):
    """Waits in HELO, RCPT and at the end of the message, where a test says so."""

    gate = threading.Event()
    inside = threading.Event()
    waits = ""
    raised: ClassVar[list[str]] = []
    seen: ClassVar[list[str]] = []

    def _wait(self, step: str) -> None:
        self.seen.append(step)
        if Late.waits == step:
            Late.waits = ""
            self.inside.set()
            assert self.gate.wait(DEADLINE)
            self.seen.append(f"{step} returns")

    def hello(self, name: str) -> int:
        self._wait("hello")
        return Milter.REJECT if name == "reject" else Milter.CONTINUE

    @Milter.noreply
    def header(self, name: str, value: str) -> int:
        self.seen.append("header")
        return Milter.CONTINUE

    def envrcpt(self, to: str, *params: str) -> int:
        self._wait("envrcpt")
        return Milter.CONTINUE

    def eom(self) -> int:
        self.addheader("X-Before", "1")
        waits = Late.waits == "eom"
        self._wait("eom")
        try:
            self.addheader("X-After", "1")
        except milter.error as error:
            assert waits
            self.raised.append(str(error))
        return Milter.CONTINUE

    def abort(self) -> int:
        self.seen.append("abort")
        return Milter.CONTINUE

    def close(self) -> int:
        self.seen.append("close")
        return Milter.CONTINUE


@pytest.fixture
def late() -> Iterator[type[Late]]:
    Late.gate.clear()
    Late.inside.clear()
    Late.waits = ""
    Late.raised.clear()
    Late.seen.clear()
    yield Late
    Late.gate.set()


Pair = Callable[[Milter.Server], Mta]


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [message for message in caplog.messages if text in message]


def until(look: Callable[[], bool]) -> None:
    end = threading.Event()
    for _ in range(int(DEADLINE) * 100):
        if look():
            return
        end.wait(0.01)
    raise AssertionError("it did not come to pass")


def test_a_step_is_answered_and_its_connection_goes_on(
    late: type[Late], pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with Milter.Server(late, None, name="late", deadline=MOMENT) as server:
        mta = pair(server)
        mta.negotiate()
        assert mta.connect() == "c"
        late.waits = "hello"
        mta.send("H", strings("x"))
        command, reply = mta.receive()
        assert (command, reply[:9]) == ("y", b"451 4.3.0")
        [line] = lines(caplog, "has not returned by its deadline")
        assert "late: connection " in line
        assert "threading.py:" in line  # where it waits
        assert late.inside.is_set()
        assert "hello returns" not in late.seen
        for _ in range(2):  # the whole rest of the connection passes beside it
            assert mta.helo("again") == "c"
            assert [mta.mail()[0], mta.rcpt()[0]] == ["c", "c"]
            mta.raw(packet("L", strings("A", "b")) + packet("N") + packet("E"))
            assert mta.receive()[0] == "c"
            assert mta.receive()[0] == "h"
            assert mta.receive()[0] == "h"
            assert mta.receive()[0] == "c"
        until(lambda: server.stats.messages == 2)
        late.gate.set()
        until(lambda: bool(lines(caplog, "returned after its deadline")))
        assert mta.helo("x") == "c"
        mta.close()
        until(lambda: "close" in late.seen)
    assert late.seen.count("close") == 1


def test_a_log_of_verdicts_has_the_one_that_was_sent(
    late: type[Late], pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Milter.Server(late, None, deadline=MOMENT, log_messages=True) as server:
        mta = pair(server)
        mta.negotiate()
        late.waits = "hello"
        mta.send("H", strings("reject"))
        assert mta.receive()[0] == "y"
        assert late.inside.is_set()
        late.gate.set()
        until(lambda: bool(lines(caplog, "returned after its deadline")))
        mta.close()
        until(lambda: "close" in late.seen)
    assert len(lines(caplog, "tempfailed at helo")) == 1
    assert not lines(caplog, "rejected at helo")


def test_what_it_changes_afterwards_raises(
    late: type[Late], pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with Milter.Server(late, None, deadline=MOMENT, exception_policy=Milter.REJECT) as server:
        mta = pair(server)
        mta.negotiate()
        assert mta.mail()[0] == "c"
        assert mta.rcpt()[0] == "c"
        late.waits = "eom"
        mta.raw(packet("E"))
        command, reply = mta.receive()  # no header before it: what it had begun is dropped
        assert (command, reply[:9]) == ("y", b"554 5.3.0")
        assert mta.mail()[0] == "c"
        late.gate.set()
        until(lambda: bool(late.raised))
        assert late.raised == ["bad context"]
        assert mta.rcpt()[0] == "c"
        mta.close()
    assert not [record for record in caplog.records if record.exc_info]


def test_each_message_after_it_has_its_own_answers(late: type[Late], pair: Pair) -> None:
    """A refused recipient is refused alone, as by an exception."""
    with Milter.Server(late, None, deadline=MOMENT) as server:
        mta = pair(server)
        mta.negotiate()
        assert mta.mail()[0] == "c"
        late.waits = "envrcpt"
        assert mta.rcpt()[0] == "y"
        assert mta.rcpt()[0] == "c"
        mta.raw(packet("A"))
        assert mta.mail()[0] == "c"
        late.gate.set()
        mta.close()
        until(lambda: "envrcpt returns" in late.seen)
    assert late.seen.count("abort") == 2


def test_a_late_exception_is_told(
    late: type[Late], pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    class Raising(late):  # type: ignore[misc, valid-type]
        def hello(self, name: str) -> int:
            self._wait("hello")
            raise ValueError("too late")

    own = logging.getLogger("Milter")  # with one of its own the hook of exceptions is left alone
    with Milter.Server(Raising, None, deadline=MOMENT, logger=own) as server:
        mta = pair(server)
        mta.negotiate()
        late.waits = "hello"
        assert mta.helo("x")[0] == "y"
        late.gate.set()
        until(lambda: any(record.exc_info for record in caplog.records))
        mta.close()


def test_the_connection_ends_while_it_is_late(late: type[Late], pair: Pair) -> None:
    with Milter.Server(late, None, deadline=MOMENT) as server:
        mta = pair(server)
        mta.negotiate()
        assert mta.mail()[0] == "c"
        late.waits = "envrcpt"
        assert mta.rcpt()[0] == "y"
        mta.close()
        until(lambda: "close" in late.seen)
        assert "envrcpt returns" not in late.seen
        assert server.stats.open == 0
        late.gate.set()
        until(lambda: "envrcpt returns" in late.seen)


def test_a_server_that_ends_leaves_it_behind(late: type[Late], pair: Pair) -> None:
    server = Milter.Server(late, None, deadline=MOMENT).start()
    mta = pair(server)
    mta.negotiate()
    late.waits = "hello"
    assert mta.helo("x")[0] == "y"
    server.abandon()
    server.join()
    assert server.stats.left == 1
    late.gate.set()
    until(lambda: server.stats.left == 0)
    mta.close()


@pytest.mark.parametrize("deadline", [-1, 1e9])
def test_deadlines_out_of_range(deadline: float) -> None:
    with pytest.raises(milter.error, match="deadline"):
        Milter.Server(Milter.Base, None, deadline=deadline)


@pytest.fixture(autouse=True)
def levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
