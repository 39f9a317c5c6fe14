"""Plays transcripts on implementations: the MTA's part over a socket, and the filter's part through
filters/scripted.c or filters/scripted.py, which report every callback and do what they are told."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from Milter.testing.transcript import (
    STEPS,
    Answered,
    Called,
    Did,
    Event,
    Returned,
    Sent,
    Transcript,
    Value,
    line_of,
)

HERE = Path(__file__).parent
DEADLINE = 20.0  # seconds; only a filter that hangs reaches it

#: What transcripts are played on, with the tags of lines that are for it.
IMPLEMENTATIONS = {
    "libmilter": ("theirs", "c", "compatible"),
    "mkit-c": ("ours", "c", "compatible"),
    "pymilter": ("theirs", "python", "compatible"),
    "mkit-functions": ("ours", "python", "strict"),
    "mkit-class": ("ours", "python", "strict"),
}
TAGS = {name: {name, *tags} for name, tags in IMPLEMENTATIONS.items()}

#: The bit by which an MTA is told to leave a step out.
OMISSIONS = {
    "connect": 0x1,
    "helo": 0x2,
    "envfrom": 0x4,
    "envrcpt": 0x8,
    "body": 0x10,
    "header": 0x20,
    "eoh": 0x40,
    "unknown": 0x100,
    "data": 0x200,
}
ALL_OMISSIONS = sum(OMISSIONS.values())


class Mismatch(AssertionError):
    """An implementation did something else than the transcript says."""


@dataclass(frozen=True)
class Setup:
    """What a filter is made with: the head of a transcript."""

    version: int
    actions: int
    steps: tuple[str, ...]

    @property
    def omitted(self) -> int:
        return sum(bit for step, bit in OMISSIONS.items() if step not in self.steps)


def setup_of(transcript: Transcript, implementation: str) -> Setup:
    """What the head says: version, actions, without, only, with."""
    head = dict(transcript.head)
    steps = set(STEPS) - {"negotiate"} - set(head.get("without", "").split())
    if "only" in head:
        steps &= {*head["only"].split(), "close"}
    if "python" in TAGS[implementation] or any(
        isinstance(entry.event, Called) and entry.event.step == "negotiate"
        for entry in transcript.entries
    ):
        steps.add("negotiate")
    steps |= set(head.get("with", "").split())
    return Setup(
        int(head.get("version", "6")),
        int(head.get("actions", "0"), 0),
        tuple(step for step in STEPS if step in steps),
    )


# ------------------------------------------------------------------------------------- filters


@dataclass
class Programs:
    """Where things are. scripted: the C filter's binary; library: the folder of our libmilter;
    folder: for sockets and output."""

    scripted: Path
    library: Path
    oracle_python: str
    folder: Path

    def command(self, implementation: str, setup: Setup, paths: list[str]) -> list[str]:
        if "c" in TAGS[implementation]:
            numbers = [str(setup.version), str(setup.actions)]
            return [str(self.scripted), *paths, *numbers, *setup.steps]
        python = (
            [self.oracle_python]
            if implementation == "pymilter"
            else [sys.executable, "-W", "error"]
        )
        way = "class" if implementation == "mkit-class" else "functions"
        return [*python, str(HERE / "filters" / "scripted.py"), *paths, way, *setup.steps]


class Filter:
    """A filter that runs, and the socket on which it is told what to do."""

    def __init__(self, programs: Programs, implementation: str, setup: Setup) -> None:
        self.implementation = implementation
        self.setup = setup
        folder = programs.folder / implementation
        folder.mkdir(exist_ok=True)
        self.path, control = str(folder / "socket"), str(folder / "control")
        self.output = folder / "output"
        for path in (self.path, control):
            Path(path).unlink(missing_ok=True)
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if implementation == "mkit-c":
            env["LD_LIBRARY_PATH"] = str(programs.library)
        with self.output.open("wb") as output, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(control)
            listener.listen()
            listener.settimeout(DEADLINE)
            self.process = subprocess.Popen(
                programs.command(implementation, setup, [self.path, control]),
                stdout=output,
                stderr=output,
                env=env,
            )
            try:
                self.control = listener.accept()[0]
            except TimeoutError:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"no filter: {self.output.read_text()}") from None
        self.control.settimeout(DEADLINE)
        self.stream = self.control.makefile("rwb")

    def connect(self) -> socket.socket:
        """A connection of the MTA, as soon as the filter listens."""
        end = time.monotonic() + DEADLINE
        while True:
            mta = socket.socket(socket.AF_UNIX)
            try:
                mta.connect(self.path)
                return mta
            except OSError:
                mta.close()
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"no filter: {self.output.read_text()}") from None
            time.sleep(0.005)

    def order(self, *fields: Value | str) -> None:
        """Tells it what to do."""
        self.stream.write(b"%d\n" % len(fields))
        for value in fields:
            data = value if value is None or isinstance(value, bytes) else str(value).encode()
            self.stream.write(b"-1\n" if data is None else b"%d\n%b" % (len(data), data))
        self.stream.flush()

    def report(self) -> list[bytes | None]:
        """What it reports; waits for it."""
        fields: list[bytes | None] = []
        for _ in range(int(self.stream.readline() or "0")):
            length = int(self.stream.readline())
            fields.append(None if length < 0 else self.stream.read(length))
        if not fields:
            raise Mismatch(f"the filter has ended: {self.output.read_text()}")
        return fields

    def kill(self) -> None:
        self.stream.close()
        self.control.close()
        self.process.kill()
        self.process.wait()

    def finish(self) -> None:
        """Ends it; ours must be able to end well."""
        if "ours" in TAGS[self.implementation] and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(DEADLINE)
            status = self.process.poll()
            output = self.output.read_text()
            self.kill()
            assert status == 0, f"{self.implementation} ended with {status}: {output}"
        self.kill()


class Filters:
    """Filter processes: one for each implementation, another one when a transcript needs it."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.running: dict[str, Filter] = {}

    def get(self, implementation: str, setup: Setup) -> Filter:
        found = self.running.get(implementation)
        if not found or found.setup != setup:
            self.drop(implementation)
            found = self.running[implementation] = Filter(self.programs, implementation, setup)
        return found

    def drop(self, implementation: str) -> None:
        found = self.running.pop(implementation, None)
        if found:
            found.finish()

    def kill(self, implementation: str) -> None:
        self.running.pop(implementation).kill()

    def finish(self) -> None:
        for implementation in list(self.running):
            self.drop(implementation)


