"""Sendmail as filters know it (protocol sheet, section 8; measured with 8.17.1.9)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from Milter import macros
from Milter.testing.client import Auth, Client, Tls
from Milter.testing.draft import Draft, Envelope, Header
from Milter.testing.profile import Profile, Values
from Milter.testing.reply import Reply, read_lines
from Milter.testing.steps import Answer
from Milter.testing.text import bare, to_bytes, to_str

__all__ = ["SENDMAIL", "SendmailDraft"]

_PERCENT = re.compile("%+")
_MOST_HEADERS = 32768  # bytes of them in one message
_REJECTED = "Command rejected"
_HANGS_UP = Reply(421, None, "")  # by itself, not because of a filter's answer
_OWN = ("Return-Path", "Received", "Resent-Date", "Date", "Resent-From", "From", "Full-Name",
        "Resent-Message-Id", "Message-Id")  # fmt: skip


class SendmailDraft(Draft):
    """A message in Sendmail's queue.

    Its list of headers begins with those that it adds itself where the message has none. They
    count where headers are inserted, and also the place of a header that was deleted.
    """

    own_headers = tuple(Header(name.encode(), None, own=True) for name in _OWN)
    always_blank = True

    def refusal(self) -> Reply | None:
        """Lone CR are not taken, nor too many headers."""
        content = self.content
        if content.count(b"\r") != content.count(b"\r\n"):
            return Reply(421, "4.5.0", "Bare carriage return (CR) not allowed")
        if self.head_size > _MOST_HEADERS:
            return Reply(552, "5.6.0", f"Headers too large ({_MOST_HEADERS} max)")
        return None

    def __init__(self, content: bytes, envelope: Envelope, *, leading_space: bool = False) -> None:
        self._came_with: set[bytes] = set()
        super().__init__(content, envelope, leading_space=leading_space)

    def header_line(self, line: bytes) -> bytes:
        """NUL are left out."""
        return line.replace(b"\0", b"")

    def first_line(self, line: bytes) -> Header | None:
        """A mailbox's separator is left out."""
        return None

    def header(self, name: bytes, text: bytes) -> Header | None:
        """All are kept."""
        self._came_with.add(name.lower())
        return Header(name, text)

    def add_header(self, name: str, value: str) -> None:
        """Takes the place of the header of that name that Sendmail would add itself, unless it is
        empty and the message has one; else goes before the first one of that name, or to the
        end."""
        wanted = to_bytes(name)
        made = self.made(name, value)
        places = [place for place, each in enumerate(self.headers) if each.is_called(wanted)]
        own = [place for place in places
               if self.headers[place].own and wanted.lower() != b"received"]  # fmt: skip
        if own and (value or wanted.lower() not in self._came_with):
            self.headers[own[0]] = made
        elif not own:
            self.headers.insert(places[0] if places else len(self.headers), made)

    def insert_header(self, index: int, name: str, value: str) -> None:
        """0 is above Sendmail's own Received; every header counts, shown or not."""
        self.headers.insert(index + 1, self.made(name, value))

    def change_header(self, index: int, name: str, value: str) -> None:
        """Gives the index-th header of a name (0 stands for 1) another value, deletes it when that
        is empty; one that was deleted keeps its number. Where there are not so many, it is the
        same as add_header."""
        wanted = to_bytes(name)
        places = [place for place, each in enumerate(self.headers)
                  if not each.own and each.is_called(wanted)]  # fmt: skip
        index = max(index, 1)
        if index <= len(places):
            place = places[index - 1]
            text = self.made(name, value).text if value else None
            self.headers[place] = replace(self.headers[place], text=text)
        elif value:
            self.add_header(name, value)

    def add_recipient(self, address: str, params: str | None = None) -> None:
        """Adds a recipient unless it is there in just this case of letters."""
        rcpt = bare(address)
        if rcpt not in self.rcpts:
            self.rcpts.append(rcpt)
            if params:
                self.rcpt_params[rcpt] = params

    def delete_recipient(self, address: str) -> None:
        """Removes a recipient that is there in just this case of letters."""
        rcpt = bare(address)
        if rcpt in self.rcpts:
            self.rcpts.remove(rcpt)
        self.rcpt_params.pop(rcpt, None)


