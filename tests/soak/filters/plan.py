"""What the filters of the soak test do, in Python: the plan is in what the MTA sends.

The client's name, the HELO name and the sender may hold `soak-STEP-WORD`: at STEP the filter does
WORD, which for waits ends in a number of microseconds. At the end of a message that it lets
through it tells how many bytes of headers and body it saw, and their Adler-32 sum, in the header
X-Soak. filter.c does the same in C.
"""

import re
import time
import zlib

import milter

STEPS = ("connect", "helo", "mail", "rcpt", "data", "header", "eoh", "body", "eom")
BIG = bytes(range(256)) * (50 * 1024 * 4)  # 50 MiB
# Callbacks that wait a little, and that block.
WAITS = tuple(f"wait{us}" for us in (200, 500, 1_000, 2_000, 5_000, 10_000, 30_000))
BLOCK = "wait150000"
TOLD = "X-Soak"
TEXT = ("554", "5.7.1", "as planned", "really")
# An MTA that does not offer this action is asked to await no replies before the end.
NO_REPLY_WITHOUT = milter.QUARANTINE
NR_BITS = (
    milter.P_NR_CONN | milter.P_NR_HELO | milter.P_NR_MAIL | milter.P_NR_RCPT | milter.P_NR_DATA
    | milter.P_NR_UNKN | milter.P_NR_HDR | milter.P_NR_EOH | milter.P_NR_BODY
)  # fmt: skip

_PLAN = re.compile(rb"soak-([a-z]+)-([a-z]+)([0-9]*)")


def _raw(text):
    """The bytes of a text; the low-level functions are given bytes in places."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


class Planned(Exception):
    """Raised by callbacks that are to fail."""


class Kept:
    """What a filter keeps for a connection."""

    def __init__(self):
        self.step = self.word = None
        self.us = 0  # of a wait
        self.begin()

    def begin(self):
        """Begins a message."""
        self.octets = 0
        self.sum = 1

    def read(self, text):
        """Takes the plan from a text, if it holds one."""
        found = _PLAN.search(_raw(text))
        step, word, number = found.groups() if found else (b"", b"", b"")
        self.step, self.word, self.us = step.decode(), word.decode(), int(number or 0)

    def see(self, *parts):
        """Counts content."""
        for part in parts:
            self.octets += len(part)
            self.sum = zlib.adler32(part, self.sum)

    @property
    def told(self):
        """The value of X-Soak."""
        return f"{self.octets} {self.sum:08x}"


def see_header(kept, name, value):
    """Counts a header."""
    kept.see(_raw(name), _raw(value))


def _reply(ctx, kept):
    ctx.setreply(*TEXT)
    return milter.REJECT


def _raise(ctx, kept):
    raise Planned


def _wait(ctx, kept):
    time.sleep(kept.us / 1e6)
    return milter.CONTINUE


def _progress(ctx, kept):
    for _ in range(3):
        ctx.progress()
    return milter.CONTINUE


def _changes(ctx, kept):
    ctx.addheader("X-Folded", "one\n two")
    ctx.addheader("X-First", "yes", 1)
    ctx.chgheader("Subject", 1, "changed")
    ctx.chgfrom("<changed@soak.test>")
    ctx.addrcpt("<added@soak.test>")
    ctx.delrcpt("<rcpt@soak.test>")
    ctx.replacebody(b"replaced\r\n")
    ctx.quarantine("as planned")
    return milter.CONTINUE


def _big(ctx, kept):
    ctx.replacebody(BIG)
    return milter.CONTINUE


_VERDICTS = {
    "accept": milter.ACCEPT,
    "reject": milter.REJECT,
    "tempfail": milter.TEMPFAIL,
    "discard": milter.DISCARD,
    "skip": milter.SKIP,
}
_DEEDS = {
    "reply": _reply,
    "raise": _raise,
    "wait": _wait,
    "progress": _progress,
    "changes": _changes,
    "big": _big,
}


def act(kept, step, ctx):
    """Does what the plan says for a step; returns the verdict."""
    if step == "eom":
        ctx.addheader(TOLD, kept.told)
    if kept.step != step:
        return milter.CONTINUE
    if kept.word in _DEEDS:
        return _DEEDS[kept.word](ctx, kept)
    return _VERDICTS[kept.word]


def options(offered):
    """What to ask for in negotiation: all actions, and protocol options."""
    actions, protocol = offered[:2]
    wanted = milter.P_SKIP if actions & NO_REPLY_WITHOUT else milter.P_SKIP | NR_BITS
    return actions, protocol & wanted
