"""Whole programs in the ways that filters are written, behind a real Postfix."""

from contextlib import closing
from pathlib import Path

from postfix import Postfix, Reply, queue_id
from running import Filter
from test_postfix_actions import RECEIVED, body, headers

# All steps but the last without replies, no data, eoh and unknown; SKIP, RCPT_REJ, HDR_LEADSPC.
PROTOCOL = 0x18FFC0


def test_decorated(postfix: Postfix, folder: Path) -> None:
    """No-reply steps, macro lists, refused recipients, header values with their first space."""
    with (
        Filter("decorated.py", f"unix:{postfix.one}", folder),
        closing(postfix.client("unix")) as client,
    ):
        client.command("EHLO client.test")
        for number in (1, 2):
            replies = client.run(
                b"Subject: test %d\r\n\r\none\r\ntwo\r\n" % number,
                f"<sender{number}@example.test>",
                ["<one@local.test>", "<one@elsewhere.test>"],
            )
            assert replies["rcpt1"].text.endswith("Relay access denied")
            id_ = queue_id(replies["."])
            assert headers(postfix.delivered(id_, "one")) == [
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


def test_low_level(postfix: Postfix, folder: Path) -> None:
    """Functions in place of a class."""
    with Filter("lowlevel.py", f"unix:{postfix.one}", folder):
        replies = postfix.session(
            "unix",
            b"Subject: caf\xe9\r\n\r\nbody\r\n",
            sender="<sender@example.test> BODY=8BITMIME",
            rcpts=["<one@local.test>", "<refused@local.test>"],
        )
        assert replies["rcpt1"] == Reply(550, "5.1.1 not this one")
        delivered = postfix.delivered(queue_id(replies["."]), "one")
    assert body(delivered) == b"low level\n"
    assert headers(delivered)[2].split("|\t") == [
        "X-Session: connect [127.0.0.1] 2 127.0.0.1",
        "helo client.test",
        "envfrom (b'<sender@example.test>', b'BODY=8BITMIME')",
        "envrcpt (b'<one@local.test>',)",
        "envrcpt (b'<refused@local.test>',)",
        "header Subject b'caf\\xe9'",
        "eoh",
        "body b'body\\r\\n'",
    ]
