"""Where we differ from the older package on purpose: what it does, what we do, and why. Tests take
their expectations from here; docs/differences.md tells users the same under the same names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    theirs: Any
    ours: Any
    why: str


# Reasons that several have in common.
ESCAPED = (
    "A client chooses its name, its HELO and its commands: bytes in them that are no UTF-8 "
    "must not fail every message. They become str by surrogateescape, as elsewhere."
)
BYTES = "bytes are taken wherever a str is: what a callback got as bytes can be given back."
BUFFERS = "Any bytes-like object is taken."
BACK = "What was decoded by surrogateescape goes back as the same bytes."
INJECTION = "The second line would be a header of its own, made by whoever wrote the value."
NAMES = "A header's name has printable ASCII without space and colon (RFC 5322 3.6.8)."
ONE_LINE = "A line end in an address or its parameters would end the MTA's own line."
OPTIONAL_TEXT = "The text may be left out, as the signature says."
NO_NUL = "A text that cannot be sent is milter.error, whatever is wrong with it."

DIFFERENCES = {
    "8-bit text": Difference(
        ("y", False),
        ("c", True),
        ESCAPED,
    ),
    "8-bit macros": Difference(
        "'utf-8' codec can't decode byte 0xe9 in position 1: unexpected end of data",
        "v\udce9",
        ESCAPED,
    ),
    "SKIP that was not negotiated": Difference(
        "s",
        "c",
        "An MTA that does not know the answer would give up on the filter: it gets CONTINUE.",
    ),
    "NOREPLY that was not negotiated": Difference(
        [],
        ["c"],
        "Every command that awaits an answer gets one; theirs leaves the MTA waiting.",
    ),
    "an exception in a @noreply callback": Difference(
        # What M R L N A M Q are answered when one of R and L fails.
        {"envrcpt": [*"cccc"], "header": [*"ccc"]},
        {"envrcpt": [*"cyc"], "header": [*"ccyc"]},
        "A failure is answered by the exception policy. Theirs loses the answer: the mail goes on, "
        "or the MTA waits for its next answer until its time-out.",
    ),
    "ints that are no verdict": Difference(
        [],
        ["y"],
        "Every command that awaits an answer gets one: the exception policy's, and a log line.",
    ),
    "sys.exit in a callback": Difference(
        "the process hangs while it ends",
        "the exception policy answers",
        "One message must not end the service for all others. Milter.stop() ends it.",
    ),
    "self.addheader('X', b'v\\xe9')": Difference(
        ([], "TypeError"),
        ([("h", b"X\x00v\xe9\x00")], "ok"),
        BYTES,
    ),
    "ctx.addheader(b'X', b'v\\xe9')": Difference(
        ([], "TypeError"),
        ([("h", b"X\x00v\xe9\x00")], "ok"),
        BYTES,
    ),
    "self.chgheader('X', 1, b'v')": Difference(
        ([], "TypeError"),
        ([("m", b"\x00\x00\x00\x01X\x00v\x00")], "ok"),
        BYTES,
    ),
    "self.addrcpt(b'<a\\xe9@b>')": Difference(
        ([], "TypeError"),
        ([("+", b"<a\xe9@b>\x00")], "ok"),
        BYTES,
    ),
    "self.delrcpt(b'<a@b>')": Difference(
        ([], "TypeError"),
        ([("-", b"<a@b>\x00")], "ok"),
        BYTES,
    ),
    "self.chgfrom(b'<a@b>')": Difference(
        ([], "TypeError"),
        ([("e", b"<a@b>\x00")], "ok"),
        BYTES,
    ),
    "ctx.replacebody(bytearray(b'text'))": Difference(
        ([], "TypeError"),
        ([("b", b"text")], "ok"),
        BUFFERS,
    ),
    "ctx.replacebody(memoryview(b'text'))": Difference(
        ([], "TypeError"),
        ([("b", b"text")], "ok"),
        BUFFERS,
    ),
    "self.addheader('X', 'v\\udce9')": Difference(
        ([], "UnicodeEncodeError"),
        ([("h", b"X\x00v\xe9\x00")], "ok"),
        BACK,
    ),
    "self.replacebody('v\\udce9')": Difference(
        ([], "UnicodeEncodeError"),
        ([("b", b"v\xe9")], "ok"),
        BACK,
    ),
    "self.setreply('550', '5.7.1', 'v\\udce9')": Difference(
        ([], "UnicodeEncodeError"),
        ([], "ok"),
        BACK,
    ),
    "self.addheader('X', 'v\\nBcc: x@y')": Difference(
        ([("h", b"X\x00v\nBcc: x@y\x00")], "ok"),
        ([], "error"),
        INJECTION,
    ),
    "self.addheader('X', 'v\\nBcc: x@y', 0)": Difference(
        ([("i", b"\x00\x00\x00\x00X\x00v\nBcc: x@y\x00")], "ok"),
        ([], "error"),
        INJECTION,
    ),
    "self.chgheader('X', 1, 'v\\r\\nBcc: x@y')": Difference(
        ([("m", b"\x00\x00\x00\x01X\x00v\r\nBcc: x@y\x00")], "ok"),
        ([], "error"),
        INJECTION,
    ),
    "self.addheader('X', 'v\\rBcc: x@y')": Difference(
        ([("h", b"X\x00v\rBcc: x@y\x00")], "ok"),
        ([], "error"),
        "MTAs take a lone CR as a line end.",
    ),
    "self.addheader('X', 'a\\n \\n b')": Difference(
        ([("h", b"X\x00a\n \n b\x00")], "ok"),
        ([], "error"),
        "A line of white space alone can be taken for the end of the headers (RFC 5322, 3.2.2).",
    ),
    "self.addheader('X', 'a\\r\\n b')": Difference(
        ([("h", b"X\x00a\r\n b\x00")], "ok"),
        ([("h", b"X\x00a\n b\x00")], "ok"),
        "Folds are LF in this protocol: Postfix would double the CR.",
    ),
    "self.addheader('X', 'a\\r\\n')": Difference(
        ([("h", b"X\x00a\r\n\x00")], "ok"),
        ([("h", b"X\x00a\x00")], "ok"),
        "Line ends at the end of a value are dropped: they would end the headers.",
    ),
    "self.addheader('X: y', 'v')": Difference(
        ([("h", b"X: y\x00v\x00")], "ok"),
        ([], "error"),
        NAMES,
    ),
    "self.addheader('X\\n', 'v')": Difference(
        ([("h", b"X\n\x00v\x00")], "ok"),
        ([], "error"),
        NAMES,
    ),
    "self.addrcpt('<a@b>\\n')": Difference(
        ([("+", b"<a@b>\n\x00")], "ok"),
        ([], "error"),
        ONE_LINE,
    ),
    "self.chgfrom('<a@b>', 'A\\nB')": Difference(
        ([("e", b"<a@b>\x00A\nB\x00")], "ok"),
        ([], "error"),
        ONE_LINE,
    ),
    "self.quarantine('a\\nb')": Difference(
        ([("q", b"a\nb\x00")], "ok"),
        ([("q", b"a b\x00")], "ok"),
        "A reason is often an exception's text: its line ends become spaces.",
    ),
    "self.setreply('550', '4.7.1', 'x')": Difference(
        ([], "ok"),
        ([], "error"),
        "Postfix refuses a reply whose two codes are of different classes, and disables the "
        "filter for the session.",
    ),
    "ctx.setreply('550', '5.7.1', '100%')": Difference(
        ([], "ok"),
        ([], "error"),
        "Sendmail throws a reply with a single % away, whichever way it was set.",
    ),
    "a reply text that begins with a digit": Difference(
        b"550 3 tries\0",
        b"550 5.0.0 3 tries\0",
        "To Postfix it is an enhanced code, of another class than the code's: it would refuse the "
        "reply and disable the filter for the session.",
    ),
    "self.setreply('550', '5.7.1', 'a\\x01b')": Difference(
        ([], "ok"),
        ([], "error"),
        "A control character in a reply breaks the SMTP client's log or terminal.",
    ),
    "self.setreply('550')": Difference(
        ([], "TypeError"),
        ([], "ok"),
        OPTIONAL_TEXT,
    ),
    "self.setreply('550', '5.7.1', None)": Difference(
        ([], "TypeError"),
        ([], "ok"),
        OPTIONAL_TEXT,
    ),
    "progress before the end of the message": Difference(
        ("p", "ok"),
        ("c", "error"),
        "Sendmail knows it at the end of the message only: elsewhere it gives up on the filter.",
    ),
    "opensocket, then runmilter elsewhere": Difference(
        "the first serves",
        "error",
        "The MTA waits at one of them, and nobody can tell at which.",
    ),
    "setsymlist after the negotiation": Difference(
        ["ok", "error"],
        ["error", "error"],
        "It has no effect there, so the call says it.",
    ),
    "@symlist": Difference(
        None,
        {
            0: b"j {x} _ {daemon_name} {if_name} {if_addr} {daemon_addr} v",
            2: b"i {auth_type} {auth_authen} {auth_ssf} {auth_author} {mail_mailer} {mail_host} "
            b"{mail_addr}",
            5: b"{a} {b} {msg_id} i",
            6: b"i",
        },
        "Theirs fails by a TypeError under Python 3 and asks for no macros. Ours adds what the "
        "MTAs send by default, which a list would take away, and asks for those of end-of-headers "
        "where it asks for those of end-of-message: Sendmail needs both.",
    ),
    "more than 5 macros": Difference(
        "ValueError",
        "ok",
        "The limit of MTAs is 50 (Sendmail) or none (Postfix).",
    ),
    "options that nobody knows": Difference(
        0x8FE00400,
        0x400,
        "Only options that the protocol names are asked for; bits 28 to 31 are internal.",
    ),
    "protocol_mask of a subclass": Difference(
        0x1FF880,
        0x1FF890,
        "Theirs keeps the value in an attribute that subclasses inherit: once asked of Base, it "
        "is the same for all.",
    ),
    "from Milter import *": Difference(
        "TypeError",
        [],
        "Theirs has an __all__ that Python 3 refuses.",
    ),
    "Milter.__version__": Difference(
        "1.0.5",
        "that of meson.build",
        "It says which package is installed; theirs counts on in its own way.",
    ),
    "decode_mask of bits without a name": Difference(
        ["ADDHDRS", "0", "x", "3", "0", "0"],
        ["ADDHDRS", "0x300"],
        "One item for one number.",
    ),
    "an object given to ctx.setpriv": Difference(
        "second",
        "first",
        "An object of the factory stays the connection's; what setpriv keeps may be anything.",
    ),
    "setconn of what cannot be opened": Difference(
        "ok",
        "error",
        "A specification that can never work is refused where it is given.",
    ),
    "how often main can serve": Difference(
        1,
        2,
        "Theirs accepts connections when main() is called again, but answers none.",
    ),
    "callbacks that are missing": Difference(
        (6, 0x1FF, 0x400),
        (6, 3, 0x77F),
        "What nobody listens to is not asked for: it saves the MTA and the filter the work. "
        "Flags that were set are what is asked for.",
    ),
    "a context in another thread": Difference(
        "ok",
        "error",
        "The engine serves the connection meanwhile: a context is for its callback's thread.",
    ),
    "self.addheader('X', 'a\\0b')": Difference(
        ([], "ValueError"),
        ([], "error"),
        NO_NUL,
    ),
    "self.setreply('550', '5.7.1', 'a\\0b')": Difference(([], "ValueError"), ([], "error"), NO_NUL),
    "setdbg(-1)": Difference("ok", "error", "A level is 0 or more."),
    "settimeout(-1)": Difference("ok", "error", "A time is 0 or more."),
    "@decode with an encoding": Difference(
        "ok",
        "ValueError",
        "Only the five strategies mean something; the first value that is not ASCII would raise.",
    ),
    "@noreply on header_bytes": Difference(
        "ValueError",
        "ok",
        "A program that overrides the method that gets bytes can mark that one.",
    ),
    "callbacks that are changed while main runs": Difference(
        "r",
        "c",
        "They are taken together when main() begins, and count for all its connections.",
    ),
}


def expected(implementation: str, name: str) -> Any:
    """What an implementation is to do at a named difference."""
    difference = DIFFERENCES[name]
    return difference.theirs if implementation == "oracle" else difference.ours
