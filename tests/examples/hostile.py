"""Messages that no filter may stumble over: broken MIME, NULs, 8-bit headers, too much of it."""

from Milter.testing.samples import SAMPLES

FROM = b"From: ann@example.org\n"
MIXED = FROM + b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n'


def nested(levels: int) -> bytes:
    """Multiparts in multiparts."""
    heads = (
        b"--%d\nContent-Type: multipart/mixed; boundary=%d\n\n" % (level, level + 1)
        for level in range(levels)
    )
    return FROM + b"Content-Type: multipart/mixed; boundary=0\n\n" + b"".join(heads)


HOSTILE = {
    **SAMPLES,
    "no boundary": FROM + b"Content-Type: multipart/mixed\n\n--b\n\ntext\n",
    "boundary without parts": MIXED + b"\nnothing of the kind\n",
    "empty parts": MIXED + b"\n--b\n--b\n--b--\n",
    "closed first": MIXED + b"\n--b--\n--b\n\ntext\n",
    "header of a part without end": MIXED + b"\n--b\nContent-Type: text/plain",
    "8-bit headers": FROM.replace(b"ann", b"\xe4nn \xff <ann") + b"Subject: \x80\xff\n"
    b"Content-Type: text/plain; charset=\xff; name=\x80.exe\n\n\xff\n",
    "nul in a part": MIXED + b"\n--b\nContent-Type: text/html\0; charset=utf-8\n\n<\0p>\0\n--b--\n",
    "nul in a charset": FROM + b'Content-Type: text/plain; charset="utf-8\0"\n\ntext\n',
    "bare cr in headers": FROM + b"Content-Type: text/plain\r\r\rX: y\n\n\rtext\r\n",
    "broken base64": FROM + b"Content-Transfer-Encoding: base64\n\n=A=A\xff\xff!!!\n",
    "broken quoted-printable": FROM
    + b"Content-Transfer-Encoding: quoted-printable\n\n=\n=ZZ=4\n= \n",
    "unknown encoding": FROM + b"Content-Transfer-Encoding: x-\xff\n\ntext\n",
    "many encodings": FROM + b"Content-Transfer-Encoding: 7bit\n" * 9 + b"\ntext\n",
    "many types": FROM
    + b"Content-Type: text/plain\nContent-Type: multipart/mixed\n" * 9
    + b"\nx\n",
    "charset that is no charset": FROM + b"Content-Type: text/plain; charset=zlib\n\ntext\n",
    "charset with time": FROM + b"Content-Type: text/plain; charset=idna\n\n" + b"a." * 9999,
    "wrong charset": FROM + b"Content-Type: text/plain; charset=utf-8\n\n\xff\xfe\n",
    "utf-16": FROM + b"Content-Type: text/html; charset=utf-16\n\n<\0b\0o\0d\0y\0>\0",
    "html without end": FROM + b"Content-Type: text/html\n\n" + b"<" * 20_000 + b"<!--</body>",
    "deep": nested(1000),
    "many parts": MIXED + b"\n" + b"--b\n\nx\n" * 20_001 + b"--b--\n",
    "many authors": b"From: <" * 2000 + b"\n" + b"From: a@b\n" * 2000 + b"\ntext\n",
    "comments in an address": b"From: " + b"(" * 20_000 + b"\n\ntext\n",
    "parameters without end": FROM + b"Content-Type: text/plain" + b';a="' * 5000 + b"\n\ntext\n",
}
