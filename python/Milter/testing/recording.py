"""Recording: stands between an MTA and a filter, and writes each connection to a file of its own,
in the format of Milter.testing.transcript.

The mail comes first. Whatever happens to the writing, all bytes are passed on as they came.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import IO

from Milter import _wire
from Milter.testing import spec as specs
from Milter.testing.errors import ConnectError
from Milter.testing.masking import mask
from Milter.testing.transcript import Answered, Sent, line_of

__all__ = ["Packets", "Recorder"]

_logger = logging.getLogger("Milter")
#: Bytes taken at once, and the most that waits for a peer that does not read.
_CHUNK = 1 << 16
#: Bytes that may wait to be written, of all connections.
_BACKLOG = 64 << 20
#: Bytes of a packet; a peer that announces more is written down as it comes, in pieces.
_LONGEST = 1 << 20
#: Seconds until the next try after a connection could not be accepted.
_PAUSE = 0.2
#: Seconds between two lines of one kind: of the filter that is not there; of files that cannot be
#: written, where some can be between them, as on a disk that is nearly full.
_EVERY, _SELDOM = 1.0, 60.0
#: Seconds that a filter has to close a connection that was ended.
_GRACE = 5.0


# Of all recorders of the process: two of them may write into one folder.
_numbers = count(1)


class _Warning:
    """A kind of line, which comes at most once in so many seconds; one that stands for several says
    for how many. From any thread."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._next = -math.inf
        self._held = 0

    def tell(self, text: str) -> None:
        """Logs it, or counts it."""
        with self._lock:
            self._held += 1
            if self._clock() < self._next:
                return
            count, self._held = self._held, 0
            self._next = self._clock() + self._seconds
        _logger.warning("%s%s", text, f" ({count} times)" if count > 1 else "")


class Packets:
    """Cuts what one side sends into packets; a part that is none comes in pieces."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._lost = False  # the lengths make no sense any more

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes bytes, and yields what is whole."""
        self._rest += data
        while not self._lost and len(self._rest) >= 4:
            size = 4 + int.from_bytes(self._rest[:4], "big")
            self._lost = size > _LONGEST
            if self._lost or len(self._rest) < size:
                break
            yield bytes(self._rest[:size])
            del self._rest[:size]
        if self._lost:
            yield from self.end()

    def end(self) -> Iterator[bytes]:
        """What is left over, if anything is."""
        if self._rest:
            yield bytes(self._rest)
            self._rest.clear()


class _File:
    """One connection as it is written. Used by the writer's thread alone, but for `lost`."""

    def __init__(self, path: Path, masked: bool) -> None:
        self.lost = False  # nothing more of it is kept
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._masked = masked
        self._packets = {"mta": Packets(), "filter": Packets()}
        self._file: IO[str] | None = None

    def add(self, who: str, data: bytes) -> None:
        """Writes what "mta" or "filter" sent; b"" for its end. Raises OSError."""
        if self._file is None:
            fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = open(fd, "w", encoding="ascii")  # noqa: SIM115 - until it is over
            masked = "masked: yes\n" if self._masked else ""
            self._file.write(f"== {self._path.stem}\n{masked}")
        cut = self._packets[who]
        for packet in cut.feed(data) if data else cut.end():
            self._file.write(self._line(who, packet))
        if not data:
            closed = "# the filter has closed" if who == "filter" else line_of(Sent(None))
            self._file.write(closed + "\n")

    def _line(self, who: str, packet: bytes) -> str:
        if self._masked:
            packet = mask(_wire.TO_FILTER if who == "mta" else _wire.TO_MTA, packet)
        return line_of(Sent(packet) if who == "mta" else Answered(packet)) + "\n"

    def finish(self) -> None:
        """Ends it: now it is there under its name. Raises OSError."""
        if self._file is not None:
            self._file.close()
            self._part.rename(self._path)

    def drop(self) -> None:
        """Takes away what there is of it."""
        self.lost = True
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
            self._file = None


class _Writer:
    """The thread that writes. A connection that it cannot write, or not as fast as it goes on, is
    left out, which is told once until one could be written again, and then a minute later at the
    earliest."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[_File, str, bytes] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._failing = False
        self._warning = _Warning(_SELDOM)
        self._thread = threading.Thread(target=self._run, name="recorder's writer", daemon=True)
        self._thread.start()

    def put(self, file: _File, who: str, data: bytes) -> None:
        """Notes what "mta" or "filter" sent, b"" for its end, or that it is "over". Never waits."""
        with self._lock:
            file.lost |= self._waiting + len(data) > _BACKLOG
            kept = b"" if file.lost else data
            self._waiting += len(kept)
        if who == "over" or not file.lost:
            self._queue.put((file, who, kept))

    def close(self) -> None:
        """Writes what waits, and ends."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            file, who, data = item
            with self._lock:
                self._waiting -= len(data)
            try:
                self._write(file, who, data)
            except OSError as error:
                file.drop()
                self._warn(error.strerror or str(error))

    def _write(self, file: _File, who: str, data: bytes) -> None:
        if file.lost:
            if who == "over":
                file.drop()
                self._warn("it comes faster than it can be written")
        elif who == "over":
            file.finish()
            self._failing = False
        else:
            file.add(who, data)

    def _warn(self, why: str) -> None:
        if not self._failing:
            self._warning.tell(f"a connection is not recorded: {why}; the mail goes on")
        self._failing = True


