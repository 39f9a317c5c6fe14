"""Notices to the senders of messages, and the question whether a sender's servers know it.

`create_msg` makes a notice from a template, `send_dsn` hands it to the sender's mail servers, or
only asks them (callback verification). Looking up these servers needs `Milter.dns`, or an object
of your own with its method `dns`.
"""

from __future__ import annotations

import random
import re
import smtplib
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from email.header import Header
from email.message import Message
from email.parser import HeaderParser
from types import SimpleNamespace
from typing import Any

from Milter import __version__

__all__ = ["PORT", "Vars", "create_msg", "send_dsn"]

#: The port of mail servers.
PORT = 25

_BAD = r"\x00-\x20<>@\x7f-\x9f\ud800-\udfff"
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]|\\[ -~])+"'
_ADDRESS = re.compile(rf'(?:{_QUOTED}|[^"\\{_BAD}]+)@([^"\\{_BAD}]+)')
_HOST = re.compile(r"[\w.:\[\]-]+", re.ASCII)
_LINE = 998  # characters at most in a line of a header
_NOBODY = (450, "No MX servers available")
_NULL_MX = (556, "Domain does not accept mail")


class Vars(SimpleNamespace):
    """An object of any attributes, for programs that have no other one for `create_msg`."""


def send_dsn(  # noqa: PLR0917 - the older package's
    mailfrom: str,
    receiver: str,
    msg: str | bytes | Message | None = None,
    timeout: float = 600,
    session: Any = None,
    ourfrom: str = "",
) -> tuple[int, str] | None:
    """Send a notice to a sender; without a message, only ask whether its servers would take it.

    mailfrom: the sender, with or without angle brackets. receiver: the name of this host, for
    EHLO. msg: the notice, with any line ends; what is not ASCII goes as UTF-8. timeout: seconds
    for all together, after the look-up. session: its `dns(domain, "MX")` gives a list of
    (preference, host); None for a `Milter.dns.Session`. ourfrom: the sender of the notice, "" for
    the null sender, which prevents loops (RFC 5321 4.5.5). If a server refuses it,
    `postmaster@RECEIVER` is tried too, but not when only asking.

    The servers are tried in the order of their preference, those of the same one in any (RFC 5321
    5.1); without MX records the domain itself. The first one that answers to MAIL, RCPT or DATA
    decides; one that cannot be reached, does not greet or does not keep to the protocol is passed
    over.

    Returns None for success, else (code, text): a server's, lines of text with "\\n" between them;
    (450, "No MX servers available"); (553, ...) for an international address that the server does
    not take; (556, ...) for a domain without mail (RFC 7505). To answer with such a text, split
    its lines and double each "%". It blocks: call it in eom, or where the MTA waits long enough.

    Raises ValueError for what is no address, as the null sender is none: nobody waits for a notice
    there; and for a receiver that is no host's name. Nothing in an address can become a command or
    a header. Raises what the session does: `Milter.dns.DNSError`.
    """
    to, domain = _address(mailfrom)
    sender = "" if ourfrom in ("", "<>") else _address(ourfrom)[0]
    if not _HOST.fullmatch(receiver):
        raise ValueError(f"not a host's name: {receiver!r}")
    content = _content(msg)
    if session is None:
        # Not before it is needed: it has a dependency.
        from Milter.dns import Session  # noqa: PLC0415

        session = Session()
    records = list(session.dns(domain, "MX") or [(0, domain)])
    random.shuffle(records)
    hosts = [host for _, host in sorted(records, key=lambda each: int(each[0]))]
    if not any(host.strip(".") for host in hosts):
        return _NULL_MX
    until = time.monotonic() + timeout
    senders = [sender, f"postmaster@{receiver}"] if content else [sender]
    for place in _places(hosts):
        with suppress(OSError), _connected(place, receiver, until) as smtp:
            return _handed_over(smtp, senders, to, content)
    return _NOBODY


def _address(text: str) -> tuple[str, str]:
    """An address without angle brackets, and its domain."""
    bare = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    match = _ADDRESS.fullmatch(bare)
    if not match:
        raise ValueError(f"not a mail address: {text!r}")
    return bare, match[1]


def _content(msg: str | bytes | Message | None) -> bytes:
    """A message as SMTP sends it."""
    data = msg.as_bytes() if isinstance(msg, Message) else msg or b""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    return re.sub(rb"\r\n|\r|\n", b"\r\n", data)


