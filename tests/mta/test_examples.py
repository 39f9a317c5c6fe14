"""Examples that change mail, behind a real Postfix: what is delivered is what they mean.

What else they do is tested in tests/examples, without an MTA.
"""

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import Milter
import pytest
from mta import RECEIVED, Mta
from postfix import Postfix
from shared.keys import is_signed, rsa_key

FROM = b"From: Ann <ann@example.org>\r\n"
LINES = [RECEIVED, "From: Ann <ann@example.org>"]


@pytest.fixture(scope="session")
def mta(postfix: Postfix) -> Postfix:
    """The tests of this file run over this MTA alone: it shows mail as it is delivered."""
    return postfix


@contextmanager
def served(name: str, mta: Mta, **settings: object) -> Iterator[ModuleType]:
    """An example, with settings of its environment, at the MTA's first filter socket."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, str(value))
        patch.delitem(sys.modules, name, raising=False)
        example = importlib.import_module(name)
        [factory] = (
            each for each in vars(example).values()
            if isinstance(each, type) and issubclass(each, Milter.Base)
        )  # fmt: skip
        with Milter.Server(factory, f"unix:{mta.one}", mode=0o666):
            yield example


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No callback may raise: that would be a delay for an MTA."""
    yield
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of a DKIM key, and its DNS record."""
    file = tmp_path_factory.mktemp("key") / "key.pem"
    return file, rsa_key(file)


@pytest.mark.parametrize("canonicalize", ["simple/simple", "relaxed/relaxed"])
@pytest.mark.parametrize(
    "message",
    [
        FROM + b"Subject: hello\r\n\r\nhi \r\n",
        FROM + b"Subject:  two spaces,\r\n\ta fold \r\n and one\r\nX-None:\r\nTo:x@y\r\n\r\n\r\n",
        FROM + b"Subject: caf\xe9 \xc3\xa9\r\n\r\n..dots\r\n \t \r\n\xff\0x\r\n\r\n\r\n",
        FROM + b"Subject: bare\r cr\r\n\r\nbare\rcr\r\r\nno end",
        FROM + b"X-Long: " + b"x" * 5000 + b"\r\n\r\n" + b"x" * 70_000 + b"\r\n",
    ],
)
def test_dkim_sign(mta: Mta, key: tuple[Path, str], canonicalize: str, message: bytes) -> None:
    with served("dkim_sign", mta, DKIM_KEY=key[0]) as example:
        example.CANONICALIZE = tuple(canonicalize.encode().split(b"/"))
        delivered = mta.delivered(mta.submit("unix", message))
    _, _, mail = delivered.raw.partition(b">")
    assert mail.startswith(b"DKIM-Signature: v=1; a=rsa-sha256; c=" + canonicalize.encode())
    assert is_signed(mail, "mail._domainkey.example.org", key[1])


EXE = b"Content-Type: application/octet-stream; name=a.exe\r\n"
WARNING = "Content-Type: text/plain; name=WARNING.TXT"


@pytest.mark.parametrize(
    ("message", "headers", "is_changed"),
    [
        (FROM + b"X-8bit: \xff\r\n\r\n\0\xff", ["X-8bit: \udcff"], False),
        # The header that says what it is goes, and another one comes: last, or in its place.
        (FROM + EXE + b"Subject: hello\r\n\r\nMZ\r\n", [WARNING, "Subject: hello"], True),
        (
            FROM + EXE + b"content-type: text/html\r\nContent-Disposition: inline\r\n\r\nMZ\r\n",
            [WARNING],
            True,
        ),
    ],
)
def test_defang(
    mta: Mta, tmp_path: Path, message: bytes, headers: list[str], is_changed: bool
) -> None:
    with served("defang", mta, DEFANG_FOLDER=tmp_path):
        delivered = mta.delivered(mta.submit("unix", message))
    assert delivered.headers == [*LINES, *headers]
    assert delivered.body.startswith(b"This message appeared to contain a virus.") == is_changed
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [message] * is_changed


def test_defang_one_part(mta: Mta, tmp_path: Path) -> None:
    """The others stay, to the byte."""
    head = FROM + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    same = b"pre\xff\r\n--b\r\n\r\ntext \t\r\n..\r\n--b\r\n"
    end = b"--b--\r\n\r\nepilogue \r\n"
    with served("defang", mta, DEFANG_FOLDER=tmp_path):
        delivered = mta.delivered(
            mta.submit("unix", head + same + EXE + b"\r\n" + b"MZ" * 99_000 + b"\r\n" + end)
        )
    body = delivered.body.replace(b"\n", b"\r\n")
    assert body.startswith(same + WARNING.encode() + b"\r\n\r\nThis message appeared")
    assert body.endswith(b"\r\n" + end)
    assert b"MZ" not in body


@pytest.mark.parametrize(
    ("message", "headers", "body"),
    [
        (
            b"\r\nhi\r\n",
            [
                'Content-Type: text/plain; charset="utf-8"',
                "Content-Transfer-Encoding: quoted-printable",
                "MIME-Version: 1.0",
            ],
            b"hi\n\nf=C3=BCr uns\n",
        ),
        (
            b"MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n charset=us-ascii\r\n"
            b"Content-Transfer-Encoding: 7bit\r\nX-8bit: \xff\r\n\r\n.\r\n",
            [
                "MIME-Version: 1.0",
                'Content-Type: text/plain;| charset="utf-8"',
                "Content-Transfer-Encoding: quoted-printable",
                "X-8bit: \udcff",
            ],
            b"=2E\n\nf=C3=BCr uns\n",
        ),
        (
            b"Content-Type: text/html; charset=iso-8859-1\r\n\r\n<body>\r\nhi\r\n</body>\r\n",
            ["Content-Type: text/html; charset=iso-8859-1"],
            b"<body>\nhi\n<div>f&#252;r uns</div>\n</body>\n",
        ),
        (
            b"Content-Type: multipart/signed\r\n\r\nhi\r\n",
            ["Content-Type: multipart/signed"],
            b"hi\n",
        ),
    ],
)
def test_disclaimer(
    mta: Mta, tmp_path: Path, message: bytes, headers: list[str], body: bytes
) -> None:
    file = tmp_path / "disclaimer.txt"
    file.write_text("für uns\n", encoding="utf-8")
    with served("disclaimer", mta, DISCLAIMER=file):
        delivered = mta.delivered(mta.submit("unix", FROM + message))
    assert delivered.headers == [*LINES, *headers]
    assert delivered.body == body
