"""Cases that a table makes: every command in every state, and every verdict at every step.

What is to happen is worked out here by the rules of the protocol sheet, section 3, once as
libmilter has them and once as ours. They are written down a second time on purpose: this must not
share a mistake with src/session/states.c."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from Milter.testing.transcript import VERDICTS, Answered, Called, Did, Event, Returned, Sent
from play import TAGS

# ------------------------------------------------------------------------------------- tables


class Command(NamedTuple):
    """What an MTA can send; `leads` to a state, with a callback that `may be NR`."""

    data: bytes | None
    leads: str = ""
    callback: Called | None = None
    no_reply: int = 0


COMMANDS = {
    "O": Command(b"O\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff", "OPTS"),
    "C": Command(
        b"Clocalhost\x004\x04\xd2127.0.0.1\0",
        "CONN",
        Called("connect", (b"localhost", b"127.0.0.1:1234")),
        0x1000,
    ),
    "H": Command(b"Hme\0", "HELO", Called("helo", (b"me",)), 0x2000),
    "M": Command(b"M<a@b>\0", "MAIL", Called("envfrom", (b"<a@b>",)), 0x4000),
    "R": Command(b"R<c@d>\0", "RCPT", Called("envrcpt", (b"<c@d>",)), 0x8000),
    "T": Command(b"T", "DATA", Called("data"), 0x10000),
    "L": Command(b"LSubject\0hi\0", "HDRS", Called("header", (b"Subject", b"hi")), 0x80),
    "N": Command(b"N", "EOHS", Called("eoh"), 0x40000),
    "B": Command(b"Bbody\r\n", "BODY", Called("body", (b"body\r\n",)), 0x80000),
    "E": Command(b"E", "ENDM", Called("eom")),
    "U": Command(b"UFOO\0", "UNKN", Called("unknown", (b"FOO",)), 0x20000),
    "A": Command(b"A", "ABRT"),
    "D": Command(b"DMi\0Q1\0"),
    "K": Command(b"K", "Q_NC"),
    "Q": Command(b"Q"),
    "Z": Command(b"Z"),  # no command
    "?": Command(b"GET / HTTP/1.1\r\n"),  # no packet
    "eof": Command(None),
}
ALL_NR = sum(command.no_reply for command in COMMANDS.values())
NO_OFFER = b"O\0\0\0\x06\0\0\x01\xff\0\0\x03\x7f"  # of an MTA without any NR bit

#: Sheet 3.1: which states may follow directly.
FOLLOWS = {
    "INIT": {"OPTS"},
    "OPTS": {"CONN", "UNKN"},
    "CONN": {"HELO", "MAIL", "UNKN"},
    "HELO": {"HELO", "MAIL", "UNKN"},
    "MAIL": {"RCPT", "ABRT", "UNKN"},
    "RCPT": {"RCPT", "DATA", "HDRS", "EOHS", "BODY", "ENDM", "ABRT", "UNKN"},
    "DATA": {"HDRS", "EOHS", "ABRT"},
    "HDRS": {"HDRS", "EOHS", "ABRT"},
    "EOHS": {"BODY", "ENDM", "ABRT"},
    "BODY": {"BODY", "ENDM", "ABRT"},
    "ENDM": {"MAIL", "UNKN", "Q_NC"},
    "ABRT": set[str](),
    "UNKN": {"HELO", "MAIL", "RCPT", "DATA", "BODY", "UNKN", "ABRT", "Q_NC"},
    "Q_NC": {"CONN", "UNKN"},
}
#: Ours: a refused DATA ends no transaction. OVER is DATA after the filter's own final verdict.
OURS_TOO = {"DATA": {"RCPT", "DATA", "UNKN"}, "OVER": {"RCPT", "DATA", "UNKN"}}
IN_MESSAGE = {"MAIL", "RCPT", "DATA", "HDRS", "EOHS", "BODY"}

#: How each state is reached. UNKN has two ways: outside of a message and inside.
WAYS_TO = {
    "INIT": "",
    "OPTS": "O",
    "CONN": "OC",
    "HELO": "OCH",
    "MAIL": "OCHM",
    "RCPT": "OCHMR",
    "DATA": "OCHMRT",
    "DATA again": "OCHMRTT",
    "RCPT after DATA": "OCHMRTR",
    "UNKN after DATA": "OCHMRTU",
    "HDRS": "OCHMRL",
    "EOHS": "OCHMRN",
    "BODY": "OCHMRB",
    "ENDM": "OCHMRE",
    "ABRT": "OCHMA",
    "UNKN": "OCHU",
    "UNKN after MAIL": "OCHMU",
    "UNKN after RCPT": "OCHMRU",
    "Q_NC": "OCHMREK",
}

FINAL = ("REJECT", "DISCARD", "ACCEPT", "TEMPFAIL")
REPLIES = {
    "CONTINUE": b"c",
    "REJECT": b"r",
    "DISCARD": b"d",
    "ACCEPT": b"a",
    "TEMPFAIL": b"t",
    "SKIP": b"s",
}
NO_VERDICTS = ("5", "10", "-1")


def packet(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


# -------------------------------------------------------------------------------------- model


@dataclass
class Model:
    """What an implementation does, command by command."""

    ours: bool
    strict: bool
    python: bool
    offer: bytes = b""  # the MTA's, if not the usual one
    no_reply: int = 0  # NR bits that the filter asks for
    skips: bool = False
    events: list[Event] = field(default_factory=list)
    differences: set[str] = field(default_factory=set)
    state: str = "INIT"
    outer: str = ""  # the state inside a message that UNKNOWN interrupted
    context: bool = False  # Python: there is one, so close will be called
    closed: bool = False  # ours: close was called, and nothing came since
    held: str = ""  # strict: a verdict that could not be said yet
    held_always: bool = False

    # What ends, and what follows.

    def in_message(self) -> bool:
        if self.ours and self.state == "UNKN":
            return self.outer in IN_MESSAGE
        return self.state in IN_MESSAGE

    def abort(self) -> None:
        if not self.held:
            self.events += [Called("abort"), Returned(0)]

    def end_message(self) -> None:
        if self.in_message():
            self.abort()
        if not self.held_always:
            self.held = ""

    def close(self) -> None:
        if self.context and not (self.ours and self.closed):
            self.events += [Called("close"), Returned(0)]
        self.closed = True
        if self.python:
            self.context = False

    def directly(self, state: str, to: str) -> bool:
        return to in FOLLOWS.get(state, ()) or (self.ours and to in OURS_TOO.get(state, ()))

    def follows(self, to: str) -> bool:
        if self.ours and self.state == "UNKN" and self.outer in IN_MESSAGE:
            return self.directly(self.outer, to) or (
                to not in ("HELO", "MAIL") and to in FOLLOWS["UNKN"]
            )
        return self.directly(self.state, to)

    # Commands.

    def take(self, name: str, verdict: str = "CONTINUE", reply: str = "") -> None:
        """One command, answered by a verdict if the filter is asked; reply: set beforehand."""
        command = COMMANDS[name]
        data = self.offer if name == "O" and self.offer else command.data
        no_packet = name == "?"
        self.events.append(Sent(data if data is None or no_packet else packet(data)))
        if name == "D":
            return
        if self.state == "UNKN" and self.outer in IN_MESSAGE:
            self.differences.add("UNKNOWN inside a message")
        if self.state == "Q_NC":
            self.differences.add("a new connection")
        if command.leads in OURS_TOO.get(self.state, ()):
            self.differences.add("commands after DATA")
        if not command.leads:
            self.end_message()
            self.close()
            self.state = "QUIT"
            return
        if name == "K" and self.state != "ENDM":
            self.differences.add("a new connection")
            if self.ours and self.state != "INIT":
                self.end_message()
                self.held, self.held_always = "", False
                self.close()
                self.state = "Q_NC"
                return
        if not self.follows(command.leads):
            self.end_message()
            self.state = "HELO"
            if not self.follows(command.leads):
                return
        self.accept(name, command, verdict, reply)

    def accept(self, name: str, command: Command, verdict: str, reply: str) -> None:
        if name == "A":
            if self.state == "UNKN" and self.outer not in IN_MESSAGE:
                self.differences.add("ABORT after an UNKNOWN outside a message")
            if self.ours:
                self.end_message()
            else:
                self.abort()
        elif name == "K":
            self.close()
        if name == "U":
            outer = self.outer if self.state == "UNKN" else self.state
            self.outer = outer if outer in IN_MESSAGE else ""
        self.state = command.leads
        if name in "AK":
            return
        self.context = True
        self.closed = False
        if name == "O":
            self.negotiate()
        else:
            self.step(name, command, verdict, reply)

    def negotiate(self) -> None:
        options = self.no_reply | (0x400 if self.skips else 0)
        emulated = ALL_NR if self.offer else 0
        if options:
            offered = 0x37F if self.offer else 0x1FFFFF
            self.events += [
                Called("negotiate", (0x1FF, offered | ALL_NR, 0, 0)),
                Returned(VERDICTS["CONTINUE"], (0, options)),
            ]
        answer = (options & ~emulated).to_bytes(4, "big")
        self.events.append(Answered(packet(b"O\0\0\0\x06\0\0\0\0" + answer)))

    # Verdicts.

    def say(self, data: bytes) -> None:
        self.events.append(Answered(packet(data)))

    def step(self, name: str, command: Command, verdict: str, reply: str) -> None:
        assert command.callback
        silent = command.no_reply & self.no_reply
        emulated = bool(self.offer)
        if self.held and self.state not in ("OPTS", "CONN"):
            if silent and not emulated:
                return
            self.say(REPLIES[self.held])
            if self.held == "ACCEPT" or name not in "RU":
                self.state = "OVER" if name == "T" else "HELO"
            if self.state == "HELO" and not self.held_always:
                self.held = ""
            return
        self.events.append(command.callback)
        if reply:
            code = reply.encode()
            self.events.append(Did("setreply", (code[:3], code[4:9], code[10:]), "ok"))
        self.events.append(
            Returned(VERDICTS.get(verdict, -1) if verdict.isalpha() else int(verdict))
        )
        effect = verdict
        if verdict in NO_VERDICTS:
            self.differences.add("ints that are no verdict")
            if not self.strict:
                return
            effect, reply = "TEMPFAIL", "451 4.3.0 scripted: error in the mail filter"
        self.speak(name, effect, reply, bool(silent), emulated)

    def speak(self, name: str, verdict: str, reply: str, silent: bool, emulated: bool) -> None:
        """The answer to a step, and what it does to the state."""
        if verdict == "SKIP" and (not self.skips or name not in "LNB"):
            self.differences.add("SKIP that was not negotiated")
            if name not in "LNBE":
                self.differences.add("SKIP before the headers")
            if self.strict:
                verdict = "CONTINUE"
        over = verdict == "ACCEPT" or (verdict in FINAL and name not in "RU")
        if silent and verdict in FINAL:
            self.differences.add("a verdict where no reply was negotiated")
        if silent and not (self.strict and emulated and verdict in FINAL):
            if self.strict and verdict in FINAL:
                keeps = name != "U" or (verdict == "ACCEPT" and self.outer in IN_MESSAGE)
                if keeps:
                    self.held, self.held_always = verdict, name in "CH"
                    over = False
            if emulated:
                self.say(b"c")
        elif verdict == "NOREPLY":
            self.differences.add("NOREPLY that was not negotiated")
            if self.strict:
                self.say(b"c")
        elif reply and verdict in ("REJECT", "TEMPFAIL"):
            self.say(b"y" + reply.encode() + b"\0")
        else:
            self.say(REPLIES[verdict])
        if over:
            self.state = "OVER" if self.ours and name == "T" else "HELO"


# -------------------------------------------------------------------------------------- cases


@dataclass
class Case:
    """A connection: what each implementation sends and sees, and which differences are wanted."""

    title: str
    events: dict[str, list[Event]]
    differs: list[str]
    head: list[tuple[str, str]] = field(default_factory=list)


Line = tuple[str, str, str]  # a command, its verdict, a reply


def make_case(
    title: str, lines: Iterable[Line], offer: bytes = b"", no_reply: int = 0, skips: bool = False
) -> Case:
    """What the model says for every implementation."""
    lines = list(lines)
    events = {}
    differences: set[str] = set()
    for name, tags in TAGS.items():
        model = Model("ours" in tags, "strict" in tags, "python" in tags, offer, no_reply, skips)
        model.context = "c" in tags
        for line in lines:
            model.take(*line)
            if model.state == "QUIT":
                break
        events[name] = model.events
        differences |= model.differences
    if not is_different(events):
        differences.clear()
    return Case(title, events, sorted(differences))


def is_different(events: dict[str, list[Event]]) -> bool:
    """Whether ours does something else than theirs anywhere."""
    theirs = {"c": "libmilter", "python": "pymilter"}
    pairs = [(name, theirs["c" if "c" in tags else "python"]) for name, tags in TAGS.items()]
    return any(
        events[one] != events[other] for one, other in pairs if one in events and other in events
    )


def plain(commands: Iterable[str]) -> list[Line]:
    return [(name, "CONTINUE", "") for name in commands]


def every_command() -> Iterator[Case]:
    """Every command in every state, then a new message to see what state that led to."""
    for state, way in WAYS_TO.items():
        for name in COMMANDS:
            rest = ["M", "Q"]
            yield make_case(f"command {name} in {state}", plain([*way, name, *rest]))


def with_verdict(way: str, verdict: str, reply: str = "") -> list[Line]:
    """A way whose last command gets a verdict."""
    return [*plain(way[:-1]), (way[-1], verdict, reply)]


WAYS_TO_STEPS = {
    "connect": "OC",
    "helo": "OCH",
    "envfrom": "OCHM",
    "envrcpt": "OCHMR",
    "data": "OCHMRT",
    "header": "OCHMRL",
    "eoh": "OCHMRN",
    "body": "OCHMRB",
    "eom": "OCHMRE",
    "unknown": "OCHU",
    "unknown in a message": "OCHMU",
}
TEXTS = {"REJECT": "550 5.7.1 no", "TEMPFAIL": "450 4.7.1 later"}


def every_verdict() -> Iterator[Case]:
    """Every verdict at every step, then a recipient and a new message."""
    after = plain("RMQ")
    for step, way in WAYS_TO_STEPS.items():
        for verdict in [*REPLIES, "NOREPLY", *NO_VERDICTS]:
            lines = [*with_verdict(way, verdict), *after]
            yield make_case(f"{verdict} at {step}", lines)
        for verdict, text in TEXTS.items():
            lines = [*with_verdict(way, verdict, text), *after]
            yield make_case(f"{verdict} with a text at {step}", lines)


def after_verdicts_at_data() -> Iterator[Case]:
    """Every verdict at DATA, then what may come in a transaction that is still open."""
    for verdict in REPLIES:
        for then in ("TQ", "TLNEQ", "RTLNEQ", "UTLNEQ", "RAMQ", "UMQ", "TMQ", "LQ", "AMQ", "HMQ"):
            lines = [*with_verdict("OCHMRT", verdict), *plain(then)]
            yield make_case(f"{verdict} at data, then {then}", lines)
            twice = [*lines[:-1], ("T", verdict, ""), ("M", "CONTINUE", ""), lines[-1]]
            yield make_case(f"{verdict} at data, then {then[:-1]} and again", twice)


def every_silent_verdict() -> Iterator[Case]:
    """Every verdict at every step of which no reply is awaited, then the rest of the message."""
    whole = "OCHUMURTLNBEMREQ"
    for step, way in WAYS_TO_STEPS.items():
        at = len(way) - 1 if "unknown" not in step else 3 if step == "unknown" else 5
        if "unknown" not in step:
            at = whole.index(way[-1])
        for verdict in [*REPLIES, "NOREPLY"]:
            lines = plain(whole)
            lines[at] = (whole[at], verdict, "")
            for offer, how in (
                (b"", "where no reply is awaited"),
                (NO_OFFER, "that the MTA awaits"),
            ):
                title = f"{verdict} at {step} {how}"
                yield make_case(title, lines, offer, ALL_NR, skips=not offer)


def systematic() -> list[Case]:
    return [
        *every_command(),
        *every_verdict(),
        *after_verdicts_at_data(),
        *every_silent_verdict(),
    ]
