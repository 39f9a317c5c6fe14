"""What a filter sees behind a real MTA: every step, its arguments and its macros."""

from contextlib import closing
from pathlib import Path

import differences
import pytest
from mta import HOSTNAME, MESSAGE, Mta, Reply
from running import Filter

WHOLE = ["connect", "hello", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "close"]


def args(scripted: Filter, step: str) -> list[list[object]]:
    """The arguments of each call of a step."""
    return [event["args"] for event in scripted.steps(step)]


def test_connect(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    with closing(mta.client("unix")) as client:
        [event] = scripted.wait("connect")
        port = client.sock.getsockname()[1]
    assert event["args"] == [differences.of(mta, "client"), 2, ["127.0.0.1", port]]
    expected = {"j": HOSTNAME, "{j}": HOSTNAME, **differences.of(mta, "connect macros")}
    event["macros"].pop("v", None)  # Postfix's version
    assert event["macros"] == expected


@pytest.mark.parametrize("command", ["HELO", "EHLO"])
def test_hello(mta: Mta, scripted: Filter, command: str) -> None:
    scripted.plan({})
    with closing(mta.client("unix")) as client:
        assert client.command(f"{command} some.client.test").code == 250
    assert args(scripted, "hello") == [["some.client.test"]]


def test_mail_without_hello(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    with closing(mta.client("unix")) as client:
        replies = client.run()
    mta.queue_id(replies["."])
    scripted.wait("close")
    steps = [event["step"] for event in scripted.events()]
    assert steps == ["connect", "envfrom", "envrcpt", "data", *["header"] * 3, *WHOLE[6:]]


def test_envelope(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    sender = "<sender@example.test> SIZE=123 BODY=8BITMIME RET=HDRS ENVID=abc+2Bd"
    rcpts = ["<one@local.test> NOTIFY=NEVER ORCPT=rfc822;other@local.test", '"a b"@local.test']
    id_ = mta.submit("unix", sender=sender, rcpts=rcpts)

    [mail] = scripted.steps("envfrom")
    assert mail["args"] == sender.split()
    expected = differences.of(mta, "mail macros")
    assert {name: mail["macros"].get(name) for name in expected} == expected

    first, second = scripted.steps("envrcpt")
    assert first["args"] == rcpts[0].split()
    expected = {**expected, **differences.of(mta, "rcpt macros")}
    assert {name: first["macros"].get(name) for name in expected} == expected
    assert second["args"] == [rcpts[1]]
    assert second["macros"]["{rcpt_addr}"] == '"a b"@local.test'

    with_id = [event for event in (mail, first, second) if "i" in event["macros"]]
    assert with_id[0] == {"envfrom": mail, "envrcpt 2": second}[differences.of(mta, "id at")]
    assert {event["macros"]["i"] for event in with_id} == {id_}
    assert {event["macros"]["{i}"] for event in with_id} == {id_}


def test_empty_sender(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    mta.submit("unix", sender="<>")
    [mail] = scripted.steps("envfrom")
    assert mail["args"] == ["<>"]
    assert mail["macros"]["{mail_addr}"] == ""


def test_steps_and_macros_of_a_message(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    id_ = mta.submit("unix", b"Subject: test\r\n\r\nThe body.\r\n")
    scripted.wait("close")
    events = scripted.events()
    assert [event["step"] for event in events] == WHOLE
    for event in events[WHOLE.index("data") :]:
        assert event["macros"]["i"] == id_
        assert event["macros"]["{mail_addr}"] == "sender@example.test"
        assert event["macros"]["{rcpt_addr}"] == "one@local.test"
        assert event["macros"]["j"] == HOSTNAME
        assert "{nothing}" not in event["macros"]


def test_headers(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    headers = (
        b"Subject: plain\r\n"
        b"X-Fold: first\r\n  second\r\n\tthird\r\n"
        b"X-Spaces:  two \r\n"
        b"X-Tab:\ttab\r\n"
        b"X-None:none\r\n"
        b"X-Empty:\r\n"
        b"x-two: 1\r\n"
        b"X-Two: 2\r\n"
        b"X-Eight: caf\xc3\xa9 caf\xe9\r\n"
    )
    mta.submit("unix", headers + b"\r\nbody\r\n")
    assert args(scripted, "header") == [
        ["Subject", "plain"],
        ["X-Fold", "first\n  second\n\tthird"],
        ["X-Spaces", " two "],
        ["X-Tab", "\ttab"],
        ["X-None", "none"],
        ["X-Empty", ""],
        ["x-two", "1"],
        ["X-Two", "2"],
        ["X-Eight", "café caf\udce9"],
    ]


def test_body(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    body = b"first\r\n\r\n.dot\r\n..two dots\r\n" + bytes(range(128, 256)) + b"\r\nlast\r\n"
    mta.submit("unix", b"Subject: test\r\n\r\n" + body)
    assert b"".join(chunk for [chunk] in args(scripted, "body")) == body


def test_no_body(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    mta.submit("unix", b"Subject: test\r\n")
    assert args(scripted, "header") == [["Subject", "test"]]
    assert len(scripted.steps("eoh")) == 1
    assert args(scripted, "body") == []
    assert len(scripted.steps("eom")) == 1


def test_body_of_10_megabytes(mta: Mta, scripted: Filter) -> None:
    scripted.plan({"eom": [["addheader", "X-Seen", "yes"]]})
    line = b"".join(b"%08d " % number for number in range(10)) + b"\r\n"
    body = line * (10_000_000 // len(line) + 1)
    id_ = mta.submit("unix", b"Subject: test\r\n\r\n" + body)
    chunks = [chunk for [chunk] in args(scripted, "body")]
    assert b"".join(chunks) == body
    assert {len(chunk) for chunk in chunks[:-1]} == {65535}
    delivered = mta.delivered(id_)
    assert delivered.headers[-1] == "X-Seen: yes"
    assert delivered.body == body.replace(b"\r\n", b"\n")


def test_unknown_command(mta: Mta, scripted: Filter) -> None:
    scripted.plan({"unknown 1": [["setreply", "550", "5.5.9", "not here"], ["return", "REJECT"]]})
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        assert client.command("FOO bar").code == 500
        assert client.command("MAIL FROM:<sender@example.test>").code == 250
        assert client.command("FOO bar") == Reply(550, "5.5.9 not here")
    assert args(scripted, "unknown") == [differences.of(mta, "unknown")] * 2


def test_abort_and_next_message(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<first@example.test>")
        client.command("RCPT TO:<one@local.test>")
        client.command("RSET")
        id_ = mta.queue_id(client.run(MESSAGE, "<second@example.test>", ["<two@local.test>"])["."])
    scripted.wait("close")
    aborted = ["connect", "hello", "envfrom", "envrcpt", "abort"]
    headers = ["header"] * 3
    assert [event["step"] for event in scripted.events()] == [
        *aborted,
        *["envfrom", "envrcpt", "data", *headers, "eoh", "body", "eom", "close"],
    ]
    [eom] = scripted.steps("eom")
    assert eom["macros"]["i"] == id_
    assert eom["macros"]["{mail_addr}"] == "second@example.test"
    assert eom["macros"]["{rcpt_addr}"] == "two@local.test"


def test_client_vanishes_in_a_message(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    with closing(mta.client("unix")) as client:
        client.run(b"", "<sender@example.test>", [])
        client.command("RCPT TO:<one@local.test>")
        client.command("DATA")
        client.send(b"Subject: half a mess")
    scripted.wait("close")
    assert scripted.events()[-2]["step"] == "abort"


def test_tcp(mta: Mta, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The filter on a TCP socket."""
    where = f"inet:{mta.inet}@127.0.0.1"
    with Filter("scripted.py", where, tmp_path_factory.mktemp("inet")) as filter_:
        filter_.plan({"eom": [["addheader", "X-Seen", "yes"]]})
        id_ = mta.submit("inet")
        assert "X-Seen: yes" in mta.delivered(id_).headers


def test_two_filters(mta: Mta, scripted: Filter, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The second sees what the first did to headers and body."""
    scripted.plan({"eom": [["addheader", "X-First", "1"], ["replacebody", "New.\r\n"]]})
    with Filter("scripted.py", f"unix:{mta.two}", tmp_path_factory.mktemp("two")) as second:
        second.plan({"eom": [["chgheader", "X-First", 1, "2"]]})
        id_ = mta.submit("both")
        assert args(second, "header")[-1] == ["X-First", "1"]
        assert args(second, "body") == [[b"New.\r\n"]]
    delivered = mta.delivered(id_)
    assert delivered.headers[-1] == "X-First: 2"
    assert delivered.body == b"New.\n"


@pytest.mark.parametrize(
    "then",
    [
        [("DATA", 451, "data")],
        [("RCPT TO:<two@local.test>", 250, "envrcpt"), ("DATA", 451, "data")],
        [("FOO", 500, "unknown"), ("DATA", 451, "data")],
    ],
    ids=["DATA", "RCPT", "FOO"],
)
def test_data_refused(
    mta: Mta, scripted: Filter, folder: Path, then: list[tuple[str, int, str]]
) -> None:
    """MTAs keep the transaction after the second filter has refused DATA: what the client may say
    next is a command of the same message for both, and so is the DATA after it."""
    scripted.plan({})
    with Filter("scripted.py", f"unix:{mta.two}", folder) as second:
        second.plan({"data": [["setreply", "451", "4.7.1", "not now"], ["return", "TEMPFAIL"]]})
        with closing(mta.client("both")) as client:
            client.command("EHLO client.test")
            assert client.run()["data"] == (451, "4.7.1 not now")
            for line, code, _ in then:
                assert client.command(line).code == code
        steps = ["connect", "hello", "envfrom", "envrcpt", "data", *(step for *_, step in then)]
        for each, ends in ((scripted, ["abort", "close"]), (second, ["close"])):
            each.wait("close")
            assert [event["step"] for event in each.events()] == [*steps, *ends]


def test_a_message_after_data_was_refused(mta: Mta, scripted: Filter, folder: Path) -> None:
    """The second filter refuses DATA at first; the client says it again, and sends its message."""
    scripted.plan({"eom": [["addheader", "X-Seen", "yes"]]})
    with Filter("scripted.py", f"unix:{mta.two}", folder) as second:
        second.plan({"data": [["until", "ready", "TEMPFAIL"]]})
        with closing(mta.client("both")) as client:
            client.command("EHLO client.test")
            assert client.run()["data"].code == 451
            (folder / "ready").touch()
            assert client.command("DATA").code == 354
            id_ = mta.queue_id(client.content(MESSAGE))
    assert "X-Seen: yes" in mta.delivered(id_).headers
    for each in (scripted, second):
        assert [event["step"] for event in each.events()].count("envfrom") == 1
        assert not each.steps("abort")
