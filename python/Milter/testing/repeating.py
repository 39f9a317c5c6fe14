"""The same messages again and again: a quick load, by one connection or several.

A message is sent twice in the ordinary way. From then on its packets, as they were the second time,
are sent as bytes, and of the answers only what decides is looked at. Where that leads to other
steps than before, the message is sent once more in the ordinary way.
"""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from Milter import _wire
from Milter.testing.errors import FilterClosed, FilterTimeout, ProtocolError
from Milter.testing.mta import MTA
from Milter.testing.result import Result, Verdict
from Milter.testing.session import Session
from Milter.testing.steps import ANSWERS, STEPS
from Milter.testing.trace import Packet

__all__ = ["Job", "Load", "repeat"]

_READ = 1 << 16
_QUEUE_ID = b"QUEUEID"  # and three digits: see Conversation
_STEP_OF = {step.command: name for name, step in STEPS.items()}
_FINAL = (*ANSWERS, b"y")
_ABORT = _wire.encode(_wire.TO_FILTER, b"A")
# Answers, and first digits of replies, that end a message.
_DECIDE = {
    b"a": Verdict.ACCEPTED,
    b"d": Verdict.DISCARDED,
    b"r": Verdict.REJECTED,
    b"t": Verdict.TEMPFAILED,
    b"5": Verdict.REJECTED,
    b"4": Verdict.TEMPFAILED,
}


@dataclass(frozen=True)
class Job:
    """A message to send: its name for people, and what MTA.send takes."""

    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass
class Load:
    """What came of it.

    seconds: from the first message to the last. latencies: of each message in nanoseconds, from
    its first byte to the last answer, sorted. verdicts: how many messages had each. error: the
    first one, which ended it, and the message's name.
    """

    seconds: float = 0.0
    latencies: array[int] = field(default_factory=lambda: array("Q"))
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    error: tuple[str, Exception] | None = None

    @property
    def messages(self) -> int:
        """How many messages were answered."""
        return len(self.latencies)

    def percentile(self, share: float) -> float:
        """The latency in seconds that this share of the messages, 0 to 1, did not exceed."""
        if not self.latencies:
            return 0.0
        at = min(int(share * len(self.latencies)), len(self.latencies) - 1)
        return self.latencies[at] / 1e9


def repeat(
    make: Callable[[], MTA],
    jobs: Sequence[Job],
    times: int,
    parallel: int = 1,
    watch: Callable[[int], None] = lambda _: None,
) -> Load:
    """Sends each message so many times, and says how long that took.

    make: makes the MTA of a connection; it is used with keep_bytes. parallel: connections, each
    with a thread. watch: called now and then with the number of messages that are done. The first
    error ends it. KeyboardInterrupt ends it as well, and is raised once all have stopped.
    """
    load = Load()
    numbers = itertools.count()
    stop = threading.Event()
    connections = [_Connection(make(), jobs, times) for _ in range(parallel)]
    threads = [
        threading.Thread(target=each.run, args=(numbers, stop), daemon=True) for each in connections
    ]
    begin = time.perf_counter()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                watch(sum(len(each.latencies) for each in connections))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    load.seconds = time.perf_counter() - begin
    for each in connections:
        load.latencies.extend(each.latencies)
        load.verdicts.update(each.verdicts)
        load.error = load.error or each.error
    load.latencies = array("Q", sorted(load.latencies))
    return load


