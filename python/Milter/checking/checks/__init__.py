"""What filters get wrong: one function for each mistake, all of them in one table.

A check yields findings for what is surely wrong, or would surprise; what cannot be told is no
finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from Milter import macros as mta_macros
from Milter.checking.checks import (
    actions,
    macros,
    names,
    noreply,
    replies,
    signatures,
    state,
    verdicts,
)
from Milter.checking.finding import Check, Finding
from Milter.checking.subject import Subject

__all__ = ["CHECKS", "findings"]

CHECKS: Final[Mapping[str, Check]] = {
    "signature": Check("callbacks that do not take what they are called with",
                       signatures.signatures),
    "init": Check("classes whose `__init__` needs arguments", signatures.constructor),
    "name": Check("methods that are nearly called like a callback", names.misspelt),
    "hidden": Check("attributes with the name of a callback or an action", names.hidden),
    "unknown": Check("names that the library does not have", names.unknown),
    "verdict": Check("callbacks that can return what is no verdict", verdicts.values),
    "step": Check("verdicts that an MTA does not take at that step", verdicts.steps),
    "noreply": Check("verdicts in callbacks that are @noreply", noreply.verdicts),
    "raises": Check("callbacks that are @noreply and fail for some messages", noreply.raising),
    "eom-only": Check("changes to the message outside eom", actions.outside_eom),
    "action": Check("actions that set_flags leaves out", actions.not_asked_for),
    "header": Check("headers that cannot be sent", actions.headers),
    "index": Check("changes of the header number 0", actions.index),
    "ascending": Check("headers of one name deleted from the first to the last",
                       actions.ascending),
    "reply": Check("codes and lines of a reply that are refused", replies.codes),
    "percent": Check("single % in replies", replies.percent),
    "reply-class": Check("5yz replies with TEMPFAIL, 4yz with REJECT", replies.unsuited),
    "reply-unused": Check("replies without a refusal", replies.unused),
    "reply-unseen": Check("replies at connect, which no client sees", replies.at_connect),
    "macro": Check("macros that the MTA does not send by then", macros.unsent),
    "braces": Check("macros that are asked for without their braces", macros.braces),
    "thread": Check("what belongs to a thread, kept over callbacks", state.threads),
    "state": Check("what one message leaves to the next", state.left_over),
    "sleep": Check("callbacks that sleep", state.sleeps),
}  # fmt: skip


def findings(
    subject: Subject,
    mtas: tuple[mta_macros.MtaMacros, ...] = tuple(mta_macros.MTAS.values()),
) -> list[Finding]:
    """What the checks find, in the order of the file. mtas: those that the filter is meant for."""
    found = {
        each._replace(check=name): None
        for name, check in CHECKS.items()
        for each in check.look(subject, mtas)
    }
    return sorted(found, key=lambda each: (each.file, each.line))
