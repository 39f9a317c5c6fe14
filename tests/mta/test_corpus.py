"""Messages as bad as mail gets: with a filter that does nothing they arrive as they do without.

The messages are those of the `email` package's own tests, from the distribution's package of the
standard library's test suite or from the interpreter that runs this.
"""

import re
from contextlib import closing
from pathlib import Path

import pytest
from mta import Mta, Reply
from running import Filter
from shared.email_messages import email_messages


def as_sent(path: Path) -> bytes:
    """A message with the line ends of SMTP; CR that stand alone stay alone."""
    return re.sub(rb"\r?\n", b"\r\n", path.read_bytes())


def send(mta: Mta, service: str, paths: list[Path]) -> dict[str, Reply]:
    """Sends all on one connection. Returns the replies by the file's name."""
    replies = {}
    with closing(mta.client(service)) as client:
        client.command("EHLO client.test")
        for path in paths:
            replies[path.name] = client.run(as_sent(path))["."]
        client.command("QUIT")
    return replies


@pytest.mark.parametrize("how", [[], ["noreply"]], ids=["every step answered", "no replies"])
def test_corpus(mta: Mta, folder: Path, how: list[str]) -> None:
    paths = email_messages()
    if not paths:
        pytest.skip("no Python has the messages of email's tests")
    assert len(paths) > 40

    plain = send(mta, "plain", paths)
    with Filter("nothing.py", f"unix:{mta.one}", folder, *how):
        filtered = send(mta, "unix", paths)
    assert [reply.code for reply in plain.values()] == [250] * len(paths)
    for name, reply in filtered.items():
        expected = mta.delivered(mta.queue_id(plain[name]))
        actual = mta.delivered(mta.queue_id(reply))
        assert actual.raw == expected.raw, name
