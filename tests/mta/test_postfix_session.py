"""What a filter sees behind a real Postfix: every step, its arguments and its macros."""

from contextlib import closing

import pytest
from postfix import HOSTNAME, MESSAGE, Postfix, Reply, queue_id
from running import Filter

WHOLE = ["connect", "hello", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "close"]


def args(scripted: Filter, step: str) -> list[list[object]]:
    """The arguments of each call of a step."""
    return [event["args"] for event in scripted.steps(step)]


def test_connect(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    with closing(postfix.client("unix")) as client:
        [event] = scripted.wait("connect")
        port = client.sock.getsockname()[1]
    assert event["args"] == ["[127.0.0.1]", 2, ["127.0.0.1", port]]
    version = event["macros"].pop("v")
    assert version.startswith("Postfix ")
    assert event["macros"] == {
        "j": HOSTNAME,
        "{j}": HOSTNAME,
        "_": "unknown [127.0.0.1]",
        "{daemon_name}": HOSTNAME,
        "{daemon_addr}": "127.0.0.1",
        "{client_addr}": "127.0.0.1",
        "{client_name}": "unknown",
    }


def test_client_behind_a_proxy(postfix: Postfix, scripted: Filter) -> None:
    """XCLIENT gives Postfix another client's name and address: a new filter session."""
    scripted.plan({})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO proxy.test")
        client.command("XCLIENT NAME=client.example.test ADDR=192.0.2.9 PORT=4711")
        connects = scripted.wait("connect", 2)
    assert connects[1]["args"] == ["client.example.test", 2, ["192.0.2.9", 4711]]
    assert connects[1]["macros"]["{client_addr}"] == "192.0.2.9"


@pytest.mark.parametrize("command", ["HELO", "EHLO"])
def test_hello(postfix: Postfix, scripted: Filter, command: str) -> None:
    scripted.plan({})
    with closing(postfix.client("unix")) as client:
        assert client.command(f"{command} some.client.test").code == 250
    assert args(scripted, "hello") == [["some.client.test"]]


def test_mail_without_hello(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    with closing(postfix.client("unix")) as client:
        replies = client.run(MESSAGE, "<sender@example.test>", ["<one@local.test>"])
    queue_id(replies["."])
    scripted.wait("close")
    steps = [event["step"] for event in scripted.events()]
    assert steps == ["connect", "envfrom", "envrcpt", "data", *["header"] * 3, *WHOLE[6:]]


def test_envelope(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    sender = "<sender@example.test> SIZE=123 BODY=8BITMIME RET=HDRS ENVID=abc+2Bd"
    rcpts = ["<one@local.test> NOTIFY=NEVER ORCPT=rfc822;other@local.test", '"a b"@local.test']
    id_ = postfix.submit("unix", sender=sender, rcpts=rcpts)

    [mail] = scripted.steps("envfrom")
    assert mail["args"] == sender.split()
    assert mail["macros"]["{mail_addr}"] == "sender@example.test"
    assert mail["macros"]["{mail_mailer}"] == "error"
    assert "i" not in mail["macros"]

    first, second = scripted.steps("envrcpt")
    assert first["args"] == rcpts[0].split()
    assert first["macros"]["{rcpt_addr}"] == "one@local.test"
    assert first["macros"]["{rcpt_mailer}"] == "virtual"
    assert first["macros"]["{rcpt_host}"] == "local.test"
    assert first["macros"]["{mail_addr}"] == "sender@example.test"
    # Postfix has a queue id only after the first recipient.
    assert "i" not in first["macros"]
    assert second["args"] == [rcpts[1]]
    assert second["macros"]["{rcpt_addr}"] == '"a b"@local.test'
    assert (second["macros"]["i"], second["macros"]["{i}"]) == (id_, id_)


def test_empty_sender(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    postfix.submit("unix", sender="<>")
    [mail] = scripted.steps("envfrom")
    assert mail["args"] == ["<>"]
    assert mail["macros"]["{mail_addr}"] == ""


def test_addresses_beyond_ascii(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        assert client.command("MAIL FROM:<böse@exämple.test> SMTPUTF8").code == 250
        assert client.command("RCPT TO:<größe@local.test>").code == 250
    assert args(scripted, "envfrom") == [["<böse@exämple.test>", "SMTPUTF8"]]
    assert args(scripted, "envrcpt") == [["<größe@local.test>"]]


def test_steps_and_macros_of_a_message(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    id_ = postfix.submit("unix", b"Subject: test\r\n\r\nThe body.\r\n")
    scripted.wait("close")
    events = scripted.events()
    assert [event["step"] for event in events] == WHOLE
    for event in events[WHOLE.index("data") :]:
        assert event["macros"]["i"] == id_
        assert event["macros"]["{mail_addr}"] == "sender@example.test"
        assert event["macros"]["{rcpt_addr}"] == "one@local.test"
        assert event["macros"]["j"] == HOSTNAME
        assert "{nothing}" not in event["macros"]


def test_headers(postfix: Postfix, scripted: Filter) -> None:
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
    postfix.submit("unix", headers + b"\r\nbody\r\n")
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


def test_body(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    body = b"first\r\n\r\n.dot\r\n..two dots\r\n" + bytes(range(128, 256)) + b"\r\nlast\r\n"
    postfix.submit("unix", b"Subject: test\r\n\r\n" + body)
    assert b"".join(chunk for [chunk] in args(scripted, "body")) == body


def test_no_body(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    postfix.submit("unix", b"Subject: test\r\n")
    assert args(scripted, "header") == [["Subject", "test"]]
    assert len(scripted.steps("eoh")) == 1
    assert args(scripted, "body") == []
    assert len(scripted.steps("eom")) == 1


def test_body_of_10_megabytes(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({"eom": [["addheader", "X-Seen", "yes"]]})
    line = b"".join(b"%08d " % number for number in range(10)) + b"\r\n"
    body = line * (10_000_000 // len(line) + 1)
    id_ = postfix.submit("unix", b"Subject: test\r\n\r\n" + body)
    chunks = [chunk for [chunk] in args(scripted, "body")]
    assert b"".join(chunks) == body
    assert {len(chunk) for chunk in chunks[:-1]} == {65535}
    delivered = postfix.delivered(id_, "one")
    assert delivered.endswith(b"\nX-Seen: yes\n\n" + body.replace(b"\r\n", b"\n"))


def test_unknown_command(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({"unknown 1": [["setreply", "550", "5.5.9", "not here"], ["return", "REJECT"]]})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        assert client.command("FOO bar").code == 500
        assert client.command("MAIL FROM:<sender@example.test>").code == 250
        assert client.command("FOO bar") == Reply(550, "5.5.9 not here")
    # Postfix sends the first word.
    assert args(scripted, "unknown") == [["FOO"], ["FOO"]]


def test_abort_and_next_message(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<first@example.test>")
        client.command("RCPT TO:<one@local.test>")
        client.command("RSET")
        id_ = queue_id(client.run(MESSAGE, "<second@example.test>", ["<two@local.test>"])["."])
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


def test_client_vanishes_in_a_message(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({})
    with closing(postfix.client("unix")) as client:
        client.run(b"", "<sender@example.test>", [])
        client.command("RCPT TO:<one@local.test>")
        client.command("DATA")
        client.send(b"Subject: half a mess")
    scripted.wait("close")
    assert scripted.events()[-2]["step"] == "abort"


@pytest.mark.parametrize(
    ("service", "unseen"),
    [
        ("version2", {"data", "unknown"}),
        ("version3", {"data"}),
        ("version4", set()),
        ("unix", set()),
    ],
)
def test_versions_of_the_protocol(
    postfix: Postfix, scripted: Filter, service: str, unseen: set[str]
) -> None:
    scripted.plan({"eom": [["addheader", "X-Seen", "yes"]]})
    with closing(postfix.client(service)) as client:
        client.command("EHLO client.test")
        client.command("FOO bar")
        id_ = queue_id(client.run(MESSAGE, "<sender@example.test>", ["<one@local.test>"])["."])
    scripted.wait("close")
    seen = {event["step"] for event in scripted.events()}
    assert seen == {*WHOLE, "unknown"} - unseen
    assert b"\nX-Seen: yes\n" in postfix.delivered(id_, "one")


def test_tcp(postfix: Postfix, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The filter on a TCP socket."""
    where = f"inet:{postfix.inet}@127.0.0.1"
    with Filter("scripted.py", where, tmp_path_factory.mktemp("inet")) as filter_:
        filter_.plan({"eom": [["addheader", "X-Seen", "yes"]]})
        id_ = postfix.submit("inet")
        assert b"\nX-Seen: yes\n" in postfix.delivered(id_, "one")


def test_two_filters(
    postfix: Postfix, scripted: Filter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The second sees what the first did to headers and body."""
    scripted.plan({"eom": [["addheader", "X-First", "1"], ["replacebody", "New.\r\n"]]})
    with Filter("scripted.py", f"unix:{postfix.two}", tmp_path_factory.mktemp("two")) as second:
        second.plan({"eom": [["chgheader", "X-First", 1, "2"]]})
        id_ = postfix.submit("both")
        assert args(second, "header")[-1] == ["X-First", "1"]
        assert args(second, "body") == [[b"New.\r\n"]]
    delivered = postfix.delivered(id_, "one")
    assert delivered.endswith(b"\nX-First: 2\n\nNew.\n")
