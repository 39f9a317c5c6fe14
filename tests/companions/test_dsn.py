"""Milter.dsn on mail servers of the tests' own, and beside the older package. Under Python 3 that
cannot look servers up, ask without a message, or tell of a refused recipient: so the expected
answers of `send_dsn` stand here. Three seconds."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter import dsn

from .oracle import agree
from .smtp_server import DRIP, HANG_UP, SILENT, Server, servers

TO = "joe@ex.com"
NOTICE = "Subject: x\n\nhello\n.dot\n"
NOBODY = (450, "No MX servers available")
ONE = "127.0.0.1"
TWO = "127.0.0.2"
#: No server to try another sender at, and one that does not ask for the message.
PASSED_OVER = {("MAIL", "421 bye"), ("DATA", "252 perhaps")}


class Session:
    """Answers without DNS."""

    def __init__(self, records: Iterable[tuple[int, str]] | None = ((20, TWO), (10, ONE))) -> None:
        self.records = None if records is None else list(records)
        self.asked: list[tuple[str, str]] = []

    def dns(self, name: str, qtype: str) -> Any:
        self.asked.append((name, qtype))
        return self.records


Send = Callable[..., Any]


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Send:
    """Sends to servers with these answers; returns the result and what each server got."""

    def to_servers(
        *args: Any,
        one: dict[str, str] | None = None,
        two: dict[str, str] | None = None,
        **kwds: Any,
    ) -> tuple[Any, list[str], list[str]]:
        with servers(one=one or {}, two=two or {}) as (port, made):
            monkeypatch.setattr(dsn, "PORT", port)
            kwds.setdefault("session", Session())
            result = dsn.send_dsn(*(args or (TO, "me.org")), **kwds)
        return result, made["one"].got, made["two"].got

    return to_servers


def test_a_notice(send: Send) -> None:
    session = Session()
    result, one, two = send(TO, "me.org", NOTICE, session=session)
    assert result is None
    assert session.asked == [("ex.com", "MX")]
    assert one == [
        "CONNECT", "EHLO me.org", "MAIL FROM:<>", f"RCPT TO:<{TO}>", "DATA",
        "|Subject: x", "|", "|hello", "|..dot", "QUIT",
    ]  # fmt: skip
    assert two == []


def test_only_asking(send: Send) -> None:
    for message in (None, ""):
        result, one, _ = send(f"<{TO}>", "me.org", message, ourfrom="me@me.org")
        assert result is None
        assert one[2:] == ["MAIL FROM:<me@me.org>", f"RCPT TO:<{TO}>", "QUIT"]


@pytest.mark.parametrize("message", [None, NOTICE])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "END"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("550 no", (550, "no")),
        ("450 later", (450, "later")),
        ("421 bye", (421, "bye")),
        ("550-5.1.1 no\n550 5.1.1 such", (550, "5.1.1 no\n5.1.1 such")),
        ("252 perhaps", None),
    ],
)
def test_a_refusal(
    send: Send, verb: str, answer: str, expected: tuple[int, str] | None, message: str | None
) -> None:
    """The first server that answers decides."""
    if message is None and verb in ("DATA", "END"):
        expected = None  # it does not come to that
    result, one, two = send(TO, "me.org", message, one={verb: answer})
    if message and (verb, answer) in PASSED_OVER:
        assert (result, two[0]) == (None, "CONNECT")
    else:
        assert (result, two) == (expected, [])
    assert one[0] == "CONNECT"


def test_a_server_that_takes_no_null_sender(send: Send) -> None:
    refused = {"MAIL FROM:<>": "550 who?", "MAIL": "250 fine"}
    result, one, _ = send(TO, "me.org", NOTICE, one=refused)
    assert result is None
    assert one[2:6] == ["MAIL FROM:<>", "RSET", "MAIL FROM:<postmaster@me.org>", f"RCPT TO:<{TO}>"]
    result, one, _ = send(TO, "me.org", one=refused)
    assert result == (550, "who?")
    assert one[2:] == ["MAIL FROM:<>", "QUIT"]
    refused["MAIL"] = "450 nor you"
    assert send(TO, "me.org", NOTICE, one=refused)[0] == (550, "who?")


@pytest.mark.parametrize(
    "answers",
    [
        {"CONNECT": "554 no mail here"},
        {"CONNECT": "421 later"},
        {"CONNECT": "garbage"},
        {"CONNECT": "354 odd"},
        {"CONNECT": HANG_UP},
        {"EHLO": "500 what?", "HELO": "550 no"},
        {"EHLO": HANG_UP},
        {"MAIL": "garbage"},
        {"MAIL": HANG_UP},
        {"RCPT": HANG_UP},
        {"DATA": HANG_UP},
        {"END": HANG_UP},
    ],
    ids=str,
)
def test_the_next_server(send: Send, answers: dict[str, str]) -> None:
    result, one, two = send(TO, "me.org", NOTICE, one=answers)
    assert (result, one[0], two[-2:]) == (None, "CONNECT", ["|..dot", "QUIT"])
    assert send(TO, "me.org", NOTICE, one=answers, two=answers)[0] == NOBODY


@pytest.mark.parametrize("answers", [{"CONNECT": SILENT}, {"CONNECT": DRIP}, {"END": SILENT}])
def test_time_is_limited(send: Send, answers: dict[str, str]) -> None:
    """A server that would take the message, but much later."""
    result, one, two = send(TO, "me.org", NOTICE, timeout=0.3, one=answers)
    assert (result, one[0], two) == (NOBODY, "CONNECT", [])


def test_after_success_nothing_counts(send: Send) -> None:
    for answer in ("500 what?", HANG_UP, SILENT):
        assert send(TO, "me.org", NOTICE, one={"QUIT": answer})[::2] == (None, [])


def test_the_order_of_servers(send: Send) -> None:
    dead = {"CONNECT": HANG_UP}
    for records, first in (([(5, TWO), (10, ONE)], "two"), ([(10, TWO), (9, ONE)], "one")):
        _, one, two = send(session=Session(records))
        assert [bool(one), bool(two)] == [first == "one", first == "two"]
    _, one, two = send(
        session=Session([(1, "no-such.invalid"), (1, ONE), (1, TWO)]), one=dead, two=dead
    )
    assert one == two == ["CONNECT"]


def test_servers_of_one_preference_are_taken_in_turn(send: Send) -> None:
    """Each order is as likely: 40 times the same one is not to be expected in this life."""
    same = Session([(10, ONE), (10, TWO)])
    assert any(send(session=same)[1] for _ in range(40))
    assert any(send(session=same)[2] for _ in range(40))


def test_a_domain_without_mx(send: Send) -> None:
    for nothing in (None, []):
        result, one, _ = send(f"joe@{ONE}", "me.org", session=Session(nothing))
        assert (result, one[-1]) == (None, "QUIT")
    assert send("joe@no-such.invalid", "me.org", session=Session([]))[0] == NOBODY
    assert send(f"joe@{'a' * 64}.org", "me.org", session=Session([]))[0] == NOBODY


def test_a_domain_that_has_no_mail(send: Send) -> None:
    for host in ("", "."):
        result, one, _ = send(session=Session([(0, host)]))
        assert (result, one) == ((556, "Domain does not accept mail"), [])


def test_the_usual_session(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Milter.dns", types.SimpleNamespace(Session=Session))
    assert send(session=None)[1][-1] == "QUIT"


def test_it_is_there_without_dnspython() -> None:
    run = "import sys; sys.modules['dns'] = None; from Milter import dsn; dsn.send_dsn('a@b', 'c')"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: Milter.dns needs dnspython")


def test_errors_of_the_session_are_the_callers() -> None:
    class Broken:
        def dns(self, name: str, qtype: str) -> Any:
            raise LookupError(name)

    with pytest.raises(LookupError, match=r"ex\.com"):
        dsn.send_dsn(TO, "me.org", session=Broken())


def test_texts_that_are_not_ascii(send: Send) -> None:
    message = "Subject: é\r\n\r\né\rx\udce9"
    _, one, _ = send(TO, "me.org", message)
    assert one[2] == "MAIL FROM:<> BODY=8BITMIME"
    assert one[5:-1] == ["|Subject: é", "|", "|é", "|x\udce9"]
    _, one, _ = send(
        TO, "me.org", message.encode("utf-8", "surrogateescape"), one={"EHLO": "500 x"}
    )
    assert one[2:4] == ["HELO me.org", "MAIL FROM:<>"]
    assert one[6:-1] == ["|Subject: é", "|", "|é", "|x\udce9"]
    result, one, _ = send("jöe@ex.com", "me.org")
    assert (result, one[2:4]) == (None, ["MAIL FROM:<> SMTPUTF8", "RCPT TO:<jöe@ex.com>"])
    result, one, _ = send("jöe@ex.com", "me.org", one={"EHLO": "250 x"})
    assert result == (553, "Server does not take international addresses")
    assert one[2:] == ["QUIT"]


@pytest.mark.parametrize(
    "address",
    [
        "", "<>", "joe", "joe@", "@ex.com", "a@b@c", "joe@ex.com\r\nRCPT TO:<x@y>", "jo e@ex.com",
        "joe@ex.com> SIZE=1", "joe@ex.com\n", '"a\nb"@ex.com', "j\0oe@ex.com", '"a@ex.com',
        "\ud800@b",
    ],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="not a mail address: "):
        dsn.send_dsn(address, "me.org", session=Session())
    if address not in ("", "<>"):
        with pytest.raises(ValueError, match="not a mail address: "):
            dsn.send_dsn(TO, "me.org", session=Session(), ourfrom=address)


def test_a_quoted_user(send: Send) -> None:
    assert 'RCPT TO:<"a> \\" b"@ex.com>' in send('"a> \\" b"@ex.com', "me.org")[1]


def test_a_receiver_that_is_no_host() -> None:
    for name in ("", "a b", "x\r\nMAIL FROM:<a@b>"):
        with pytest.raises(ValueError, match="not a host's name"):
            dsn.send_dsn(TO, name, session=Session())


def test_a_made_message_can_be_sent(send: Send) -> None:
    _, one, _ = send(TO, "me.org", made("Subject: é %(x)s\n\né", x="\udce9"))
    assert "|é" in one
    assert one[2] == "MAIL FROM:<> BODY=8BITMIME"


# ------------------------------------------------------------------------------------------------


class V:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update({"sender": TO, "receiver": "me.org", **values})


def made(template: str, rcpts: list[str] | None = None, **values: Any) -> email.message.Message:
    message = dsn.create_msg(V(**values), rcpts, None, template)
    assert message is not None
    return message


_V = (
    "type('V', (), {'__init__': lambda s, **k: s.__dict__.update(sender='j@x', receiver='r', **k)})"
)
_TRY = (
    "(lambda v, *a: (lambda m: (None if m is None else (sorted(x for x in m.items()"
    " if x[0] != 'X-Mailer'), m.get_payload()), sorted(vars(v).items())))(create_msg(v, *a)))"
)
_READ = "__import__('email').message_from_string"
ORIGINALS = ["Subject: s\nReceived-SPF: fail (x)\n y\nReceived-SPF: pass\n\n", "X: y\n\n"]
TEMPLATES = [
    "Subject: Problem %(subject)s\n\nTo %(sender)s via %(receiver)s, %(rcpt)s: %(spf_result)s\n",
    "From: me <x@y>\nTo: z@z\nAuto-Submitted: no\n\nb %(rcpt)s %(rcpt)s\n",
    "Subject:a\nX:  b\n\nx", "A: a\nA: b\n\nc", "A: b\n\n100%% %(sender)s\n\nc\n", "",
    "A: b\n\n%(n)d %(n)s",
]  # fmt: skip


def test_messages_as_the_oracle() -> None:
    asked = [
        f"{_TRY}({_V}(n=5), {rcpts!r}, {_READ}({original!r}), {text!r})"
        for rcpts in (["a@b", "c@d"], ["a@b"])
        for original in ORIGINALS
        for text in TEMPLATES
    ]
    missing = f"{_TRY}({_V}(), [], None, 'A: b\\n\\n%(rcpt)s')"
    agree("dsn", [*asked, missing], {})


def test_what_is_added_once() -> None:
    template = "x-mailer: a\nMime-Version: b\nContent-Type: text/html\n\n"
    message = made(template)
    names = [name.lower() for name in message]
    assert sorted(names) == sorted({*names})
    assert message["Content-Type"] == "text/html"
    assert made("\nx")["X-Mailer"].startswith("Milterkit-")


def test_an_original_that_is_not_ascii() -> None:
    original = email.message_from_bytes("Subject: é\n\n".encode())
    message = dsn.create_msg(V(), [], original, "Subject: %(subject)s\n\n%(subject)s")
    assert message is not None
    assert message["Subject"] == "=?utf-8?b?w6k=?="
    assert message.get_payload(decode=True) == "é".encode()


def test_headers_of_templates() -> None:
    message = made("Subject: a\n b %(x)s\n\nx\n", x="y")
    assert message["Subject"] == "a\n b y"
    assert made("Subject: a\r\n\r\nx\r\ny\r\n").get_payload() == "x\r\ny\r\n"
    assert made("Subject: a").get_payload() == ""
    assert made("A: %(kind)s\n\n", **{"kind": 5})["A"] == "5"
    V.kind = "of the class"  # type: ignore[attr-defined]
    assert made("A: %(kind)s\n\n")["A"] == "of the class"
    for template, error in (
        ("X: y\nSubject a\n\nb", "no header, and no empty line above it: 'Subject a'"),
        (" a\nX: y\n\nb", "no header, and no empty line above it: ' a"),
        ("A: 5% x\n\n", "template, A: .*write %% for a percent sign"),
        ("A: b\n\n100%", "template, its text: incomplete format.*write %%"),
        ("A: b\n\n%s %s", "template, its text"),
    ):
        with pytest.raises(ValueError, match=error):
            made(template)
    with pytest.raises(KeyError, match="nothing"):
        made("A: %(nothing)s\n\n")
    with pytest.raises(AttributeError, match="sender"):
        dsn.create_msg(dsn.Vars(), [], None, "A: b\n\nc")


@given(st.text(), st.text())
def test_no_value_makes_a_header(value: str, body: str) -> None:
    template = "Subject: %(x)s\nTo: <%(x)s>\n\n%(body)s"
    message = made(template, x=value, body=body, receiver=value)
    names = list(message)
    for whole in (message.as_bytes(), message.as_string().encode("utf-8", "surrogateescape")):
        read = email.message_from_bytes(whole)
        assert list(read) in (
            names,
            [name for name in names if "Transfer" not in name],
        )
        assert read.defects == []
        text = read.get_payload(decode=True)
        assert isinstance(text, bytes)
        assert re.sub("\r\n?", "\n", text.decode()) == re.sub("\r\n?", "\n", body)


def test_long_lines_of_headers() -> None:
    message = made("Subject: %(x)s\n\n%(x)s", x="a, " * 1000)
    assert message["Subject"] == ("a, " * 1000)[:998]
    assert message.get_payload() == "a, " * 1000


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x1c", "\x85", "\u2028", "\n\n"])
def test_line_ends_in_values(end: str) -> None:
    message = made("Subject: %(x)s\n\nx", x=f"a{end}Bcc: x@y{end} z")
    assert message["Subject"] == "a\n Bcc: x@y\n z"
    assert email.message_from_bytes(message.as_bytes())["Bcc"] is None


def test_the_server_ends() -> None:
    """What the tests rely on."""
    server = Server(ONE, 0, {})
    server.stop()
    assert server.got == []
