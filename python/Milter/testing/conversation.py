"""The MTA's side of one connection to a filter, without any I/O.

Each step is a generator: it puts packets into the output, yields Need.INPUT when it cannot go on
without more bytes from the filter, Need.ROOM when much output has gathered, and returns what the
filter's answer means. Whoever drives it moves the bytes: a blocking socket in session.py.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, NoReturn, TypeVar

from Milter import _wire
from Milter.testing.changes import Change, Quarantine, ReplaceBody, needed_action, read_change
from Milter.testing.client import Client, Macros, bare_macros, macro_key, session_macros
from Milter.testing.draft import Draft, Envelope
from Milter.testing.errors import FilterClosed, ProtocolError, SessionOver
from Milter.testing.profile import Profile
from Milter.testing.reply import Reply, parse_reply
from Milter.testing.result import RecipientResult, Result, Verdict
from Milter.testing.text import bare, bracketed, printable, to_bytes, to_str
from Milter.testing.trace import Packet, Trace, packet_name

__all__ = ["Answer", "Conversation", "Message", "Need", "Offer", "Steps"]

T = TypeVar("T")
_MUCH = 1 << 18  # bytes of output that may gather


class Need(Enum):
    """What a step waits for; the output is to be sent first in both cases."""

    INPUT = "bytes from the filter"
    ROOM = "room in the output"


Steps = Generator[Need, None, T]


@dataclass(frozen=True)
class Answer:
    """A filter's final answer at a step.

    kind: "continue", "accept", "reject", "tempfail", "discard", "skip". reply: what the SMTP
    client is told, with reject and tempfail.
    """

    kind: str
    reply: Reply | None = None

    @property
    def final(self) -> bool:
        """Whether it decides more than "go on"."""
        return self.kind not in ("continue", "skip")

    @property
    def refuses(self) -> bool:
        """Whether the client is told no, for now or for good."""
        return self.kind in ("reject", "tempfail")

    @property
    def hangs_up(self) -> bool:
        """Whether the client is disconnected: any reply with code 421."""
        return self.reply is not None and self.reply.code == 421


GO_ON = Answer("continue")

_VERDICTS = {
    "continue": Verdict.ACCEPTED,
    "accept": Verdict.ACCEPTED,
    "reject": Verdict.REJECTED,
    "tempfail": Verdict.TEMPFAILED,
    "discard": Verdict.DISCARDED,
}

_ANSWERS = {
    b"c": "continue",
    b"a": "accept",
    b"r": "reject",
    b"t": "tempfail",
    b"d": "discard",
    b"s": "skip",
    b"4": "shutdown",
}


class _Step(NamedTuple):
    command: bytes
    omit: int  # NO* bit
    no_reply: int  # NR_* bit
    version: int = 2  # the first one that has it


_BITS = {"": 0, **_wire.PROTOCOL}
_STEPS = {
    "connect": _Step(b"C", _BITS["NOCONNECT"], _BITS["NR_CONN"]),
    "helo": _Step(b"H", _BITS["NOHELO"], _BITS["NR_HELO"]),
    "mail": _Step(b"M", _BITS["NOMAIL"], _BITS["NR_MAIL"]),
    "rcpt": _Step(b"R", _BITS["NORCPT"], _BITS["NR_RCPT"]),
    "data": _Step(b"T", _BITS["NODATA"], _BITS["NR_DATA"], 4),
    "header": _Step(b"L", _BITS["NOHDRS"], _BITS["NR_HDR"]),
    "eoh": _Step(b"N", _BITS["NOEOH"], _BITS["NR_EOH"]),
    "body": _Step(b"B", _BITS["NOBODY"], _BITS["NR_BODY"]),
    "eom": _Step(b"E", 0, 0),
    "unknown": _Step(b"U", _BITS["NOUNKNOWN"], _BITS["NR_UNKN"], 3),
}
# Stages of macro lists by their number (protocol sheet 2.6).
_STAGES = ("connect", "helo", "mail", "rcpt", "data", "eom", "eoh")


@dataclass(frozen=True)
class Offer:
    """What the MTA offers: protocol version, actions, protocol options. The filter's answer has
    the same shape."""

    version: int
    actions: int
    protocol: int


@dataclass(frozen=True)
class Message:
    """A message to deliver: content, sender, recipients each with ESMTP arguments behind the
    address, and values of macros from MAIL on."""

    content: bytes
    sender: Sequence[str]
    rcpts: Sequence[Sequence[str]]
    macros: Macros

    @property
    def envelope(self) -> Envelope:
        """The envelope that the message starts with."""
        return Envelope(
            bare(self.sender[0]),
            tuple(bare(rcpt[0]) for rcpt in self.rcpts),
            " ".join(self.sender[1:]),
            {bare(rcpt[0]): " ".join(rcpt[1:]) for rcpt in self.rcpts if rcpt[1:]},
        )


class Conversation:
    """The MTA's side of one connection.

    output: bytes for the filter; the driver takes them. negotiated: what the filter asked for.
    held: step and answer that decide for the whole connection, such as a rejected client.
    changes: what the filter asked to change in the current message. step: the latest one.
    """

    def __init__(
        self, profile: Profile, offer: Offer, *, hostname: str = "mta.example.org",
        macros: Macros | None = None,
    ) -> None:  # fmt: skip
        self.profile = profile
        self.offer = offer
        self.hostname = hostname
        self.negotiated: Offer | None = None
        self.symlists: dict[str, tuple[str, ...]] = {}
        self.output = bytearray()
        self.step = "negotiate"
        self.held: tuple[str, Answer] | None = None
        self.over = False
        self.changes: list[Change] = []
        self.trace = Trace()
        self._decoder = _wire.Decoder(_wire.TO_MTA)
        self._eof = False
        self._error: ProtocolError | None = None
        self._given = bare_macros(macros or {})  # by the caller: they come before our own
        self._session_values: dict[str, str | None] = {}
        self._values: dict[str, str | None] = {}
        self._extra: dict[str, list[str]] = {}  # macros on no list, by the stage that sends them
        self._skipped: set[str] = set()
        self._messages = 0

    # --------------------------------------------------------------------------- bytes in, out

    def feed(self, data: bytes) -> None:
        """Takes bytes from the filter; empty ones mean that it has closed."""
        self._eof = self._eof or not data
        self._decoder.feed(data)

    def take_output(self) -> bytes:
        """The bytes to send, which are then no longer in the output."""
        data = bytes(self.output)
        self.output.clear()
        return data

    def fail(self, what: str, kind: type[ProtocolError] = ProtocolError) -> NoReturn:
        """Ends the conversation with an error of the filter's; it is raised again later."""
        self._error = kind(self.step, what)
        self.over = True
        raise self._error

    def check_open(self) -> None:
        """Raises what ended the conversation, if it has ended."""
        if self._error:
            raise self._error
        if self.over:
            raise SessionOver("the session has ended")

    def send(self, command: bytes, *fields: int | bytes | Sequence[bytes]) -> None:
        """Puts a packet into the output. An answer that is there already came unasked."""
        self.check_open()
        self.expect_silence()
        self.output += _wire.encode(_wire.TO_FILTER, command, *fields)
        self.trace.add(_wire.TO_FILTER, (command, *fields))

    def read(self) -> Steps[Packet]:
        """Waits for the next packet."""
        self.check_open()
        while (packet := self._next_packet()) is None:
            if self._eof:
                cut = " inside a packet" if self._decoder.pending else ""
                self.fail(f"the filter closed the connection{cut}", FilterClosed)
            yield Need.INPUT
        return packet

    def expect_silence(self) -> None:
        """Fails if a packet has arrived that nothing asked for."""
        while packet := self._next_packet():
            if packet[0] != b"p":
                name = packet_name(_wire.TO_MTA, packet[0])
                self.fail(f"{name} came unasked, after the last answer or where none was due")

    @property
    def at_end(self) -> bool:
        """Whether the filter has closed."""
        return self._eof

    def _next_packet(self) -> Packet | None:
        try:
            packet = self._decoder.next()
        except _wire.PacketError as error:
            self.fail(f"malformed packet, {error}")
        if packet:
            self.trace.add(_wire.TO_MTA, packet)
        return packet

    # ----------------------------------------------------------------------------- negotiation

    def negotiate(self) -> Steps[Offer]:
        """Offers and reads what the filter asks for (protocol sheet 2)."""
        self.send(b"O", self.offer.version, self.offer.actions, self.offer.protocol)
        command, *fields = yield from self.read()
        if command != b"O":
            self.fail(f"{packet_name(_wire.TO_MTA, command)} instead of OPTNEG")
        answer = Offer(*fields[:3])
        if not _wire.VERSION_MIN <= answer.version <= self.offer.version:
            self.fail(f"version {answer.version} where {self.offer.version} was offered")
        for what, asked, offered in (
            ("actions", answer.actions, self.offer.actions),
            ("protocol options", answer.protocol, self.offer.protocol),
        ):
            if asked & ~offered:
                self.fail(f"{what} {asked & ~offered:#x} were not offered")
        for stage, names in zip(fields[3::2], fields[4::2], strict=True):
            if stage >= len(_STAGES):
                self.fail(f"a macro list for stage {stage}, which does not exist")
            self.symlists[_STAGES[stage]] = tuple(to_str(names).replace(",", " ").split())
        self.negotiated = answer
        return answer

    def _has(self, bit: int) -> bool:
        return self.negotiated is not None and bool(self.negotiated.protocol & bit)

    @property
    def leading_space(self) -> bool:
        """Whether header values keep their leading space (HDR_LEADSPC, protocol sheet 2.7)."""
        return self._has(_BITS["HDR_LEADSPC"])

    # ---------------------------------------------------------------------------------- macros

    def _send_also(self, stage: str, names: Iterable[str]) -> None:
        """Macros that are on no list of the MTA, but were given by the caller, go with a stage."""
        listed = {macro_key(name) for usual in self.profile.macros.values() for name in usual}
        self._extra[stage] = [
            name if len(name) == 1 else f"{{{name}}}" for name in names if name not in listed
        ]

    def _send_macros(self, step: str) -> None:
        stage = self.profile.macro_stage.get(step, step)
        usual = self.profile.macros.get(stage)
        if usual is None:
            return
        names: Iterable[str] | None = self.symlists.get(stage)
        if names is None or (not names and self.profile.empty_list_is_default):
            names = (*usual, *self._extra.get(stage, ()))
        strings = []
        for name in names:
            value = self._values.get(macro_key(name))
            if value is not None:
                strings += [to_bytes(name), to_bytes(value)]
        self.send(b"D", _STEPS[step].command, strings)

    # ----------------------------------------------------------------------------------- steps

    def _run_step(self, name: str, *fields: int | bytes | Sequence[bytes]) -> Steps[Answer]:
        """One step: macros, the command, the answer; less where the filter asked for less."""
        self.check_open()
        step = _STEPS[name]
        if self.negotiated and self.negotiated.version < step.version:
            return GO_ON
        omitted = self._has(step.omit)
        if name in self._skipped or (omitted and name not in self.profile.macros_when_omitted):
            return GO_ON
        self.expect_silence()
        self.step = name
        self._send_macros(name)
        if omitted:
            return GO_ON
        self.send(step.command, *fields)
        if self._has(step.no_reply):
            return GO_ON
        answer = yield from self._answer(name)
        if answer.kind == "skip":
            self._skipped.add(name)
        return answer

    def _answer(self, step: str) -> Steps[Answer]:
        """Reads until the one final reply of a step; changes and progress may come before."""
        body: bytearray | None = None  # the replacement while its chunks come
        replaced = False
        while True:
            packet = yield from self.read()
            command = packet[0]
            name = packet_name(_wire.TO_MTA, command)
            if body is not None and command != b"b":
                self.changes.append(ReplaceBody(bytes(body)))
                body, replaced = None, True
            action = needed_action(command)
            if action:
                self._check_action(name, action)
            if command == b"b":
                if replaced:
                    self.fail("REPLBODY after another reply: its chunks must follow each other")
                body = bytearray() if body is None else body
                body += packet[1]
            elif action:
                change = read_change(command, packet[1:])
                if getattr(change, "name", None) == "":
                    self.fail(f"{name} without a header name")
                self.changes.append(change)
            elif command == b"y":
                return self._reply_code(packet[1])
            elif command in _ANSWERS:
                return self._plain_answer(step, _ANSWERS[command])
            elif command != b"p":
                self.fail(f"{name} is no answer to {packet_name(0, _STEPS[step].command)}")

    def _check_action(self, name: str, action: str) -> None:
        if self.step != "eom":
            self.fail(f"{name} is allowed at the end of the message only")
        if self.negotiated and not self.negotiated.actions & _wire.ACTIONS[action]:
            self.fail(f"{name} needs the action {action}, which was not negotiated")

    def _reply_code(self, text: bytes) -> Answer:
        try:
            reply = parse_reply(to_str(text))
        except ValueError as error:
            self.fail(f"malformed REPLYCODE: {printable(str(error))}")
        return Answer("reject" if reply.code >= 500 else "tempfail", reply)

    def _plain_answer(self, step: str, kind: str) -> Answer:
        if kind == "skip" and (step == "eom" or not self._has(_BITS["SKIP"])):
            self.fail("SKIP at the end of the message" if step == "eom" else
                      "SKIP, which was not negotiated")  # fmt: skip
        reply = self.profile.replies.get(kind)
        return Answer("tempfail" if kind == "shutdown" else kind, reply)

    def _hold(self, answer: Answer) -> Answer:
        """Keeps an answer that decides for all messages of the connection."""
        if answer.kind == "discard" and not self.profile.discard_connection:
            return GO_ON
        if answer.final:
            self.held = (self.step, answer)
        return answer

    def connect(self, client: Client) -> Steps[Answer]:
        """Tells about the client."""
        known = session_macros(client, self.hostname, self.profile.software)
        self._session_values = self._values = {**known, **self._given}
        self._send_also("connect", [name for name in self._given if name not in known])
        return self._hold((yield from self._run_step("connect", *client.fields)))

    def helo(self, name: str) -> Steps[Answer]:
        """HELO or EHLO with the name that the client gave."""
        return self._hold((yield from self._run_step("helo", to_bytes(name))))

    def mail(self, sender: str, *args: str) -> Steps[Answer]:
        """MAIL FROM: begins a message. The address goes out in angle brackets."""
        self.changes = []
        self._skipped = set()
        self._messages += 1
        address = bare(sender)
        self._values = {
            **self._session_values,
            "i": self._queue_id if self.profile.queue_id_at_mail else None,
            "mail_addr": address,
            "mail_host": address.rpartition("@")[2],
            "mail_mailer": "smtp",
            **self._given,
        }
        return (yield from self._run_step("mail", _arguments(sender, args)))

    def rcpt(self, rcpt: str, *args: str) -> Steps[Answer]:
        """RCPT TO, with ESMTP arguments. The address goes out in angle brackets."""
        address = bare(rcpt)
        self._values.update(
            {
                "rcpt_addr": address,
                "rcpt_host": address.rpartition("@")[2],
                "rcpt_mailer": "local",
                **self._given,
            }
        )
        answer = yield from self._run_step("rcpt", _arguments(rcpt, args))
        if not answer.refuses and "i" not in self._given:
            self._values["i"] = self._queue_id
        return answer

    @property
    def _queue_id(self) -> str:
        return f"QUEUEID{self._messages:03d}"

    def data(self) -> Steps[Answer]:
        """DATA. Nothing is sent with a version below 4."""
        return (yield from self._run_step("data"))

    def header(self, name: bytes, value: bytes) -> Steps[Answer]:
        """One header; folds in the value are LF and white space."""
        return (yield from self._run_step("header", name, value))

    def eoh(self) -> Steps[Answer]:
        """The end of the headers."""
        return (yield from self._run_step("eoh"))

    def body(self, chunk: bytes) -> Steps[Answer]:
        """One chunk of the body, 1 to 65535 bytes, line ends CRLF."""
        return (yield from self._run_step("body", chunk))

    def eom(self) -> Steps[Answer]:
        """The end of the message; what the filter changes is then in `changes`."""
        return (yield from self._run_step("eom", b""))

    def unknown(self, line: str) -> Steps[Answer]:
        """An SMTP command that the MTA does not know. Nothing is sent with a version below 3."""
        return (yield from self._run_step("unknown", to_bytes(line)))

    def abort(self) -> None:
        """Takes the current message back. No answer."""
        self.send(b"A")

    def quit(self) -> None:
        """Says good-bye, where this MTA does. No answer; the filter closes."""
        if self.profile.quit_when_held or not self.held or self.held[0] not in ("connect", "helo"):
            self.send(b"Q")
        self.over = True
        self.step = "close"

    # ------------------------------------------------------------------------- a whole message

    def deliver(self, message: Message) -> Steps[Result]:
        """Sends a whole message as far as the filter lets it, and says what became of it."""
        draft = self.profile.draft(
            message.content, message.envelope, leading_space=self.leading_space
        )
        if self.held:
            step, answer = self.held
            return self._result(draft, step, answer, [])
        self.check_open()
        recipients: list[RecipientResult] = []
        macros = bare_macros(message.macros)
        self._send_also("mail", macros)
        given, self._given = self._given, {**self._given, **macros}
        try:
            answer = yield from self._transaction(message, draft, recipients)
        finally:
            self._given = given
        step = self.step
        if self.profile.abort_after_message:
            self.abort()
        if answer.hangs_up:
            self.held = (step, answer)
        return self._result(draft, step, answer, recipients)

    def _transaction(
        self, message: Message, draft: Draft, recipients: list[RecipientResult]
    ) -> Steps[Answer]:
        answer = yield from self.mail(*message.sender)
        if answer.final:
            return answer
        answer = yield from self._recipients(message, recipients)
        if answer.final:
            return answer
        answer = yield from self.data()
        if answer.final:
            return answer
        for step in self._content(draft):
            answer = yield from step
            if answer.final:
                return answer
            if len(self.output) > _MUCH:
                yield Need.ROOM
        return answer

    def _recipients(self, message: Message, recipients: list[RecipientResult]) -> Steps[Answer]:
        """All RCPT commands. A refusal is for that one, unless none is left; ACCEPT and DISCARD
        are for the message."""
        decided = GO_ON
        for rcpt in message.rcpts:
            answer = GO_ON
            if not decided.final:
                answer = yield from self.rcpt(*rcpt)
            if answer.hangs_up or (answer.final and not answer.refuses):
                decided = answer
            refusal = decided if decided.hangs_up else answer
            verdict = _VERDICTS[refusal.kind] if refusal.refuses else Verdict.ACCEPTED
            recipients.append(RecipientResult(bare(rcpt[0]), verdict, refusal.reply))
        if decided.final or any(each.verdict.queued for each in recipients):
            return decided
        last = recipients[-1]
        temporary = [each for each in recipients if each.verdict is Verdict.TEMPFAILED]
        if temporary:
            return Answer("tempfail", temporary[-1].reply)
        return Answer("reject", last.reply)

    def _content(self, draft: Draft) -> Iterable[Steps[Answer]]:
        for name, value in draft.wire_headers():
            yield self.header(name, value)
        yield self.eoh()
        body = draft.wire_body
        for at in range(0, len(body), self.profile.chunk):
            yield self.body(body[at : at + self.profile.chunk])
        yield self.eom()

    def _result(
        self, draft: Draft, step: str, answer: Answer, recipients: Sequence[RecipientResult]
    ) -> Result:
        verdict = _VERDICTS[answer.kind]
        changes = tuple(self.changes) if step == "eom" else ()
        if verdict is Verdict.ACCEPTED and any(isinstance(each, Quarantine) for each in changes):
            verdict = Verdict.QUARANTINED
        # Recipients that were not refused, or not even asked about, share the message's fate.
        refused = {each.address: each for each in recipients if not each.verdict.queued}
        known = tuple(
            refused.get(rcpt, RecipientResult(rcpt, verdict, answer.reply)) for rcpt in draft.rcpts
        )
        trace, self.trace = self.trace, Trace()
        return Result(verdict, step, answer.reply, known, changes, draft, trace)


def _arguments(address: str, args: Sequence[str]) -> list[bytes]:
    return [to_bytes(bracketed(address)), *(to_bytes(arg) for arg in args)]