class _Connection:
    """What one thread does."""

    def __init__(self, mta: MTA, jobs: Sequence[Job], times: int) -> None:
        mta.keep_bytes = True
        self._mta = mta
        self._jobs = jobs
        self._times = times
        self._script: _Script | None = None
        self._latest: tuple[Job, object] | None = None  # sent in the ordinary way, and its session
        self.latencies: array[int] = array("Q")
        self.verdicts: Counter[Verdict] = Counter()
        self.error: tuple[str, Exception] | None = None

    def run(self, numbers: itertools.count[int], stop: threading.Event) -> None:
        """Sends messages until there are no more."""
        total = len(self._jobs) * self._times
        name = ""
        try:
            while (number := next(numbers)) < total and not stop.is_set():
                job = self._jobs[number // self._times]
                name = job.name
                begin = time.perf_counter_ns()
                verdict = self._send(job, number)
                self.latencies.append(time.perf_counter_ns() - begin)
                self.verdicts[verdict] += 1
            self._end_script()
            self._mta.close()
        except Exception as error:
            self.error = (name, error)
            stop.set()
        finally:
            self._mta.vanish()

    def _send(self, job: Job, number: int) -> Verdict:
        if self._script:
            if self._script.job is job:
                verdict = self._script.play(number)
                if verdict:
                    return verdict
                self._end_script()
                self._mta.vanish()  # and what the filter has heard of the message goes with that
            self._end_script()
        result = self._mta.send(*job.arguments, **job.options)
        session = self._mta.current
        if session and not session.closed and not session.held:
            if self._latest == (job, session) and result.passed:
                self._script = _Script(job, result, session)
            self._latest = (job, session)
        return result.verdict

    def _end_script(self) -> None:
        if self._script:
            self._script.end()
        self._script = None


class _Turn(NamedTuple):
    """What is sent at once, in parts between which the queue id stands; the answer to it as it was;
    the last packet of that, which decides; and the step."""

    parts: list[bytes]
    answer: bytes
    final: Packet | None
    step: str


class _Script:
    """A message as bytes, to be sent again on the socket on which it was sent before."""

    def __init__(self, job: Job, result: Result, session: Session) -> None:
        self.job = job
        self._verdict = result.verdict
        self._session = session
        self._connection = session._socket
        self._turns = [*_turns(result.passed or ())]
        self._connection.settimeout(session._timeout)

    def end(self) -> None:
        """Leaves the socket as it was."""
        if self._connection.fileno() >= 0:
            self._connection.setblocking(False)

    def play(self, number: int) -> Verdict | None:
        """Sends it. None if the filter's answers lead to other steps than before: then it is in
        the midst of the message. Raises ProtocolError and CallbackError."""
        connection = self._connection
        queue_id = b"%s%03d" % (_QUEUE_ID, number % 1000)
        verdict = self._verdict
        step = "mail"
        try:
            for parts, answer, final, step in self._turns:
                connection.sendall(queue_id.join(parts))
                if answer and (data := connection.recv(_READ)) != answer:
                    packet, quarantined = self._read(step, data)
                    decided = _decided(step, packet, quarantined)
                    if decided and step == "eom":
                        verdict = decided
                    elif decided and packet != final:
                        connection.sendall(_ABORT)
                        verdict = decided
                        break
                    elif packet != final:
                        return None
        except TimeoutError:
            raise FilterTimeout(step, self._session._late()) from None
        except OSError:
            raise _closed(step) from None
        self._session._settle()
        return verdict

    def _read(self, step: str, data: bytes) -> tuple[Packet, bool]:
        """The packet that ends an answer of which this has come, and whether the answer holds the
        message."""
        decoder = _wire.Decoder(_wire.TO_MTA)
        quarantined = False
        while data:
            decoder.feed(data)
            try:
                while packet := decoder.next():
                    quarantined |= packet[0] == b"q"
                    if packet[0] in _FINAL:
                        if decoder.pending:
                            raise ProtocolError(step, "it was answered twice", "unasked")
                        return packet, quarantined
            except _wire.PacketError as error:
                raise ProtocolError(step, f"malformed packet, {error}", "packet") from error
            data = self._connection.recv(_READ)
        raise _closed(step)


def _decided(step: str, packet: Packet, quarantined: bool) -> Verdict | None:
    """What becomes of a message by an answer; None if it goes on, or if more than this must be
    known."""
    if packet[0] == b"y" and packet[1].startswith(b"421"):
        return None
    kind = _DECIDE.get(packet[1][:1] if packet[0] == b"y" else packet[0])
    if step == "eom" and quarantined and kind in (None, Verdict.ACCEPTED):
        return Verdict.QUARANTINED
    if step == "eom" and kind is None:
        return Verdict.ACCEPTED
    return None if step == "rcpt" else kind


def _closed(step: str) -> FilterClosed:
    return FilterClosed(step, "the filter closed the connection")


def _turns(passed: Sequence[tuple[int, bytes]]) -> list[_Turn]:
    turns = []
    said = b""
    step = "mail"
    for direction, run in itertools.groupby(passed, lambda each: each[0]):
        packets = [data for _, data in run]
        if direction == _wire.TO_FILTER:
            said = b"".join(packets)
            step = next(
                (_STEP_OF[data[4:5]] for data in reversed(packets) if data[4:5] in _STEP_OF), step
            )
        else:
            answer = b"".join(packets)
            decoder = _wire.Decoder(_wire.TO_MTA)
            decoder.feed(answer)
            final = None
            while packet := decoder.next():
                final = packet
            turns.append(_Turn(_parts(said), answer, final, step))
            said = b""
    return [*turns, _Turn(_parts(said), b"", None, step)] if said else turns


def _parts(said: bytes) -> list[bytes]:
    """Bytes around the queue id that they were sent with."""
    at = said.find(b"i\0" + _QUEUE_ID)
    if at < 0:
        return [said]
    at += 2
    end = said.find(b"\0", at)
    return said.split(said[at:end]) if end - at == len(_QUEUE_ID) + 3 else [said]
