"""Replaying: sends a filter what a transcript says of the MTA, as an MTA does, and compares what it
answers with what was answered then.

The filter is awaited at each step, and may answer otherwise: what an MTA would then not send is
left out. Callbacks that a transcript may name are not looked at: they are inside the filter.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from Milter import _wire
from Milter.testing.masking import mask
from Milter.testing.recording import Packets
from Milter.testing.trace import format_packet
from Milter.testing.transcript import Answered, Sent, Transcript, line_of

__all__ = ["Difference", "replay"]

#: Answers after which nothing more comes for a step; the first two let the message go on.
_GOES_ON: Final = frozenset(b"cs")
_FINAL: Final = _GOES_ON | frozenset(b"adrtyf4O")
#: Answers by which a recipient alone is refused.
_REFUSES: Final = frozenset(b"rty")
_CONTINUE: Final = b"\0\0\0\1c"
_UNANSWERED: Final = frozenset(b"DAQK")
#: Where a message begins or is over, whatever was before.
_STARTS_ANEW: Final = frozenset(b"MAQK")
#: Command -> names of the options by which it is not sent, and not answered.
_OPTIONS: Final = {
    ord("C"): ("NOCONNECT", "NR_CONN"), ord("H"): ("NOHELO", "NR_HELO"),
    ord("M"): ("NOMAIL", "NR_MAIL"), ord("R"): ("NORCPT", "NR_RCPT"),
    ord("T"): ("NODATA", "NR_DATA"), ord("U"): ("NOUNKNOWN", "NR_UNKN"),
    ord("L"): ("NOHDRS", "NR_HDR"), ord("N"): ("NOEOH", "NR_EOH"), ord("B"): ("NOBODY", "NR_BODY"),
}  # fmt: skip
_NO_SEND: Final = sum(_wire.PROTOCOL[no_send] for no_send, _ in _OPTIONS.values())


@dataclass(frozen=True)
class Difference:
    """A step at which a filter answers otherwise.

    sent: the packet of the MTA; recorded, now: what it was answered. All as lines that people read.
    """

    sent: str
    recorded: tuple[str, ...]
    now: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"@@ {self.sent}"]
        lines += [f"-{line}" for line in self.recorded or ["no answer"]]
        lines += [f"+{line}" for line in self.now or ["no answer"]]
        return "\n".join(lines)


@dataclass
class _Step:
    """A packet of the MTA, and what it was answered."""

    packet: bytes
    answers: list[bytes]

    @property
    def command(self) -> int:
        return self.packet[4] if len(self.packet) > 4 else 0


def replay(
    transcript: Transcript, connection: socket.socket, ignore: re.Pattern[bytes] | None = None
) -> list[Difference]:
    """Plays one transcript on a new connection to a filter, and closes it.

    ignore: what matches it in an answer is not compared. Where the transcript is masked, answers
    are compared as they look masked. The connection's timeout is that for each answer. Raises
    ValueError for a transcript that goes on from another one.
    """
    if transcript.values("after"):
        raise ValueError(f"{transcript.title}: it goes on from another transcript, which is not it")
    with connection:
        return list(_Player(transcript, connection, ignore).play())


def _steps(transcript: Transcript) -> list[_Step]:
    """What the MTA sent, each with the answers that came before the next command."""
    steps: list[_Step] = []
    cut = {Sent: Packets(), Answered: Packets()}
    for event in transcript.events():
        if not isinstance(event, Sent | Answered):
            continue
        for packet in cut[type(event)].feed(event.data or b""):
            if isinstance(event, Sent):
                steps.append(_Step(packet, []))
            elif steps:
                steps[-1].answers.append(packet)
    steps += [_Step(rest, []) for rest in cut[Sent].end()]
    return steps


class _Player:
    """One connection while it is played."""

    def __init__(
        self, transcript: Transcript, connection: socket.socket, ignore: re.Pattern[bytes] | None
    ) -> None:
        self._steps = _steps(transcript)
        self._connection = connection
        self._ignore = ignore
        self._masked = transcript.values("masked") == ["yes"]
        self._packets = Packets()
        self._received: list[bytes] = []
        self._ended = ""  # why nothing more comes
        self._protocol: int | None = None  # what the filter negotiates now
        self._recorded = 0  # and what it did then
        self._in_message = False
        self._recipients: list[bool] = []  # whether it took each
        self._left_out: set[int] = set()  # commands, until the message is over
        self._skipping = False  # until another message begins

    def play(self) -> Iterator[Difference]:
        for at, step in enumerate(self._steps):
            if not self._is_due(step):
                continue
            if not self._send(step.packet):
                break
            awaited = self._is_awaited(step, at)
            now = self._answer() if awaited else []
            if step.command == ord("O"):
                self._negotiate(step.answers, now)
            if self._differs(step, now) or (self._ended and self._answered_later(at)):
                yield self._difference(step, now)
            if self._ended or not self._goes_on(step, now if awaited else step.answers):
                break
        lost = self._ended
        self._finish()
        rest = [*map(self._line, self._received), *([self._ended] if self._ended != lost else [])]
        if rest:
            yield Difference("the end", (), tuple(rest))

    def _is_due(self, step: _Step) -> bool:
        """Whether an MTA would send this after all that the filter has answered."""
        command = step.command
        if self._skipping:
            starts = command in _STARTS_ANEW or (command == ord("D") and step.packet[5:6] == b"M")
            if not starts:
                return False
            self._skipping = False
        no_send = _OPTIONS.get(command, ("", ""))[0]
        content = command in b"TLNBE" and self._in_message
        return not (
            command in self._left_out
            or self._has(no_send)
            or (content and self._recipients and not any(self._recipients))
        )

    def _has(self, option: str) -> bool:
        return bool((self._protocol or 0) & _wire.PROTOCOL.get(option, 0))

    def _is_awaited(self, step: _Step, at: int) -> bool:
        no_reply = _OPTIONS.get(step.command, ("", ""))[1]
        if step.command in _UNANSWERED or self._has(no_reply):
            return False
        # Without an answer it ended there, or ignored what was out of order.
        was_not = bool(self._recorded & _wire.PROTOCOL.get(no_reply, 0))
        return bool(step.answers) or was_not or not self._answered_later(at)

    def _answered_later(self, at: int) -> bool:
        return any(step.answers for step in self._steps[at + 1 :])

    def _negotiate(self, then: list[bytes], now: list[bytes]) -> None:
        self._recorded = _protocol(then) or 0
        self._protocol = _protocol(now)
        if self._protocol is None:
            self._ended = self._ended or "it does not negotiate"
        elif self._recorded & ~self._protocol & _NO_SEND:
            self._ended = "it asks for steps that were not recorded: the rest is not played"

    def _goes_on(self, step: _Step, now: list[bytes]) -> bool:
        """Keeps in mind what an answer means for what is to be sent; False if that is nothing."""
        command = step.command
        last, before = (_last(answers) or ord("c") for answers in (now, step.answers))
        if command in _STARTS_ANEW:
            self._in_message = command == ord("M")
            self._recipients, self._left_out = [], set()
        if command == ord("R"):
            self._recipients.append(last not in _REFUSES)
        if last == ord("s"):
            self._left_out.add(command)
        alone = command == ord("U") or (
            command == ord("R") and {last, before} <= _GOES_ON | _REFUSES
        )
        if alone or (last in _GOES_ON) == (before in _GOES_ON):
            self._in_message &= command != ord("E")
            return True
        self._skipping = True
        return command not in b"CH" and self._send(b"\0\0\0\1A")

    def _differs(self, step: _Step, now: list[bytes]) -> bool:
        """Where no answer was negotiated it counts as CONTINUE: the negotiation differs, not it."""
        no_reply = _wire.PROTOCOL.get(_OPTIONS.get(step.command, ("", ""))[1], 0)
        pairs = ((step.answers, self._recorded), (now, self._protocol or 0))
        then, now = (
            [_CONTINUE] if not answers and protocol & no_reply else answers
            for answers, protocol in pairs
        )
        return [*map(self._comparable, then)] != [*map(self._comparable, now)]

    def _comparable(self, packet: bytes) -> bytes:
        """The packet without its length, and without what is not compared."""
        shown = self._shown(packet)[4:]
        return self._ignore.sub(b"", shown) if self._ignore else shown

    def _shown(self, packet: bytes) -> bytes:
        return mask(_wire.TO_MTA, packet) if self._masked else packet

    def _difference(self, step: _Step, now: list[bytes]) -> Difference:
        lines = [self._line(packet) for packet in now]
        if self._ended:
            lines.append(self._ended)
        recorded = tuple(map(self._line, step.answers))
        return Difference(_line(_wire.TO_FILTER, step.packet), recorded, tuple(lines))

    def _line(self, packet: bytes) -> str:
        return _line(_wire.TO_MTA, self._shown(packet))

    # ------------------------------------------------------------------------------- the socket

    def _send(self, data: bytes) -> bool:
        try:
            self._connection.sendall(data)
        except OSError:
            self._ended = "it has closed the connection"
        return not self._ended

    def _answer(self) -> list[bytes]:
        """The packets of one answer, the last of them final unless the connection ended."""
        while not (self._ended or any(_last([each]) in _FINAL for each in self._received)):
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                self._ended = f"nothing more in {self._connection.gettimeout():g} s"
                break
            except OSError:
                data = b""
            if not data:
                self._ended = "it closes the connection"
                break
            for packet in self._packets.feed(data):
                self._received.append(packet)
        finals = [i for i, packet in enumerate(self._received) if _last([packet]) in _FINAL]
        size = finals[0] + 1 if finals else len(self._received)
        answer, self._received = self._received[:size], self._received[size:]
        return answer

    def _finish(self) -> None:
        """Sends no more, and takes what still comes until the filter closes."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
            while data := self._connection.recv(1 << 16):
                self._received += self._packets.feed(data)
        except TimeoutError:
            self._ended = "it does not close the connection"
        except OSError:
            pass
        self._received += self._packets.end()


def _protocol(answer: list[bytes]) -> int | None:
    """The protocol options of an answer to the negotiation; None if it is no such answer."""
    return int.from_bytes(answer[-1][13:17], "big") if _last(answer) == ord("O") else None


def _last(packets: list[bytes]) -> int:
    return packets[-1][4] if packets and len(packets[-1]) > 4 else 0


def _line(direction: int, packet: bytes) -> str:
    """A packet as people read it."""
    decoder = _wire.Decoder(direction)
    try:
        decoder.feed(packet)
        fields = decoder.next()
    except _wire.PacketError:
        fields = None
    if fields is None:
        return line_of(Sent(packet) if direction == _wire.TO_FILTER else Answered(packet))
    return format_packet(direction, fields)
