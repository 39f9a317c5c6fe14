"""Whole programs in the ways that filters are written, behind a real MTA."""

from contextlib import closing
from pathlib import Path

import differences
import pytest
from mta import ELSEWHERE, RECEIVED, Mta
from running import Filter

# All steps but the last without replies, no data, eoh and unknown; SKIP, RCPT_REJ, HDR_LEADSPC.
PROTOCOL = 0x18FFC0


def test_decorated(mta: Mta, folder: Path) -> None:
    """No-reply steps, macro lists, refused recipients, header values with their first space."""
    with (
        Filter("decorated.py", f"unix:{mta.one}", folder),
        closing(mta.client("unix")) as client,
    ):
        client.command("EHLO client.test")
        for number in (1, 2):
            replies = client.run(
                b"Subject: test %d\r\n\r\none\r\ntwo\r\n" % number,
                f"<sender{number}@example.test>",
                ["<one@local.test>", ELSEWHERE],
            )
            assert replies["rcpt1"].text.endswith(differences.of(mta, "elsewhere"))
            id_ = mta.queue_id(replies["."])
            assert mta.delivered(id_).headers == [
                RECEIVED,
                f"Subject: test {number}",
                "X-Connect: True",
                "X-Hello: client.test",
                f"X-Subject: b' test {number}'",
                "X-Rcpts: <one@local.test> taken, <one@elsewhere.test> refused",
                "X-Lines: 2",
                f"X-Macros: sender{number}@example.test {id_} 127.0.0.1",
                f"X-Protocol: {PROTOCOL:#x}",
            ]


def test_low_level(mta: Mta, folder: Path) -> None:
    """Functions in place of a class."""
    with Filter("lowlevel.py", f"unix:{mta.one}", folder):
        replies = mta.session(
            "unix",
            b"Subject: caf\xe9\r\n\r\nbody\r\n",
            sender="<sender@example.test> BODY=8BITMIME",
            rcpts=["<one@local.test>", "<refused@local.test>"],
        )
        assert str(replies["rcpt1"]).startswith("550 5.1.1 ")
        assert replies["rcpt1"].text.endswith("not this one")
        delivered = mta.delivered(mta.queue_id(replies["."]))
    assert delivered.body == b"low level\n"
    assert delivered.headers[2].split("|\t") == [
        f"X-Session: connect {differences.of(mta, 'client')} 2 127.0.0.1",
        "helo client.test",
        "envfrom (b'<sender@example.test>', b'BODY=8BITMIME')",
        "envrcpt (b'<one@local.test>',)",
        "envrcpt (b'<refused@local.test>',)",
        "header Subject b'caf\\xe9'",
        "eoh",
        "body b'body\\r\\n'",
    ]


@pytest.mark.parametrize(
    ("lists", "topic"),
    [
        (["EOM={client_port}"], "list for EOM alone"),
        (["EOM={client_port}", "EOH=i"], "list for EOM and EOH"),
        (["EOH={client_port}"], "list for EOH alone"),
        (["EOM={client_port}", "EOH="], "list for EOM and an empty one for EOH"),
        (["CONNECT={client_port}"], "list for connect"),
    ],
)
def test_symbol_lists(mta: Mta, folder: Path, lists: list[str], topic: str) -> None:
    """Which of the macros that were asked for are there at the end of the message."""
    with Filter("symlists.py", f"unix:{mta.one}", folder, *lists):
        headers = mta.delivered(mta.submit("unix")).headers
    assert headers[-1] == f"X-Macros: {differences.of(mta, topic)}"
