"""examples/disclaimer.py. Behind a real Postfix: tests/mta/test_examples.py."""

import base64
import email
import email.message
import email.policy
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from Milter.testing import MTA, ChangeHeader, ReplaceBody

from .hostile import HOSTILE

TEXT = "Example Ltd <www.example.org> …\nnot for others"
HTML = "<div>Example Ltd &lt;www.example.org&gt; &#8230;<br>not for others</div>\n"
ASCII = "Example Ltd\n>not for others\nFrom here"
HEAD = "From: ann@example.org\nMIME-Version: 1.0\n"
PLAIN = HEAD + "Content-Type: text/plain; charset={}\nContent-Transfer-Encoding: {}\n\n"
OUTSIDE = "mail.example.net[192.0.2.7]"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    """The example, once for each disclaimer."""
    made = {}
    for text in (TEXT, ASCII):
        file = tmp_path_factory.mktemp("text") / "disclaimer.txt"
        file.write_text(text + "\n", encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISCLAIMER", str(file))
            patch.delitem(sys.modules, "disclaimer", raising=False)
            made[text] = importlib.import_module("disclaimer")
    return made


@pytest.fixture
def mta(examples: dict[str, ModuleType]) -> Iterator[MTA]:
    with MTA(examples[TEXT].Disclaimer) as mta:
        yield mta


@pytest.fixture
def ascii_mta(examples: dict[str, ModuleType]) -> Iterator[MTA]:
    """With a disclaimer that is ASCII."""
    with MTA(examples[ASCII].Disclaimer) as mta:
        yield mta


def read(content: bytes | None) -> email.message.EmailMessage:
    assert content is not None
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message


@pytest.mark.parametrize(
    ("charset", "encoding", "text", "becomes"),
    [
        ("us-ascii", "7bit", "hi there \n", ("utf-8", "quoted-printable")),
        ("utf-8", "8bit", "Grüße\n", ("utf-8", "8bit")),
        ("utf-8", "quoted-printable", "Gr=C3=BC=C3=9Fe=20\n", ("utf-8", "quoted-printable")),
        ("utf-8", "base64", base64.encodebytes(b"x" * 100).decode(), ("utf-8", "base64")),
        ("UTF-8", "7bit", "hi\n", ("utf-8", "quoted-printable")),
        ("windows-1252", "quoted-printable", "=80\n", ("windows-1252", "quoted-printable")),
        ("iso-8859-1", "quoted-printable", "Gr=FC=DFe\n", ("utf-8", "quoted-printable")),
        ("iso-2022-jp", "7bit", '\x1b$B$"\x1b(B\n', ("iso-2022-jp", "7bit")),
        ("gb18030", "base64", "ztK6ww==\n", ("gb18030", "base64")),
        ("utf-8", "quoted-printable (a comment)", "hi\n", None),
        ("utf-8", "x-uuencode", "hi\n", None),
        ("x-unknown", "8bit", "hi\n", None),
        ("utf-16", "base64", "/v8AaABp\n", None),
        ("iso-8859-99", "8bit", "hi\n", None),
    ],
)
def test_text(mta: MTA, charset: str, encoding: str, text: str, becomes: tuple[str, str]) -> None:
    message = (PLAIN.format(charset, encoding) + text).encode()
    result = mta.send(message)
    if becomes is None:
        assert result.changes == ()
        return
    before, after = read(message), read(result.message)
    own, text = (each.get_content().replace("\r\n", "\n") for each in (before, after))
    end = "\n" if own.endswith("\n") else ""
    assert text == own.removesuffix("\n") + f"\n\n{TEXT}{end}"
    assert (after.get_content_charset(), after["Content-Transfer-Encoding"]) == becomes
    assert "base64" in becomes or len(max(result.message.split(b"\n"), key=len)) < 79


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_a_message_without_mime(examples: dict[str, ModuleType], profile: str) -> None:
    with MTA(examples[TEXT].Disclaimer, profile=profile) as mta:
        result = mta.send("From: ann@example.org\nSubject: é\n\nGrüße\n".encode())
    message = read(result.message)
    assert message.get_content() == f"Grüße\n\n{TEXT}\n"
    assert message["MIME-Version"] == "1.0"
    assert message["Content-Type"] == 'text/plain; charset="utf-8"'
    assert b"\nSubject: \xc3\xa9\n" in result.message


def test_ascii_stays_ascii(ascii_mta: MTA) -> None:
    """Nothing but the body changes."""
    result = ascii_mta.send(b"From: ann@example.org\n\nhi\n")
    [change] = result.changes
    assert change == ReplaceBody(b"hi\r\n\r\n" + ASCII.replace("\n", "\r\n").encode() + b"\r\n")


def test_flowed(ascii_mta: MTA) -> None:
    content = "text/plain; charset=us-ascii; Format=Flowed"
    message = f"{HEAD}Content-Type: {content}\n\nit flows \non \n"
    result = ascii_mta.send(message.encode())
    added = "\nExample Ltd\n >not for others\n From here\n"
    assert result.message == (message + added).encode()


@pytest.mark.parametrize(
    ("page", "becomes"),
    [
        ("<p>hi</p>\n", "<p>hi</p>\n{}"),
        ("<body>hi</BODY >\n</html>\n", "<body>hi{}</BODY >\n</html>\n"),
        ("<body></body><!-- </body> -->\n", "<body>{}</body><!-- </body> -->\n"),
        ("<script>'</body>'</script>hi\n", "<script>'</body>'</script>hi\n{}"),
        ("<p title='</body>'>hi</p></body>\n", "<p title='</body>'>hi</p>{}</body>\n"),
        ("<!-- for ever </body>\n", "<!-- for ever </body>\n{}"),
    ],
)
@pytest.mark.parametrize("charset", ["us-ascii", "utf-8", "iso-8859-1"])
def test_html(mta: MTA, page: str, becomes: str, charset: str) -> None:
    head = f"{HEAD}Content-Type: text/html; charset={charset}\n\n"
    result = mta.send((head + page).encode())
    assert result.message == (head + becomes.format(HTML)).encode()


#: A message, in pieces: those that change, with what they become, and those that stay.
HEADER = b"From: ann@example.org\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n"
PIECES = [
    (b"pre\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n", None),
    (
        b"\r\nhi=20",
        b'Content-Type: text/plain; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"hi=3D20\r\n\r\nExample Ltd <www.example.org> =E2=80=A6\r\nnot for others",
    ),
    (b"\r\n--a\r\nContent-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\n", None),
    (b"--a\r\nContent-Type: multipart/related; boundary=r\r\n\r\n", None),
    (b"--r\r\nContent-type : text/html\r\n\r\n", None),
    (b"<p>\xff</p>", b"<p>\xff</p>"),  # not in its charset
    (b"\r\n--r\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--r--\r\n", None),
    (b"--a\r\nContent-type:text/html;charset=iso-8859-1\r\n", None),
    (b"content-transfer-encoding:8BIT\r\n\r\n", None),
    (b"<p>\xff</p>", b"<p>\xff</p>" + HTML.replace("\n", "\r\n").encode()),
    (b"\r\n--a--\r\n", None),
    (b"--m\r\nContent-Disposition: attachment\r\n\r\nattached \r\n", None),
    (b"--m\r\nContent-Type: text/plain; name=a.txt\r\n\r\nnamed\r\n", None),
    (b"--m\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/signed\r\n", None),
    (b"\r\n--x\r\n\r\nsigned\r\n--m--\r\nepilogue\r\n", None),
]


def test_every_other_part_stays(mta: MTA) -> None:
    result = mta.send(HEADER + b"".join(piece for piece, _ in PIECES))
    body = b"".join(new or piece for piece, new in PIECES)
    assert result.changes == (ReplaceBody(body),)


ANSWERS = [
    f"hi\n\n> {TEXT}\n",
    "hi\n\n>> Example Ltd <www.example.org>\n>> … not for\n>>others\n",
]


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_has_it_already(mta: MTA, text: str) -> None:
    assert mta.send((PLAIN.format("utf-8", "8bit") + text).encode()).changes == ()
    page = f"<body><blockquote>{HTML}</blockquote></body>\n"
    head = f"{HEAD}Content-Type: text/html; charset=utf-8\n\n"
    assert mta.send((head + page).encode()).changes == ()


def test_once_is_enough(mta: MTA) -> None:
    first = mta.send((PLAIN.format("us-ascii", "7bit") + "hi\n").encode())
    assert first.changes
    assert first.message is not None
    assert mta.send(first.message).changes == ()


@pytest.mark.parametrize(
    "sealed",
    [
        'Content-Type: multipart/signed; boundary="b"\n\n--b\n\nhi\n--b--\n',
        'Content-Type: multipart/mixed; boundary="b"\n\n--b\n\nhi\n--b\n'
        "Content-Type: Multipart/Encrypted\n\n--b--\n",
        "DKIM-Signature: v=1; d=example.org; bh=x; b=y\n\nhi\n",
        "dkim-signature:v=1\nContent-Type: text/html\n\n<p>hi</p>\n",
        "ARC-Message-Signature: i=1; bh=x; b=y\n\nhi\n",
        "Content-Type: application/pkcs7-mime; smime-type=signed-data\n\nAAAA\n",
        'Content-Type: multipart/mixed; boundary="b"\n\n--b\n\nhi\n--b\n'
        "Content-Type: application/octet-stream; name=smime.P7M\n\nAAAA\n--b--\n",
        "Content-Type: text/plain\n\n-----BEGIN PGP SIGNED MESSAGE-----\n\nhi\n",
        "Content-Type: text/html\n\n<pre>-----BEGIN PGP MESSAGE-----\n\nhi\n",
        "Content-Type: multipart/report; boundary=b\n\n--b\n\nNot delivered\n--b--\n",
        "Content-Type: application/pdf\n\n%PDF\n",
        "Content-Disposition: attachment\n\nhi\n",
    ],
)
def test_what_is_left_alone(mta: MTA, sealed: str) -> None:
    assert mta.send((HEAD + sealed).encode()).changes == ()


@pytest.mark.parametrize(
    ("client", "auth", "gets_it"),
    [("127.0.0.1", None, True), (OUTSIDE, "ann", True), (OUTSIDE, None, False)],
)
def test_whose_mail(ascii_mta: MTA, client: str, auth: str | None, gets_it: bool) -> None:
    assert bool(ascii_mta.send(b"\nhi\n", client=client, auth=auth).changes) == gets_it


def test_large_messages_pass(
    mta: MTA, examples: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples[TEXT], "LIMIT", 100_000)
    result = mta.send(b"From: ann@example.org\n\n" + b"x" * 70 * 2000)
    assert (result.verdict, result.changes) == ("accepted", ())


def test_nothing_stays_for_the_next_message(mta: MTA) -> None:
    message = (PLAIN.format("us-ascii", "7bit") + "hi\n").encode()
    with mta.session() as session:
        first, second = (session.send(message).changes for _ in range(2))
    assert first == second
    assert {type(change) for change in first} == {ChangeHeader, ReplaceBody}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(mta: MTA, ascii_mta: MTA, name: str) -> None:
    """It passes, and it is not added to again."""
    for one in (mta, ascii_mta):
        result = one.send(HOSTILE[name])
        assert result.verdict == "accepted"
        if result.changes:
            assert result.message is not None
            assert one.send(result.message).changes == ()


@pytest.mark.parametrize(
    ("encoding", "body"), [("quoted-printable", b"a=0Db=0Ac\n"), ("base64", b"YQ1iCmMK\n")]
)
def test_what_is_no_line_end_stays(mta: MTA, encoding: str, body: bytes) -> None:
    message = read(mta.send(PLAIN.format("utf-8", encoding).encode() + body).message)
    content = message.get_payload(decode=True)
    assert isinstance(content, bytes)
    assert content.startswith(b"a\rb\nc")
    assert "not for others" in content.decode()