class _Way:
    """One direction of a connection: what was taken from one side and waits for the other."""

    def __init__(self, who: str, source: socket.socket, sink: socket.socket) -> None:
        self.who = who
        self.source = source
        self.sink = sink
        self.waiting = b""
        self.ended = False  # the source sends no more
        self.over = False  # and the sink knows, or is gone

    def take(self) -> bytes | None:
        """What the source has sent now: b"" at its end, None for nothing yet."""
        try:
            data = self.source.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self.waiting = data
        self.ended = not data
        return data

    def give(self) -> None:
        """Gives the sink what it takes now."""
        try:
            if self.waiting:
                self.waiting = self.waiting[self.sink.send(self.waiting) :]
            if self.ended and not self.waiting:
                self.over = True
                self.sink.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self.over = True


class Recorder:
    """Listens in the filter's place, connects to the filter for each connection that it takes, and
    writes what passes into `folder`, a file for each connection when it is over.

    listen, to: socket specifications; `to` is where the filter is. masked: without what the
    mail says (Milter.testing.masking). mode: of a unix socket that is listened on. timeout:
    seconds to wait for the filter to take a connection; without one the MTA's is closed.

    A thread for each connection; of the mail at most 64 KiB wait in each direction. As a context
    manager it runs in a thread of its own, and connections have 30 s to end at its end. Raises
    ConnectError if it cannot listen, OSError for the folder.
    """

    def __init__(
        self,
        listen: str,
        to: str,
        folder: Path,
        *,
        masked: bool = False,
        mode: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._to = to
        self._folder = folder
        self._masked = masked
        self._timeout = timeout
        self._started = time.strftime("%Y%m%dT%H%M%S")
        self._open: dict[threading.Thread, socket.socket] = {}
        self._stopping = threading.Event()
        self._listener = specs.listen(listen, mode)
        self._wake, self._woken = socket.socketpair()
        self.address = specs.address_of(self._listener)
        self._writer = _Writer()
        self._no_filter = _Warning(_EVERY)
        self._no_connection = _Warning(_EVERY)
        self._thread = threading.Thread(target=self.run, name="recorder")

    def run(self) -> None:
        """Takes connections until stop()."""
        ready = select.poll()
        ready.register(self._woken, select.POLLIN)
        ready.register(self._listener, select.POLLIN)
        while True:
            stopping = self._stopping.is_set()  # what waits by now is taken all the same
            try:
                mta, _ = self._listener.accept()
            except BlockingIOError:
                if stopping:
                    return
                ready.poll()
                continue
            except OSError as error:  # no descriptors, no memory: some will be free again
                self._no_connection.tell(f"cannot accept a connection: {error}")
                self._stopping.wait(_PAUSE)
                continue
            name = f"{self._started}-{os.getpid()}-{next(_numbers):06}.transcript"
            file = _File(self._folder / name, self._masked)
            thread = threading.Thread(target=self._serve, args=(mta, file), daemon=True)
            self._open[thread] = mta
            thread.start()

    def stop(self) -> None:
        """Takes no more connections; from any thread or signal handler. Those that there are go on
        until close()."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def close(self, seconds: float = 30.0) -> None:
        """Waits so long for the connections to end, then ends them; all files are there then."""
        self.stop()
        specs.unlisten(self._listener)
        end = time.monotonic() + seconds
        for thread, mta in list(self._open.items()):
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                with contextlib.suppress(OSError):
                    mta.shutdown(socket.SHUT_RDWR)
                thread.join(_GRACE)
        self._writer.close()
        self._wake.close()
        self._woken.close()

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()
        self.close()

    def _serve(self, mta: socket.socket, file: _File) -> None:
        try:
            with mta, specs.connect(self._to, self._timeout) as filter_:
                self._pass_on(mta, filter_, file)
        except ConnectError as error:
            self._no_filter.tell(str(error))
        finally:
            self._open.pop(threading.current_thread(), None)

    def _pass_on(self, mta: socket.socket, filter_: socket.socket, file: _File) -> None:
        mta.setblocking(False)
        filter_.setblocking(False)
        ways = [_Way("mta", mta, filter_), _Way("filter", filter_, mta)]
        while not all(way.over for way in ways):
            ready = _wait(ways)
            for way in ways:
                if way.source.fileno() in ready and not (way.waiting or way.ended):
                    data = way.take()
                    if data is not None:
                        self._writer.put(file, way.who, data)
                if way.waiting or way.ended:
                    way.give()
        self._writer.put(file, "over", b"")


def _wait(ways: list[_Way]) -> set[int]:
    """Waits until a side can be read or written that is to be; returns those with something to
    read, or an end."""
    wanted: dict[int, int] = {}
    for way in ways:
        if not way.over:
            side, what = (way.sink, select.POLLOUT) if way.waiting else (way.source, select.POLLIN)
            wanted[side.fileno()] = wanted.get(side.fileno(), 0) | what
    poll = select.poll()
    for fd, what in wanted.items():
        poll.register(fd, what)
    return {fd for fd, what in poll.poll() if what & ~select.POLLOUT}
