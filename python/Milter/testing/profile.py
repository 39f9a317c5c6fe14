"""What differs from MTA to MTA, as data: macros, habits, reply texts, how changes are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from Milter import macros
from Milter.testing.draft import Draft
from Milter.testing.reply import Reply

__all__ = ["POSTFIX", "PROFILES", "Profile"]


@dataclass(frozen=True)
class Profile:
    """One kind of MTA. Make variants with dataclasses.replace().

    name: how it is asked for.
    software: macro {v}.
    protocol: version -> protocol options offered with it.
    macros: stage -> names of the macros sent there, unless the filter asks for others; a stage
        that is missing sends none.
    macro_stage: steps that send another stage's macros.
    empty_list_is_default: what an empty list of the filter means.
    macros_when_omitted: steps whose macros are sent though the filter does not want the step.
    queue_id_at_mail: whether macro i has a value from MAIL on, or only after the first recipient
        that was accepted.
    chunk: bytes of body in a packet.
    replies: what the client is told when the filter gave no text.
    discard_connection: whether DISCARD counts at connect and helo.
    abort_after_message: whether ABORT follows each message, finished or not.
    quit_when_held: whether QUIT is sent after an answer that decided for the whole connection,
        or it is just closed.
    draft: how changes are made to the message.
    """

    name: str
    software: str
    protocol: Mapping[int, int]
    macros: Mapping[str, tuple[str, ...]]
    macro_stage: Mapping[str, str]
    empty_list_is_default: bool
    macros_when_omitted: frozenset[str]
    queue_id_at_mail: bool
    chunk: int
    replies: Mapping[str, Reply]
    discard_connection: bool
    abort_after_message: bool
    quit_when_held: bool
    draft: type[Draft]


POSTFIX = Profile(
    name="postfix",
    software="Postfix 3.7.11",
    protocol=MappingProxyType({2: 0x7F, 3: 0x17F, 4: 0x37F, 5: 0x37F, 6: 0x1FFFFF}),
    macros=macros.POSTFIX.sent,
    macro_stage=MappingProxyType({"header": "eoh", "body": "eom"}),
    empty_list_is_default=True,
    macros_when_omitted=frozenset({"connect", "helo", "unknown", "mail", "rcpt", "data", "eom"}),
    queue_id_at_mail=False,
    chunk=65535,
    replies=MappingProxyType(
        {
            "reject": Reply(550, "5.7.1", "Command rejected"),
            "tempfail": Reply(451, "4.7.1", "Service unavailable - try again later"),
            "shutdown": Reply(421, "4.7.0", "Server closing connection"),
        }
    ),
    discard_connection=False,
    abort_after_message=True,
    quit_when_held=False,
    draft=Draft,
)  # fmt: skip

PROFILES: Mapping[str, Profile] = MappingProxyType({"postfix": POSTFIX})
