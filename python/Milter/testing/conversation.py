"""The MTA's side of one connection to a filter, without any I/O: packets and single steps.

Each step is a generator: it puts packets into the output, yields Need.INPUT when it cannot go on
without more bytes from the filter, Need.ROOM when much output has gathered, and returns what the
filter's answer means. Whoever drives it moves the bytes: session.py by blocking sockets, aio.py
in an event loop. Whole messages are in delivery.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import NoReturn

from Milter import _wire
from Milter.testing.changes import Change, ReplaceBody, needed_action, read_change, value_fault
from Milter.testing.client import Auth, Client, Macros, Tls
from Milter.testing.draft import Draft
from Milter.testing.errors import (
    FilterClosed,
    FilterError,
    FilterTimeout,
    ProtocolError,
    SessionOver,
)
from Milter.testing.known import KnownMacros
from Milter.testing.profile import Profile
from Milter.testing.steps import (
    ANSWERS,
    BEFORE,
    BITS,
    CONTENT,
    GO_ON,
    STAGES,
    STEPS,
    Answer,
    Need,
    Offer,
    Steps,
)
from Milter.testing.text import bare, bracketed, printable, to_bytes, to_str
from Milter.testing.trace import Packet, Trace, packet_name

__all__ = ["Conversation"]


class _GaveUp(Exception):
    """The MTA gave up on the filter; `misconfigured`: by a fault of that kind."""

    def __init__(self, misconfigured: bool = False) -> None:
        super().__init__()
        self.misconfigured = misconfigured


class Conversation:
    """The MTA's side of one connection.

    strict: errors of the filter's are raised; else they gather in `errors`, and the MTA does what
    it does about them, by `default_action` where it gives up on the filter (a key of
    Profile.failures). keep_bytes: whether `bytes` has all that passed.

    output: bytes for the filter; the driver takes them. negotiated: what the filter asked for.
    macros: the values that are known. held: step and answer that decide for the whole connection,
    such as a rejected client. given_up: whether the MTA has ended the connection because of an
    error. changes: what the filter asked to change in the current message. step: the latest one.
    """

    def __init__(
        self,
        profile: Profile,
        offer: Offer,
        *,
        hostname: str = "mta.example.org",
        macros: Macros | None = None,
        strict: bool = True,
        default_action: str = "tempfail",
        keep_bytes: bool = False,
    ) -> None:
        if default_action not in profile.failures:
            known = ", ".join(profile.failures)
            raise ValueError(f"{profile.name} has no action {default_action!r}; it has: {known}")
        self.profile = profile
        self.offer = offer
        self.hostname = hostname
        self.strict = strict
        self.default_action = default_action
        self.negotiated: Offer | None = None
        self.macros = KnownMacros(profile, macros or {})
        self.output = bytearray()
        self.step = "negotiate"
        self.held: tuple[str, Answer] | None = None
        self.over = False
        self.given_up = False
        self.changes: list[Change] = []
        self.errors: list[FilterError] = []
        self.trace = Trace()
        self.bytes: list[tuple[int, bytes]] | None = [] if keep_bytes else None
        self.time_out_at: str | None = None
        self._decoder = _wire.Decoder(_wire.TO_MTA)
        self._eof = False
        self._too_late = ""  # what did not happen in time
        self._error: ProtocolError | None = None
        self._suspects: list[str] = []  # steps that an answer too many may belong to
        self._skipped: set[str] = set()
        self._said_helo = False
        self._mail_answered = False
        self._abort_due = ""  # "later": before the next message
        self._refuses_later: Answer | None = None  # because it gave up on the filter
        self._refused = False  # by the MTA itself, for something that the filter did
        self._messages = 0

    # --------------------------------------------------------------------------- bytes in, out

    def feed(self, data: bytes) -> None:
        """Takes bytes from the filter; empty ones mean that it has closed."""
        self._eof = self._eof or not data
        if self.bytes is not None and data:
            self.bytes.append((_wire.TO_MTA, data))
        self._decoder.feed(data)

    def time_out(self, what: str) -> None:
        """Takes note that something did not happen in time; the step under way ends by it."""
        self._too_late = what

    def check_time(self) -> None:
        """Raises FilterTimeout if something did not happen in time, whatever the MTA would do."""
        if self._too_late:
            self._fail(FilterTimeout(self.step, self._too_late))

    def take_output(self) -> bytes:
        """The bytes to send, which are then no longer in the output."""
        data = bytes(self.output)
        self.output.clear()
        return data

    def _fault(self, kind: str, what: str, error: type[ProtocolError] = ProtocolError) -> None:
        """An error of the filter's. Returns only where the MTA goes on as if nothing was wrong."""
        problem = error(self.step, what, kind)
        if self.strict:
            self._fail(problem)
        self.errors.append(problem)
        effect = self.profile.faults.get(kind, "given up")
        if effect == "tempfail":
            self._refused = True
        elif effect != "ignored":
            raise _GaveUp(effect == "misconfigured")

    def _fail(self, problem: ProtocolError) -> NoReturn:
        """Ends the conversation with an error; it is raised again later."""
        self._error = problem
        self.over = True
        raise problem

    def _after_failure(self, misconfigured: bool, address: str = "") -> Answer:
        """What the MTA does with mail after it gave up on the filter."""
        self.given_up = True
        self.output.clear()
        usual = self.profile.failures[self.default_action]
        answer = self.profile.misconfigured(self.default_action) if misconfigured else usual
        forgets = self.profile.content_apart and self.step in CONTENT
        self._refuses_later = usual if forgets else answer
        answer = self._told(answer, address)
        self.held = (self.step, answer)
        return answer

    def answer_unasked(self, sender: str) -> tuple[str, Answer] | None:
        """The step and the answer that count for a message that the filter is not asked about;
        None if it is to be asked."""
        if self.held and self._refuses_later and not self.held[1].hangs_up:
            step = self.held[0]
            if step not in ("negotiate", *BEFORE):
                return step, self._told(self._refuses_later, bracketed(sender), "mail")
        return self.held

    def check_open(self) -> None:
        """Raises what ended the conversation, if it has ended."""
        if self._error:
            raise self._error
        if self.over:
            raise SessionOver("the session has ended")

    def _send(self, command: bytes, *fields: int | bytes | Sequence[bytes]) -> None:
        """Puts a packet into the output."""
        self._send_encoded(_wire.encode(_wire.TO_FILTER, command, *fields), (command, *fields))

    def _send_encoded(self, data: bytes, packet: Packet) -> None:
        self.check_open()
        if self.given_up:
            return
        self.expect_silence()
        self.output += data
        if self.bytes is not None:
            self.bytes.append((_wire.TO_FILTER, data))
        self.trace.add(_wire.TO_FILTER, packet)

    def read(self) -> Steps[Packet]:
        """Waits for the next packet."""
        self.check_open()
        while (packet := self._next_packet()) is None:
            self._check_there()
            yield Need.INPUT
        return packet

    def _check_there(self) -> None:
        """Whether there is still somebody to talk to, where all that came has been read."""
        if self._eof:
            cut = " inside a packet" if self._decoder.pending else ""
            self._fault("closed", f"the filter closed the connection{cut}", FilterClosed)
        if self._too_late:
            self._fault("timeout", self._too_late, FilterTimeout)

    def expect_silence(self) -> None:
        """Notices what nothing asked for. An MTA does not: it takes it for the next answer."""
        if not self.strict:
            if self._decoder.pending and not any(e for e in self.errors if _is_unasked(e)):
                what = f"an answer came unasked: {self._whose()}"
                self.errors.append(ProtocolError(self.step, what, "unasked"))
            return
        while packet := self._next_packet():
            if packet[0] != b"p":
                name = packet_name(_wire.TO_MTA, packet[0])
                self._fault("unasked", f"{name} came unasked: {self._whose()}")

    def _whose(self) -> str:
        """Where an answer too many can come from: after it, each answer is taken for the one to
        the step that follows."""
        earlier = [name for name in dict.fromkeys(self._suspects) if name != self.step]
        if not earlier:
            return f"{self.step} was answered twice, or where no answer was due"
        return (f"{self.step} was answered twice, or, if it was late, "
                f"{' or '.join(earlier)} before it")  # fmt: skip

    @property
    def at_end(self) -> bool:
        """Whether the filter has closed."""
        return self._eof

    def _next_packet(self) -> Packet | None:
        try:
            packet = self._decoder.next()
        except _wire.PacketError as error:
            packet = self._malformed(str(error))
        if packet:
            self.trace.add(_wire.TO_MTA, packet)
        return packet

    def _malformed(self, why: str) -> Packet | None:
        name, _, what = why.partition(": ")
        left_over = what == "it has data left over"
        self._fault("data left over" if left_over else "packet", f"malformed packet, {why}")
        # Here only if the MTA does not mind: what can do without the data counts.
        bare_answers = [code for code in ANSWERS if packet_name(_wire.TO_MTA, code) == name]
        return (bare_answers[0],) if bare_answers else self._next_packet()

    # ----------------------------------------------------------------------------- negotiation

    def negotiate(self) -> Steps[Offer | None]:
        """Offers and reads what the filter asks for (protocol sheet 2). None if the MTA gave up."""
        try:
            self._send(b"O", self.offer.version, self.offer.actions, self.offer.protocol)
            command, *fields = yield from self.read()
            if command != b"O":
                name = packet_name(_wire.TO_MTA, command)
                self._fault("answer", f"{name} instead of OPTNEG")
                return None
            self._check_options(Offer(*fields[:3]))
            for stage, names in zip(fields[3::2], fields[4::2], strict=True):
                self._take_list(stage, to_str(names).replace(",", " ").split())
            self.negotiated = Offer(*fields[:3])
            if self.negotiated.version < _wire.VERSION_MIN:  # it did not mind
                self.negotiated = replace(self.negotiated, version=self.offer.version)
        except _GaveUp as gone:
            self._after_failure(gone.misconfigured)
        return self.negotiated

    def _check_options(self, answer: Offer) -> None:
        if not _wire.VERSION_MIN <= answer.version <= self.offer.version:
            what = f"version {answer.version} where {self.offer.version} was offered"
            self._fault("version" if answer.version > self.offer.version else "old version", what)
        for what, asked, offered in (
            ("actions", answer.actions, self.offer.actions),
            ("protocol options", answer.protocol, self.offer.protocol),
        ):
            if asked & ~offered:
                self._fault(what, f"{what} {asked & ~offered:#x} were not offered")

    def _take_list(self, stage: int, names: list[str]) -> None:
        """A list of macros that the filter wants at a stage."""
        most = self.profile.most_macros
        if stage >= len(STAGES):
            self._fault("macro list", f"a macro list for stage {stage}, which does not exist")
        elif most is not None and len(names) > most:
            what = f"{len(names)} macros for {STAGES[stage]}, where {most} are the most"
            self._fault("long macro list", what)
        else:
            self.macros.lists[STAGES[stage]] = tuple(names)

    def _has(self, bit: int) -> bool:
        return self.negotiated is not None and bool(self.negotiated.protocol & bit)

    @property
    def leading_space(self) -> bool:
        """Whether header values keep their leading space (HDR_LEADSPC, protocol sheet 2.7)."""
        return self._has(BITS["HDR_LEADSPC"])

    # ----------------------------------------------------------------------------------- steps

    def _run_step(self, name: str, *fields: int | bytes | Sequence[bytes],
                  address: str = "") -> Steps[Answer]:  # fmt: skip
        """One step: macros, the command, the answer; less where the filter asked for less."""
        self.check_open()
        if self.given_up and self.held:
            return self.held[1]
        step = STEPS[name]
        if self.negotiated and self.negotiated.version < step.version:
            return GO_ON
        omitted = self._has(step.omit)
        if name in self._skipped or (omitted and name not in self.profile.macros_when_omitted):
            return GO_ON
        try:
            self.expect_silence()
            if not self._decoder.pending:
                self._check_there()
            self.step = name
            if macros := self.macros.packet(name):
                self._send_encoded(*macros)
            if omitted:
                return GO_ON
            self._send(step.command, *fields)
            if self._has(step.no_reply):
                self._suspects.append(name)
                return GO_ON
            if name == self.time_out_at:
                raise _GaveUp
            kind, given = yield from self._answer()
        except _GaveUp as gone:
            return self._after_failure(gone.misconfigured, address)
        self._suspects = [*self._suspects[-1:], name]
        return self._meaning(kind, given, address)

    def _meaning(self, kind: str, given: Answer | None, address: str) -> Answer:
        """What an answer at the current step is to this MTA."""
        kind = self.profile.meanings.get((self.step, kind), kind)
        if self._refused and self.step == "eom":
            return self._told(Answer("tempfail"))
        if kind == "skip" and self.step in self.profile.skips:
            self._skipped.add(self.profile.skips[self.step])
        if kind == "leave out":
            self.held = (self.step, Answer("accept"))
            return Answer("accept")
        if kind == "shutdown":
            answer = self._told(Answer("tempfail", self.profile.shutdown))
            self.held = (self.step, answer)
            self.given_up = True
            return answer
        return self._told(given or Answer(kind), address)

    def _told(self, answer: Answer, address: str = "", step: str = "") -> Answer:
        """An answer with what the SMTP client is told, at the current step or another one."""
        if not answer.refuses:
            return answer
        step = step or self.step
        reply = self.profile.reply(step, answer.kind, answer.reply, address, self.hostname)
        return replace(answer, reply=reply)

    def _answer(self) -> Steps[tuple[str, Answer | None]]:
        """Reads until the one final reply of a step; changes and progress may come before. Returns
        its kind, and with a reply's text what it says."""
        body: BytesIO | None = None  # the replacement while its chunks come
        replaced = False
        while True:
            packet = yield from self.read()
            command = packet[0]
            name = packet_name(_wire.TO_MTA, command)
            if body is not None and command != b"b":
                self.changes.append(ReplaceBody(body.getvalue()))
                body, replaced = None, True
            action = needed_action(command)
            if action:
                self._check_action(name, action)
            if command == b"b":
                if replaced:
                    self._fault("split body", "REPLBODY after another reply: its chunks must "
                                "follow each other")  # fmt: skip
                    body = BytesIO()
                    body.write(_last_body(self.changes))
                body = body or BytesIO()
                body.write(packet[1])
            elif action:
                self._change(name, read_change(command, packet[1:]))
            elif command == b"y":
                return self._reply_code(packet[1])
            elif command in ANSWERS:
                return self._plain_answer(name, ANSWERS[command])
            elif command == b"p":
                if self.step != "eom" and not self.profile.progress_anywhere:
                    self._fault("progress", "PROGRESS is known at the end of the message only")
            else:
                asked = packet_name(_wire.TO_FILTER, STEPS[self.step].command)
                self._fault("answer", f"{name} is no answer to {asked}")

    def _check_action(self, name: str, action: str) -> None:
        if self.step != "eom":
            self._fault("change", f"{name} is allowed at the end of the message only")
        if self.negotiated and not self.negotiated.actions & _wire.ACTIONS[action]:
            kind = "body action" if action == "CHGBODY" else "action"
            self._fault(kind, f"{name} needs the action {action}, which was not negotiated")

    def _change(self, name: str, change: Change) -> None:
        if getattr(change, "name", None) == "":
            self._fault("header name", f"{name} without a header name")
            return
        if wrong := value_fault(change):
            self._fault("header value", f"{name}: {wrong}")
        self.changes.append(change)

    def _reply_code(self, text: bytes) -> tuple[str, Answer | None]:
        try:
            reply = self.profile.read_reply(to_str(text))
        except ValueError as error:
            self._fault("reply", f"malformed REPLYCODE: {printable(str(error))}")
            answer = self.profile.malformed_reply(self.step)
        else:
            answer = Answer("reject" if reply.code >= 500 else "tempfail", reply)
        return answer.kind, answer

    def _plain_answer(self, name: str, kind: str) -> tuple[str, Answer | None]:
        if kind == "skip" and self.step == "eom":
            self._fault("skip at the end", "SKIP at the end of the message")
            kind = "continue"
        elif kind == "skip" and not self._has(BITS["SKIP"]):
            self._fault("skip", "SKIP, which was not negotiated")
        elif self.profile.meanings.get((self.step, kind)) == "leave out" and kind == "skip":
            self._fault("skip too early", "SKIP before the headers: this MTA ignores the filter "
                        "for the rest of the connection")  # fmt: skip
        elif kind == "shutdown" and not self.profile.shutdown:
            asked = packet_name(_wire.TO_FILTER, STEPS[self.step].command)
            self._fault("answer", f"{name} is no answer to {asked}")
        return kind, None

    def _hold(self, answer: Answer) -> Answer:
        """Keeps an answer that decides for all messages of the connection."""
        if answer.final and not self.held:
            self.held = (self.step, answer)
        return answer

    # -------------------------------------------------------------------- the steps of a session

    def connect(self, client: Client, tls: Tls | None = None) -> Steps[Answer]:
        """Tells about the client. tls: if it is encrypted from the start."""
        self.macros.begin_session(self.profile.session_values(client, self.hostname, tls))
        fields = self.profile.connect_fields(client)
        return self._hold((yield from self._run_step("connect", *fields)))

    def introduce(self, client: Client, helo: str, tls: Tls | None) -> Steps[None]:
        """Negotiation, client and HELO, as far as the filter lets them; with STARTTLS if tls."""
        yield from self.negotiate()
        for step in (self.connect(client), self.helo(helo)):
            if not self.held:
                yield from step
        if tls and not self.held:
            self.encrypt(client, tls)
            yield from self.helo(helo)

    def encrypt(self, client: Client, tls: Tls) -> None:
        """What STARTTLS changes; the client says HELO again after it."""
        if self.profile.aborts_at_quit(self._said_helo):
            self.abort()
        self._said_helo = False
        self.macros.begin_session(self.profile.session_values(client, self.hostname, tls))

    def helo(self, name: str) -> Steps[Answer]:
        """HELO or EHLO with the name that the client gave."""
        answer = self._hold((yield from self._run_step("helo", to_bytes(name))))
        if self._said_helo and self.profile.aborts_at_quit(True):
            self.abort()
        self._said_helo = True
        return answer

    def mail(self, sender: str, *args: str, auth: Auth | None = None) -> Steps[Answer]:
        """MAIL FROM: begins a message. The address goes out in angle brackets."""
        if self._abort_due:
            self.abort()
        self.changes = []
        self._refused = False
        self._skipped = set()
        self._messages += 1
        self.macros.begin_message(
            {
                "i": self._queue_id if self.profile.queue_id_at_mail else None,
                **self.profile.mail_values(bare(sender), auth),
            }
        )
        answer = yield from self._run_step("mail", _arguments(sender, args),
                                           address=bracketed(sender))  # fmt: skip
        self._mail_answered = answer.kind == "continue" and not self._has(
            BITS["NOMAIL"] | BITS["NR_MAIL"]
        )
        return answer

    def rcpt(self, rcpt: str, *args: str) -> Steps[Answer]:
        """RCPT TO, with ESMTP arguments. The address goes out in angle brackets."""
        self.macros.know(self.profile.rcpt_values(bare(rcpt)))
        answer = yield from self._run_step("rcpt", _arguments(rcpt, args), address=bracketed(rcpt))
        if not answer.refuses and self.macros.get("i") is None:
            self.macros.know({"i": self._queue_id})
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
        return (yield from self._run_step("unknown", to_bytes(self.profile.unknown_command(line))))

    def know_message(self, draft: Draft) -> None:
        """What the MTA learns from a message's content."""
        if values := self.profile.message_values(draft, self.hostname, self._queue_id):
            self.macros.know(values)

    def drop(self) -> None:
        """Breaks off as the MTA does when it hangs up on the client by itself: without a word."""
        self.given_up = True

    def end_message(self, answer: Answer) -> None:
        """What the MTA does after a message, finished or not, that ended by this answer."""
        if answer.hangs_up and not self.held:
            self.held = (self.step, answer)
        if self.given_up:
            return
        if self.profile.content_apart and not self.strict and self.step in CONTENT:
            self._decoder = _wire.Decoder(_wire.TO_MTA)  # what came with the last answer is lost
        when = self.profile.aborts_after(self.step, answer, self._mail_answered)
        if when == "now":
            self.abort()
        else:
            self._abort_due = when

    def abort(self) -> None:
        """Takes the current message back. No answer."""
        self._abort_due = ""
        self._send(b"A")

    def quit(self) -> None:
        """Says good-bye, where this MTA does. No answer; the filter closes."""
        silent = self.held and self.held[0] in BEFORE
        if self.profile.quit_when_held or not silent:
            if self.profile.aborts_at_quit(self._said_helo):
                self.abort()
            self._send(b"Q")
        self.over = True
        self.step = "close"


def _is_unasked(error: FilterError) -> bool:
    return isinstance(error, ProtocolError) and error.kind == "unasked"


def _last_body(changes: list[Change]) -> bytes:
    """Takes the latest replacement of the body out of the changes."""
    for at in reversed(range(len(changes))):
        change = changes[at]
        if isinstance(change, ReplaceBody):
            del changes[at]
            return change.body
    return b""


def _arguments(address: str, args: Sequence[str]) -> list[bytes]:
    return [to_bytes(bracketed(address)), *(to_bytes(arg) for arg in args)]
