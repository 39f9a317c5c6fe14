"""An example filter: adds a disclaimer to the mail of one's own users, in plain text and in HTML.

    DISCLAIMER=/etc/disclaimer.txt \\
        milterkit run examples/disclaimer.py --socket unix:/run/disclaimer.sock

Run it before a filter that signs. Mail that is signed (DKIM too) or encrypted is left alone.
"""

import base64
import binascii
import html
import io
import os
import re
import socket
from collections import Counter
from pathlib import Path

import Milter
import mime
from Milter.utils import iniplist

# Read once: a file that is missing shows when the filter starts, not at the first message.
TEXT = Path(os.environ.get("DISCLAIMER", "/etc/disclaimer.txt")).read_text("utf-8").strip()
LINES = [line.rstrip() for line in TEXT.splitlines()]
# With references for what is no ASCII, so that it fits into every charset.
PAGE = f"<div>{'<br>'.join(map(html.escape, LINES))}</div>\r\n"
PAGE = PAGE.encode("ascii", "xmlcharrefreplace").decode()
# Clients whose mail gets the disclaimer without a login.
LOCAL = ("127.0.0.0/8", "::1", "10.0.0.0/8", "192.168.0.0/16")
LIMIT = 50 * 1024 * 1024  # bytes of body; larger messages pass as they are

#: A change would break the signature, or what is encrypted: of the message, and of a part.
SIGNATURES = ("DKIM-Signature", "ARC-Message-Signature")
SEALED = {
    "multipart/signed",
    "multipart/encrypted",
    "application/pkcs7-mime",
    "application/x-pkcs7-mime",
}
#: Of each kind of multipart, how many of its parts are the message's own text.
OWN = {"multipart/alternative": None, "multipart/mixed": 1, "multipart/related": 1}
#: What can be read and written again. In these charsets ASCII means what it says.
ENCODINGS = ("7bit", "8bit", "binary", "quoted-printable", "base64")
CHARSETS = re.compile(
    r"us-ascii|utf-8|(iso-8859-|windows-125|koi8-)\w+|gb\w+|big5|euc-(jp|kr)|shift_jis|iso-2022-jp"
)


class Disclaimer(Milter.Base):
    @Milter.noreply
    def connect(self, _hostname, family, hostaddr):
        is_ip = family in (socket.AF_INET, socket.AF_INET6)
        self.is_local = is_ip and iniplist(hostaddr[0], LOCAL)
        return Milter.CONTINUE

    def envfrom(self, _sender, *_params):
        if not (self.is_local or self.getsymval("{auth_authen}")):
            return Milter.ACCEPT  # the rest of this message is not even sent to us
        self.content = io.BytesIO()  # one object serves all messages of a connection
        return Milter.CONTINUE

    @Milter.noreply
    @Milter.decode("bytes")  # headers may hold bytes that are no UTF-8
    def header(self, name, value):
        # Folds are LF here. A lone CR would end a line, and maybe all headers, for some readers.
        value = value.replace(b"\r", b" ").replace(b"\n", b"\r\n")
        self.content.write(b"%s: %s\r\n" % (name.encode("utf-8", "surrogateescape"), value))
        return Milter.CONTINUE

    @Milter.noreply
    def eoh(self):
        self.content.write(b"\r\n")
        return Milter.CONTINUE

    def body(self, chunk):
        if self.content.tell() + len(chunk) > LIMIT:
            return Milter.ACCEPT
        self.content.write(chunk)
        return Milter.CONTINUE

    def eom(self):
        self.content.seek(0)
        message = mime.message_from_file(self.content)
        is_signed = any(name in message for name in SIGNATURES)
        if is_signed or any(is_sealed(part) for part in outer_parts(message)):
            return Milter.CONTINUE

        before = Counter(map(str.lower, message))
        changed = {}
        message.headerchange = lambda _message, name, _value: changed.update({name.lower(): name})
        for part in bodies(message):
            add_disclaimer(part)
        if not message.ismodified():
            return Milter.CONTINUE

        if changed and "MIME-Version" not in message:
            message["MIME-Version"] = "1.0"
        for key, name in changed.items():
            # Values as they are kept, which is how they came, 8-bit bytes included.
            values = [value for each, value in message.raw_items() if each.lower() == key]
            for index in range(before[key], len(values), -1):  # from the last one: the others move
                self.chgheader(name, index, None)
            for index, value in enumerate(values, 1):  # one that is not there yet is added
                self.chgheader(name, index, value)
        header_and_body = re.split(rb"^\r\n", message.as_bytes(), maxsplit=1, flags=re.MULTILINE)
        self.replacebody(header_and_body[1])
        return Milter.CONTINUE


