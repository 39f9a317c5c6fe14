"""Messages as bad as mail gets: with a filter that does nothing they arrive as they do without.

The messages are those of the `email` package's own tests, from the distribution's package of the
standard library's test suite or from the interpreter that runs this.
"""

import re
import subprocess
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest
from postfix import Postfix, Reply, queue_id
from running import Filter

OWN_RECEIVED = re.compile(
    rb"(\tby mx\.local\.test \(Postfix\) with ESMTP id )\w+"
    rb"(\n\tfor <one@local\.test>; )\w{3}, [ \d]\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"
)


def messages() -> list[Path]:
    """The files with the messages."""
    installed = subprocess.run(
        ["sh", "-c", "dpkg-query -L 'libpython3*-testsuite' 2>/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    own = Path(sysconfig.get_path("stdlib")).glob("test/test_email/data/*")
    wanted = re.compile(r"/test_email/data/msg_\w+\.txt$")
    found = [Path(name) for name in installed if wanted.search(name)]
    return sorted(found or [path for path in own if wanted.search(str(path))])


def as_sent(path: Path) -> bytes:
    """A message with the line ends of SMTP; CR that stand alone stay alone."""
    return re.sub(rb"\r?\n", b"\r\n", path.read_bytes())


def send(postfix: Postfix, service: str, paths: list[Path]) -> dict[str, Reply]:
    """Sends all on one connection. Returns the replies by the file's name."""
    replies = {}
    with closing(postfix.client(service)) as client:
        client.command("EHLO client.test")
        for path in paths:
            sent = client.run(as_sent(path), "<sender@example.test>", ["<one@local.test>"])
            replies[path.name] = sent["."]
        client.command("QUIT")
    return replies


@pytest.mark.parametrize("how", [[], ["noreply"]], ids=["every step answered", "no replies"])
def test_corpus(postfix: Postfix, folder: Path, how: list[str]) -> None:
    paths = messages()
    if not paths:
        pytest.skip("the package libpython3.*-testsuite is not installed")
    assert len(paths) > 40

    plain = send(postfix, "plain", paths)
    with Filter("nothing.py", f"unix:{postfix.one}", folder, *how):
        filtered = send(postfix, "unix", paths)
    assert [reply.code for reply in plain.values()] == [250] * len(paths)
    postfix.settled()
    for name, reply in filtered.items():
        expected = postfix.delivered(queue_id(plain[name]), "one")
        actual = postfix.delivered(queue_id(reply), "one")
        # Postfix's own Received is there once in both; apart from its id and date they are equal.
        alike, count = OWN_RECEIVED.subn(rb"\1\2", actual)
        assert count == 1, actual
        assert alike == OWN_RECEIVED.sub(rb"\1\2", expected), name