def _places(hosts: Iterable[str]) -> Iterator[str]:
    """The addresses of hosts, as text, looked up when it is their turn."""
    for host in hosts:
        with suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)
            yield from (str(each[4][0]) for each in found)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def _connected(place: str, receiver: str, until: float) -> Iterator[smtplib.SMTP]:
    """A server that has greeted. The socket's own timeout is one for each piece of an answer; so a
    timer ends the connection when the time for all is over. Raises OSError."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    smtp = smtplib.SMTP(local_hostname=receiver)
    smtp.sock = socket.create_connection((place, PORT), left)
    timer = threading.Timer(max(until - time.monotonic(), 0), _shut, [smtp.sock])
    timer.daemon = True
    timer.start()
    try:
        if _refusal(smtp.getreply()):
            raise ConnectionRefusedError
        smtp.ehlo_or_helo_if_needed()
        yield smtp
    finally:
        timer.cancel()
        with suppress(OSError):
            smtp.putcmd("quit")
        smtp.close()


def _refusal(reply: tuple[int, bytes]) -> tuple[int, str] | None:
    """An answer if it is a refusal. Its first digit decides (RFC 5321 4.3.2); raises OSError if
    that is no answer at all."""
    code, text = reply
    if code // 100 in (4, 5):
        return code, text.decode("utf-8", "surrogateescape")
    if code // 100 != 2:
        raise smtplib.SMTPResponseException(code, text)
    return None


def _handed_over(
    smtp: smtplib.SMTP, senders: list[str], to: str, content: bytes
) -> tuple[int, str] | None:
    """What send_dsn returns, from one server. Raises OSError if that server cannot say."""
    options = []
    if not (to + senders[0]).isascii():
        if not smtp.has_extn("smtputf8"):
            return 553, "Server does not take international addresses"
        options.append("SMTPUTF8")
    if not content.isascii() and smtp.has_extn("8bitmime"):
        options.append("BODY=8BITMIME")
    refusal = _refusal(smtp.mail(senders[0], options))
    for other in senders[1:]:
        if refusal:
            smtp.rset()
            refusal = _refusal(smtp.mail(other, options)) and refusal
    refusal = refusal or _refusal(smtp.rcpt(to))
    if content and not refusal:
        try:
            refusal = _refusal(smtp.data(content))
        except smtplib.SMTPDataError as error:
            refusal = _refusal((error.smtp_code, _bytes(error.smtp_error)))
            if not refusal:
                raise
    return refusal


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def create_msg(
    v: Any,
    rcptlist: Iterable[str] | None = None,
    origmsg: Message | None = None,
    template: str | None = None,
) -> Message | None:
    """Make a notice from a template; None without one.

    v: its attributes are what `%(name)s` stands for in the template, in header values and in the
    text below. It needs `sender` and `receiver` at least. rcptlist: recipients, for `v.rcpt`, which
    gets one on each line. origmsg: the message that the notice is about, for `v.subject` and
    `v.spf_result` (its first Received-SPF header); None where it has none. template: headers, which
    may be folded, an empty line, and the text; "%%" for a percent sign.

    What the template does not have is added: X-Mailer, MIME-Version, Content-Type, To (the
    sender), From (postmaster at the receiver), Auto-Submitted (RFC 3834). A line end in a value
    folds the header, and never begins another one; lines of headers are cut at 998 characters. A
    text that is not ASCII is UTF-8.

    Raises ValueError for a line that is no header and for what stands wrongly after a "%", KeyError
    for a name that is no attribute, AttributeError without sender or receiver.
    """
    if not template:
        return None
    if rcptlist:
        v.rcpt = "\n\t".join(rcptlist)
    if origmsg is not None:
        v.subject, v.spf_result = _first(origmsg, "subject"), _first(origmsg, "received-spf")
    parsed = HeaderParser().parsestr(template)
    below = str(parsed.get_payload())
    if parsed.defects:
        line = getattr(parsed.defects[0], "line", None) or below.partition("\n")[0]
        raise ValueError(f"template: no header, and no empty line above it: {line!r}")
    text = _filled(below, v, "its text")
    data = text.encode("utf-8", "surrogateescape")
    before = {
        "X-Mailer": f"Milterkit-{__version__}",
        "MIME-Version": "1.0",
        "Content-Type": "text/plain" if data.isascii() else 'text/plain; charset="utf-8"',
    }
    after = {
        "To": str(v.sender),
        "From": f"postmaster@{v.receiver}",
        "Auto-Submitted": "auto-generated",
    }
    if not data.isascii():
        after["Content-Transfer-Encoding"] = "8bit"
    msg = Message()
    for headers in (before, parsed, after):
        for name, value in headers.items():
            if headers is parsed:
                msg[name] = _folded(_filled(str(value), v, name))
            elif name not in parsed:
                msg[name] = _folded(value)
    # As `email` itself holds the text of a message that it has read.
    msg.set_payload(data.decode("ascii", "surrogateescape"))
    return msg


def _first(message: Message, name: str) -> str | None:
    """The first header of a name, its bytes that are not ASCII as surrogate escapes."""
    found = (str(value) for key, value in message.raw_items() if key.lower() == name)
    return next(found, None)


def _filled(template: str, v: Any, where: str) -> str:
    """A part of a template with the values put in."""
    try:
        return template % _Attributes(v)
    except (TypeError, ValueError) as error:
        raise ValueError(f"template, {where}: {error}; write %% for a percent sign") from error


class _Attributes:
    """An object's attributes, for the operator %."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self._of, name)
        except AttributeError as error:
            raise KeyError(name) from error


def _folded(value: str) -> str:
    """A header's value whose lines, by whatever characters they end, all continue the first; as
    encoded words (RFC 2047) if it is not ASCII."""
    first, *others = [line for line in value.splitlines() if line.strip()] or [""]
    # Longer ones are against RFC 5322 2.1.1, and `email` folds them in quadratic time.
    lines = [first, *(each if each[0] in " \t" else f" {each}" for each in others)]
    lines = [each[:_LINE] for each in lines]
    if not (whole := "".join(lines)).isascii():
        known = whole.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return Header(known, "utf-8").encode()
    return "\n".join(lines)