# --------------------------------------------------------------------------------------- ways


def _whole(data: bytes, _: str) -> Iterator[bytes]:
    yield data


def _bytes(data: bytes, _: str) -> Iterator[bytes]:
    """Byte by byte; of long inputs only the ends."""
    edge = 2000
    cuts = sorted({*range(edge), *range(len(data) - edge, len(data))} & {*range(1, len(data))})
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        yield data[start:end]


def _random(data: bytes, title: str) -> Iterator[bytes]:
    """In cuts that are the same in every run."""
    rng = random.Random(title)
    start = 0
    while start < len(data):
        end = start + rng.choice((1, 2, 3, 4, 5, 6, 9, 17, 40, 4096, 65536))
        yield data[start:end]
        start = end


#: How the MTA's bytes are sent: packet by packet, each when the one before it has been answered,
#: or all of them in pieces, without waiting for answers.
WAYS = {"packets": None, "whole": _whole, "bytes": _bytes, "random": _random}
THEIR_WAYS = ("packets", "whole")


def ways_of(implementation: str) -> tuple[str, ...]:
    return THEIR_WAYS if "theirs" in TAGS[implementation] else tuple(WAYS)


# --------------------------------------------------------------------------------------- play


class Player:
    """One connection while it is played."""

    def __init__(self, running: Filter, negotiates: bool) -> None:
        self.filter = running
        self.negotiates = negotiates
        self.mta = running.connect()
        self.pieces: deque[bytes] = deque()
        self.ends = False  # the MTA sends no more after them
        self.received = b""
        self.due = b""
        self.closed = False
        self.reported: list[bytes | None] = []

    def _is_read(self) -> bool:
        """Whether the filter has taken everything that was sent."""
        left = struct.unpack("i", fcntl.ioctl(self.mta, termios.TIOCOUTQ, b"\0" * 4))[0]
        return bool(left <= 1)  # an empty queue counts for 0 or 1

    def write(self) -> None:
        """Sends what can be sent; pieces one by one, each when the one before it was read."""
        try:
            while self.pieces and self._is_read():
                piece = self.pieces.popleft()
                done = self.mta.send(piece, socket.MSG_DONTWAIT)
                if done < len(piece):
                    self.pieces.appendleft(piece[done:])
            if self.ends and not self.pieces:
                self.mta.shutdown(socket.SHUT_WR)
                self.ends = False
        except BlockingIOError:
            self.pieces.appendleft(piece)
        except ConnectionError:  # the filter has closed: wait() sees it
            self.pieces.clear()

    def wait(self) -> None:
        """Until the filter does something: a report, bytes, or the end."""
        end = time.monotonic() + DEADLINE
        while True:
            self.write()
            sources = [self.filter.control] + ([] if self.closed else [self.mta])
            ready = select.select(sources, [], [], 0 if self.pieces else 1)[0]
            if self.filter.control in ready:
                self.reported = self.filter.report()
                if self.reported[0] == b"negotiate" and not self.negotiates:
                    setup = self.filter.setup
                    self.filter.order("return", 0, setup.actions, setup.omitted)
                    self.reported = []
                    continue
                return
            if ready:
                try:
                    data = self.mta.recv(1 << 18)
                except ConnectionError:
                    data = b""
                self.received += data
                self.closed = not data
                return
            if time.monotonic() > end:
                raise Mismatch("nothing happens")

    def report(self) -> list[bytes | None]:
        while not self.reported:
            if self.closed:
                raise Mismatch("the connection is closed")
            self.wait()
        found, self.reported = self.reported, []
        return found

    def await_answers(self) -> None:
        while len(self.received) < len(self.due) and not self.closed:
            self.wait()
            self.check_quiet()
        self.check_answers(self.received[: len(self.due)])

    def check_answers(self, found: bytes) -> None:
        if found != self.due:
            raise Mismatch(f"answers: {shown(found)}\ninstead of: {shown(self.due)}")

    def check_quiet(self) -> None:
        if self.reported:
            raise Mismatch(f"a callback: {self.reported}")

    def finish(self) -> None:
        """The filter closes the connection, after nothing else."""
        while not self.closed:
            self.wait()
            self.check_quiet()
        self.check_answers(self.received)
        if select.select([self.filter.control], [], [], 0)[0]:
            raise Mismatch(f"a callback: {self.filter.report()}")


