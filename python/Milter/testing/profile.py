"""What differs from MTA to MTA: macros, habits, what answers mean, how changes are made.

POSTFIX and SENDMAIL stand in files of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from Milter.testing.client import Auth, Client, Tls
from Milter.testing.draft import Draft
from Milter.testing.reply import Reply
from Milter.testing.steps import Answer

__all__ = ["Profile", "Values"]

Values = dict[str, "str | None"]
"""Macro values by name, without braces. None: the macro has no value."""


@dataclass(frozen=True)
class Profile:
    """One kind of MTA. Make variants with dataclasses.replace().

    name: how it is asked for. software: macro {v}.
    protocol: version -> protocol options offered with it.
    macros: stage -> names of the macros sent there, unless the filter asks for others; a stage
        that is missing sends none.
    macro_stage: steps that send another stage's macros.
    macros_when_omitted: steps whose macros are sent though the filter does not want the step.
    queue_id_at_mail: whether macro i has a value from MAIL on, or only after the first recipient
        that was accepted.
    chunk: bytes of body in a packet.
    draft: how messages are read and changed.
    meanings: (step, kind of answer) -> the kind that this MTA takes it for; "leave out" is that
        the filter is not asked any more on this connection.
    skips: step -> the step that is not sent any more for this message after SKIP there;
        where one is missing, nothing is left out.
    faults: kind of ProtocolError -> what this MTA does: "ignored", it notices nothing;
        "tempfail", it refuses the message for now; "misconfigured", it gives up on the filter
        with a word to its owner; else it gives up on it, see `failures`. Only where errors are
        not raised.
    failures: what it does with mail when it gave up on the filter, by the name of the setting.
    shutdown: what the client is told after SHUTDOWN; None: this MTA does not know that answer.
    progress_anywhere: whether PROGRESS is known before the end of the message.
    most_macros: in one list of a filter's; None: any number.
    content_apart: whether the steps from HEADER on are another daemon's, which tells the first one
        nothing of what came of them.
    quit_when_held: whether QUIT is sent after an answer that decided for the whole connection,
        or it is just closed.
    """

    name: str
    software: str
    protocol: Mapping[int, int]
    macros: Mapping[str, tuple[str, ...]]
    macro_stage: Mapping[str, str]
    macros_when_omitted: frozenset[str]
    queue_id_at_mail: bool
    chunk: int
    draft: type[Draft]
    meanings: Mapping[tuple[str, str], str]
    skips: Mapping[str, str]
    faults: Mapping[str, str]
    failures: Mapping[str, Answer]
    shutdown: Reply | None
    progress_anywhere: bool
    most_macros: int | None
    content_apart: bool
    quit_when_held: bool

    # ----------------------------------------------------------------------------------- replies

    def read_reply(self, text: str) -> Reply:
        """The reply that the text of a REPLYCODE packet is to this MTA. Raises ValueError that
        says why it is none."""
        raise NotImplementedError

    def reply(self, step: str, kind: str, given: Reply | None, address: str, host: str) -> Reply:
        """What the SMTP client is told after "reject" or "tempfail" at a step.

        given: the filter's own text. address: of MAIL or RCPT, in brackets. host: the MTA's name.
        """
        raise NotImplementedError

    def malformed_reply(self, step: str) -> Answer:
        """What a reply means that is none, where the MTA does not give up on the filter by it."""
        raise NotImplementedError

    def misconfigured(self, action: str) -> Answer:
        """What it does with mail when it gave up on the filter by a fault of that kind."""
        return self.failures[action]

    # ------------------------------------------------------------------------------------- macros

    def session_values(self, client: Client, host: str, tls: Tls | None) -> Values:
        """The values of macros, by names without braces, once a client has connected."""
        address = client.address or "unknown"
        name = client.name or "unknown"
        values: Values = {
            "j": host,
            "v": self.software,
            "_": f"{name} [{address}]",
            "daemon_name": host,
            "daemon_addr": "127.0.0.1",
            "daemon_port": "25",
            "client_name": name,
            "client_ptr": name,
            "client_addr": address,
            "client_port": str(client.port),
            "client_connections": "0",
            "client_resolve": "OK" if client.name else "FAIL",
        }
        if tls:
            values |= {
                "tls_version": tls.version,
                "cipher": tls.cipher,
                "cipher_bits": str(tls.bits),
                "cert_subject": tls.subject,
                "cert_issuer": tls.issuer,
            }
        return values

    def mail_values(self, address: str, auth: Auth | None) -> Values:
        """Those that MAIL adds. address: without brackets."""
        values: Values = {
            "mail_addr": address,
            "mail_host": address.rpartition("@")[2],
            "mail_mailer": "smtp",
        }
        if auth:
            values |= {
                "auth_type": auth.mechanism,
                "auth_authen": auth.name,
                "auth_author": auth.author,
                "auth_ssf": None if auth.strength is None else str(auth.strength),
            }
        return values

    def rcpt_values(self, address: str) -> Values:
        """Those that RCPT adds. address: without brackets."""
        return {
            "rcpt_addr": address,
            "rcpt_host": address.rpartition("@")[2],
            "rcpt_mailer": "local",
        }

    def message_values(self, draft: Draft, host: str, queue_id: str) -> Values:
        """Those that the message's content adds."""
        return {}

    def macro_names(
        self, stage: str, lists: Mapping[str, tuple[str, ...]]
    ) -> tuple[str, ...] | None:
        """The macros to send at a stage, where a filter has asked for these lists; None for not
        even an empty packet."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------ packets

    def connect_fields(self, client: Client) -> tuple[bytes | int, ...]:
        """The fields of CONNECT (protocol sheet 1.3)."""
        return client.fields

    def unknown_command(self, line: str) -> str:
        """What filters get of a command line that the MTA does not know."""
        return line

    def aborts_after(self, step: str, answer: Answer, answered: bool) -> str:
        """Whether ABORT follows a message that ended by this answer at this step: "now", "later"
        for before the next message only, or "" for no. answered: whether MAIL was."""
        raise NotImplementedError

    def aborts_at_quit(self, said_helo: bool) -> bool:
        """Whether ABORT goes before QUIT."""
        return False
