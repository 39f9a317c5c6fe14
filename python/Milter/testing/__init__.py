"""The MTA side of the milter protocol: give a message to a filter and see what becomes of it.

    from Milter.testing import MTA

    with MTA("unix:/run/filter.sock") as mta:
        result = mta.send(b"Subject: hello\\n\\nhi\\n", "a@example.org", ["b@example.org"])
        assert result.verdict == "accepted"
        print(result.diff())

It speaks the real protocol over the filter's socket, whatever the filter is written in, and
reports as ProtocolError what a conforming filter would not do.
"""

from Milter.testing.changes import (
    AddHeader,
    AddRecipient,
    Change,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    ReplaceBody,
)
from Milter.testing.client import Client
from Milter.testing.conversation import Answer, Conversation, Offer
from Milter.testing.draft import Draft, Envelope
from Milter.testing.errors import (
    ConnectError,
    FilterClosed,
    FilterError,
    FilterTimeout,
    ProtocolError,
    SessionOver,
)
from Milter.testing.mta import MTA, Session
from Milter.testing.profile import POSTFIX, Profile
from Milter.testing.reply import Reply
from Milter.testing.result import RecipientResult, Result, Verdict

__all__ = [
    "MTA",
    "POSTFIX",
    "AddHeader",
    "AddRecipient",
    "Answer",
    "Change",
    "ChangeHeader",
    "ChangeSender",
    "Client",
    "ConnectError",
    "Conversation",
    "DeleteRecipient",
    "Draft",
    "Envelope",
    "FilterClosed",
    "FilterError",
    "FilterTimeout",
    "InsertHeader",
    "Offer",
    "Profile",
    "ProtocolError",
    "Quarantine",
    "RecipientResult",
    "ReplaceBody",
    "Reply",
    "Result",
    "Session",
    "SessionOver",
    "Verdict",
]
