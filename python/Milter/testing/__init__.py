"""The MTA side of the milter protocol: give a message to a filter and see what becomes of it.

    import Milter
    from Milter.testing import MTA, AddHeader

    class Tagger(Milter.Base):
        def eom(self):
            self.addheader("X-Seen", "yes")
            return Milter.CONTINUE

    def test_it_tags():
        with MTA(Tagger) as mta:
            result = mta.send(b"Subject: hello\\n\\nhi\\n", "a@example.org", ["b@example.org"])
        assert result.verdict == "accepted"
        assert result.changes == (AddHeader("X-Seen", "yes"),)
        assert b"X-Seen: yes\\n" in result.message

It speaks the real protocol, to a filter's class in the same process or, over its socket, to any
filter in any language: MTA("unix:/run/filter.sock"). It behaves as Postfix or Sendmail do
(MTA(..., profile="sendmail")), and raises ProtocolError, which says what and where, for what a
conforming filter would not do; so it checks any milter for conformance.

MTA, and AsyncMTA for event loops: `send` takes a whole message and returns a Result: verdict, step,
reply, recipients, changes (objects: AddHeader ... Quarantine), and message and envelope as that
MTA would queue them. `session` gives a Session, for many clients at once and for single steps.
Client, Auth and Tls say who sends. POSTFIX and SENDMAIL are the profiles; a variant is made by
dataclasses.replace(). Conversation and deliver are the same without I/O, for drivers of your own.
"""

from Milter.testing.aio import AsyncMTA, AsyncSession
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
from Milter.testing.client import Auth, Client, Tls
from Milter.testing.conversation import Conversation
from Milter.testing.delivery import deliver
from Milter.testing.draft import Draft, Envelope
from Milter.testing.errors import (
    CallbackError,
    ConnectError,
    FilterClosed,
    FilterError,
    FilterTimeout,
    ProtocolError,
    SessionOver,
)
from Milter.testing.mta import MTA
from Milter.testing.postfix import POSTFIX
from Milter.testing.profile import Profile
from Milter.testing.reply import Reply
from Milter.testing.result import RecipientResult, Result, Verdict
from Milter.testing.sendmail import SENDMAIL
from Milter.testing.session import Session
from Milter.testing.steps import Answer, Message, Need, Offer

__all__ = [
    "MTA",
    "POSTFIX",
    "SENDMAIL",
    "AddHeader",
    "AddRecipient",
    "Answer",
    "AsyncMTA",
    "AsyncSession",
    "Auth",
    "CallbackError",
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
    "Message",
    "Need",
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
    "Tls",
    "Verdict",
    "deliver",
]