def shown(data: bytes) -> str:
    """Answers as a transcript writes them."""
    lines = []
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        lines.append(line_of(Answered(data[:size])))
        data = data[size:]
    return ", ".join(lines) or "none"


def _fields(event: Called) -> list[bytes | None]:
    return [event.step.encode()] + [
        str(arg).encode() if isinstance(arg, int) else arg for arg in event.args
    ]


def _perform(player: Player, event: Event, in_step: bool) -> None:
    """One line of a transcript. in_step: answers are awaited where they stand. (They may come
    earlier: what libmilter writes in a callback, ours writes after it.)"""
    if isinstance(event, Sent):
        if event.data is None:
            player.ends = True
        else:
            player.pieces.append(event.data)
        player.write()
    elif isinstance(event, Answered):
        player.due += event.data
        if in_step:
            player.await_answers()
    elif isinstance(event, Called):
        found = player.report()
        want = _fields(event)
        if found != want and (len(want) > 1 or found[0] != want[0]):  # none stand for any
            raise Mismatch(f"a callback: {found}")
    elif isinstance(event, Did):
        player.filter.order(event.call, *event.args)
        found = player.report()
        want = event.result.encode() if isinstance(event.result, str) else event.result
        if found != [want]:
            raise Mismatch(f"its result: {found[0]!r}")
    else:
        player.filter.order("return", event.verdict, *event.options)


def play(running: Filter, events: list[Event], way: str, title: str) -> None:
    """Plays one connection. Raises Mismatch, which names the line."""
    cut = WAYS[way]
    if cut:
        sent = [event for event in events if isinstance(event, Sent)]
        data = b"".join(event.data or b"" for event in sent)
        pieces: list[Event] = [Sent(piece) for piece in cut(data, title)]
        ends: list[Event] = [Sent(None)] if any(event.data is None for event in sent) else []
        calls = [event for event in events if not isinstance(event, Sent | Answered)]
        answers = [event for event in events if isinstance(event, Answered)]
        events = [*pieces, *ends, *calls, *answers]
    negotiates = any(isinstance(event, Called) and event.step == "negotiate" for event in events)
    player = Player(running, negotiates)
    text = "the end"
    try:
        for event in events:
            text = line_of(event).strip()
            _perform(player, event, in_step=not cut)
        text = "the end"
        player.finish()
    except Mismatch as error:
        raise Mismatch(f"at: {text[:500]}\n{error}") from None
    finally:
        player.mta.close()


def is_tainting(events: list[Event], setup: Setup) -> bool:
    """Whether libmilter remembers this connection in the ones that follow it: it keeps NO* bits
    for the whole process (protocol sheet 2.4, 10)."""
    bits = setup.omitted
    for event in events:
        if isinstance(event, Returned) and event.options:
            bits |= event.options[1]
    return bool(bits & ALL_OMISSIONS)