class Sendmail(Profile):
    """What Sendmail does by rules of its own."""

    def read_reply(self, text: str) -> Reply:
        """Every `%` must be doubled."""
        reply, _ = read_lines(text)
        if any(len(run) % 2 for run in _PERCENT.findall(text)):
            raise ValueError(f"a single % in {text!r}")
        return Reply(reply.code, reply.enhanced, reply.text.replace("%%", "%"))

    def malformed_reply(self, step: str) -> Answer:
        """It rejects, by a text of its own."""
        late = step in ("header", "eoh")
        return Answer("reject", Reply(550, "5.7.1", _REJECTED) if late else None)

    def reply(self, step: str, kind: str, given: Reply | None, address: str, host: str) -> Reply:
        """At connect without the filter's text; at MAIL and RCPT with the address before it."""
        if given == _HANGS_UP and step in ("mail", "rcpt"):
            return Reply(421, "4.3.0", "closing connection")
        if given and given.code == 421:
            if step == "connect" or given == _HANGS_UP:
                given = Reply(421, "4.7.0", f"{host} closing connection")
            return given
        if step == "connect" and kind == "reject":
            return Reply(554, None, f"{host} ESMTP not accepting messages")
        if kind == "tempfail" and (given is None or step == "connect"):
            return Reply(451, "4.3.2", "Please try again later")
        if given is None and step in ("header", "eoh", "body", "eom"):
            return Reply(554, "5.7.1", _REJECTED)
        if given is None:
            given = Reply(550, "5.0.0" if step == "helo" else "5.7.1", _REJECTED)
        if step in ("mail", "rcpt"):
            given = replace(given, text=f"{address}... {given.text}")
        return given

    def session_values(self, client: Client, host: str, tls: Tls | None) -> Values:
        """With the interface, its address only for clients of other machines; what a certificate
        would tell is empty without one."""
        local = client.address is None or client.address.startswith(("127.", "::1", "/"))
        address = client.address or "unknown"
        tls = tls and replace(tls, subject=tls.subject or "", issuer=tls.issuer or "")
        return {
            **super().session_values(client, host, tls),
            "_": f"{client.name} [{address}]" if client.name else f"[{address}]",
            "daemon_name": "MTA",
            "client_name": client.host,
            "client_addr": _tagged(address),
            "if_name": "localhost" if local else host,
            "if_addr": None if local else "192.0.2.25",
        }

    def mail_values(self, address: str, auth: Auth | None) -> Values:
        """The null sender is local; a host's name is complete."""
        host = address.rpartition("@")[2]
        return {
            **super().mail_values(address, auth),
            "mail_host": host and f"{host}.",
            "mail_mailer": "esmtp" if host else "local",
        }

    def rcpt_values(self, address: str) -> Values:
        """As for a host that mail is passed on to."""
        host = address.rpartition("@")[2]
        return {"rcpt_addr": address, "rcpt_host": host and f"{host}.",
                "rcpt_mailer": "esmtp" if host else "local"}  # fmt: skip

    def message_values(self, draft: Draft, host: str, queue_id: str) -> Values:
        """The message's id; the one that Sendmail gives it, if it has none."""
        for name, value in draft.wire_headers():
            if name.lower() == b"message-id":
                return {"msg_id": to_str(value).strip()}
        return {"msg_id": f"<{queue_id}@{host}>"}

    def macro_names(
        self, stage: str, lists: Mapping[str, tuple[str, ...]]
    ) -> tuple[str, ...] | None:
        """For the end of the message a filter's list counts only if it has one for the end of
        the headers. Of an empty list nothing is sent."""
        own = stage in lists
        if stage == "eom":
            own = "eoh" in lists
        names = lists.get(stage, ()) if own else self.macros.get(stage, ())
        return names or None

    def connect_fields(self, client: Client) -> tuple[bytes | int, ...]:
        """IPv6 addresses have their tag."""
        if client.fields[1] == b"6" and client.address:
            return (*client.fields[:-1], to_bytes(_tagged(client.address)))
        return client.fields

    def aborts_after(self, step: str, answer: Answer, answered: bool) -> str:
        """Only where MAIL was answered and no verdict has ended the message for the filter."""
        if not answered or step not in ("rcpt", "data", "mta") or answer.hangs_up:
            return ""
        now = step == "mta" or answer.kind == "discard"
        return "now" if now else "later" if answer.refuses else ""


def _tagged(address: str) -> str:
    return f"IPv6:{address}" if ":" in address and "/" not in address else address


_GONE = "leave out"

SENDMAIL: Final = Sendmail(
    name="sendmail",
    software="8.17.1.9",
    protocol=MappingProxyType({}),
    macros=macros.SENDMAIL.sent,
    macro_stage=MappingProxyType({"header": "", "body": "", "unknown": ""}),
    macros_when_omitted=frozenset({"connect", "helo", "mail", "rcpt", "data", "eom"}),
    queue_id_at_mail=True,
    chunk=65535,
    draft=SendmailDraft,
    meanings=MappingProxyType(
        {
            ("connect", "discard"): _GONE,
            ("helo", "discard"): "continue",
            **{(step, "skip"): _GONE for step in ("connect", "helo", "mail", "rcpt", "data")},
        }
    ),
    skips=MappingProxyType(dict.fromkeys(("header", "eoh", "body"), "body")),
    faults=MappingProxyType(
        {
            "action": "ignored",
            "body action": "tempfail",
            "macro list": "ignored",
            "data left over": "ignored",
            "header name": "ignored",
            "header value": "ignored",
            "reply": "ignored",
            "skip": "ignored",
            "skip too early": "ignored",
            "split body": "ignored",
            "version": "ignored",
        }
    ),
    failures=MappingProxyType(
        {
            "tempfail": Answer("tempfail"),
            "reject": Answer("reject"),
            "accept": Answer("accept"),
            "shutdown": Answer("tempfail", _HANGS_UP),
        }
    ),
    shutdown=None,
    progress_anywhere=False,
    most_macros=50,
    content_apart=False,
    quit_when_held=True,
)