def outer_parts(message):
    """A message and its parts, but not those of messages inside of it."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        if part.is_multipart() and part.get_content_maintype() == "multipart":
            waiting += part.get_payload()


def is_sealed(part):
    """Whether a part is signed or encrypted."""
    is_smime = any(name.lower().endswith(".p7m") for _, name in part.getnames())
    return is_smime or part.get_content_type() in SEALED


def bodies(part):
    """The parts that a mail program shows as the message's own text: each form of it, but no
    attachment and no message inside."""
    kind = part.get_content_type()
    if part.is_multipart():
        for each in part.get_payload()[: OWN.get(kind, 0)]:
            yield from bodies(each)
    elif kind in ("text/plain", "text/html") and not (
        part.get_content_disposition() == "attachment" or part.get_filename()
    ):
        yield part


def add_disclaimer(part):
    """Adds the disclaimer to a part. One that has it, or that cannot be read, stays as it is."""
    encoding = (part.getencoding() or "7bit").strip().lower()
    charset = part.get_content_charset("us-ascii")
    if encoding not in ENCODINGS or not CHARSETS.fullmatch(charset):
        return
    try:
        # Where no charset is given, what is no ASCII mostly is UTF-8.
        text = part.get_payload_source().decode("utf-8" if charset == "us-ascii" else charset)
        text = with_disclaimer(part, text)
        if text is None:
            return
        data = text.encode(charset)
    except UnicodeEncodeError:  # the charset has no such letters
        data = text.encode("utf-8")
        part.set_param("charset", "utf-8")
    except (UnicodeDecodeError, LookupError):
        return  # it is not in the charset that it names, or there is none of that name

    if encoding == "base64":
        part.set_payload(base64.encodebytes(data).decode("ascii"))
    elif encoding == "quoted-printable":
        part.set_payload(quoted_printable(data))
    elif encoding == "7bit" and not data.isascii():
        part.set_payload(quoted_printable(data))
        del part["Content-Transfer-Encoding"]
        part["Content-Transfer-Encoding"] = "quoted-printable"
    else:
        part.set_payload(data)


def quoted_printable(data):
    """Data in quoted-printable. A CR or LF alone is no line end, and stays what it is."""
    is_text = not re.search(rb"\r(?!\n)|(?<!\r)\n", data)
    return binascii.b2a_qp(data, istext=is_text).decode("ascii")


def with_disclaimer(part, text):
    """The text of a part with the disclaimer added; None if it should not be."""
    is_html = part.get_content_type() == "text/html"
    shown = html.unescape(re.sub(r"<[^<>]*>", " ", text)) if is_html else text
    if "-----BEGIN PGP " in shown or words(TEXT) in words(shown):
        return None  # signed or encrypted, or an answer that quotes it
    if is_html:
        page = EndOfBody(io.StringIO())
        page.feed(text)
        page.close()
        at = len(text) if page.end is None else page.end
        return f"{text[:at]}{PAGE}{text[at:]}"
    lines = LINES
    if str(part.get_param("format")).lower() == "flowed":
        # There a space in front is one more than meant, and a ">" quotes (RFC 3676, 4.4).
        lines = [f" {line}" if line.startswith((" ", ">", "From ")) else line for line in LINES]
    # The empty line also ends a paragraph that flows. A part's last line may have no end.
    before, after = ("\r\n", "\r\n") if not text or text.endswith("\n") else ("\r\n\r\n", "")
    return text + before + "\r\n".join(lines) + after


def words(text):
    """The words of a text, however it was wrapped and quoted since."""
    return " ".join(text.replace(">", " ").split())


class EndOfBody(mime.SGMLFilter):
    """Finds where the body of a page ends: not in a comment, a script, or an attribute."""

    end = None

    def end_body(self):
        self.end = self.out.tell()
        self.unknown_endtag("body")


if __name__ == "__main__":
    Milter.factory = Disclaimer
    Milter.runmilter("disclaimer", "inet:8894@127.0.0.1")
