"""What a filter will negotiate, in words: for an MTA that offers everything, as Postfix and
Sendmail do."""

from __future__ import annotations

import milter

from Milter import macros
from Milter._base import _KNOWN, Base
from Milter._decorators import OPTIONAL_CALLBACKS
from Milter.checking.checks.actions import ACTIONS
from Milter.checking.checks.macros import asked_for, macros_read
from Milter.checking.subject import CALLBACKS, Subject

__all__ = ["negotiation"]

#: What a bit of the protocol options lets the MTA do.
_OPTIONS = {
    milter.P_SKIP: "may tell the MTA to skip the rest of a body",
    milter.P_RCPT_REJ: "sees recipients that the MTA has refused itself",
    milter.P_HDR_LEADSPC: "gets header values with the space after the colon",
}
#: The methods' actions, in words.
_WORDS = {
    "addheader": "add headers", "chgheader": "change headers", "addrcpt": "add recipients",
    "delrcpt": "remove recipients", "replacebody": "replace the body",
    "chgfrom": "change the sender", "quarantine": "hold messages",
    "progress": "keep the MTA waiting",
}  # fmt: skip
_STEPS = [name for name in CALLBACKS if name not in ("abort", "close", "negotiate")]


def negotiation(subject: Subject) -> list[tuple[str, str]]:
    """Pairs of a topic and what there is to say of it."""
    steps = [name for name in _STEPS if name in subject.attributes]
    if "eom" not in steps:
        steps.append("eom")  # no MTA can leave it out
    left_out = [name for name in _STEPS if name not in steps]
    used = {use.method for uses in subject.uses.values() for use in uses}
    read = dict.fromkeys(each.name for each in macros_read(subject))
    asked = [
        f"{macros.CALLBACK[stage]}: {' '.join(names)}"
        for stage, names in asked_for(subject).items()
    ]
    told = [
        ("steps", ", ".join(steps)),
        ("left out", ", ".join(left_out) or "none"),
        ("no reply to", ", ".join(_unanswered(subject)) or "none: the MTA waits at each step"),
        ("actions", _actions(subject)),
        ("changes", ", ".join(_WORDS[name] for name in ACTIONS if name in used) or "none seen"),
        ("macros read", " ".join(read) or "none seen"),
        ("asked for", "; ".join(asked) or "no macros beside those that the MTA sends anyway"),
    ]
    told += [("also", words) for bit, words in _OPTIONS.items() if _protocol(subject) & bit]
    negotiate = getattr(subject.klass, "negotiate", None) if subject.klass else None
    if "negotiate" in subject.callbacks and negotiate is not Base.negotiate:
        told.append(("but", "it has a negotiate of its own, which may decide otherwise"))
    return told


def _protocol(subject: Subject) -> int:
    if subject.klass is None or not issubclass(subject.klass, Base):
        return milter.P_SKIP
    return _KNOWN & ~subject.klass.protocol_mask()


def _unanswered(subject: Subject) -> list[str]:
    protocol = _protocol(subject)
    return [name for name, (no_reply, _) in OPTIONAL_CALLBACKS.items() if protocol & no_reply]


def _actions(subject: Subject) -> str:
    if subject.actions is None or subject.actions == milter.CURR_ACTS:
        return "all that the MTA offers"
    names = (name for name in dir(milter) if name.isupper() and not name.endswith("_ACTS"))
    flags = {
        name
        for name in names
        if name in ("ADDHDRS", "CHGHDRS", "CHGBODY", "ADDRCPT", "ADDRCPT_PAR", "DELRCPT",
                    "QUARANTINE", "CHGFROM", "SETSYMLIST")
        and subject.actions & getattr(milter, name)
    }  # fmt: skip
    return " ".join(sorted(flags)) or "none"
