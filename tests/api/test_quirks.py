"""Programs in the style of those that exist, each with the habits of some of them: the folder
`quirks` holds them. Each is run on the older package and on ours, gets the same mail, and must do
the same: every byte that the MTA saw, every line that was printed, the exit status."""

from __future__ import annotations

import difflib
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import milter
import pytest
from Milter import _wire
from Milter.testing import MTA, Auth, Client, Session

from .conftest import need, run_program

FOLDER = Path(__file__).parent / "quirks"

HEAD = b"Received: from a\n\tby b; today\nFrom: Ann <ann@example.net>\nSubject: Hello\n there\n"
PARTS = (
    HEAD + b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=cut\n\npreamble\n"
    b"--cut\nContent-Type: text/html\n\n<p>Hi</p>\n"
    b'--cut\nContent-Type: application/octet-stream; name="a.exe"\n'
    b"Content-Transfer-Encoding: base64\n\nTVqQAAMAAAAE\n--cut--\n"
)
EIGHT_BIT = HEAD.replace(b"Hello", b"caf\xe9") + "X-Utf: é\n\nÀ midi\n".encode() + b"\xff\xfe\n"


@dataclass(frozen=True)
class Mail:
    """One message of a connection."""

    content: bytes
    sender: Any = "ann@example.net"
    rcpts: Any = "bob@example.org"
    auth: Auth | None = None


@dataclass(frozen=True)
class Connection:
    """One SMTP client's connection: what the MTA is, who the client is, and its messages."""

    mails: tuple[Mail, ...]
    client: Client | str = "mx.example.net[192.0.2.7]:2525"
    helo: str = "mx.example.net"
    profile: str = "postfix"
    version: int = 6
    actions: int = _wire.ALL_ACTIONS
    protocol: int | None = None


CONNECTIONS = (
    Connection(
        (
            Mail(HEAD + b"\nHi.\n", ("ann@example.net", "SIZE=100", "BODY=8BITMIME")),
            Mail(PARTS, "bad@example.net", ["bob@example.org", "carl@example.org"]),
            Mail(PARTS.replace(b"a.exe", b"a.txt"), auth=Auth("ann")),
        )
    ),
    Connection(
        (
            Mail(EIGHT_BIT, "", ["nobody@example.org", ("bob@example.org", "NOTIFY=NEVER")]),
            Mail(HEAD + b"\n" + b"line of text\n" * 12000, rcpts=["later@b", "bob@example.org"]),
        ),
        client="unknown[2001:db8::1]:25",
        profile="sendmail",
    ),
    Connection((Mail(HEAD), Mail(b"\nno header\n")), "localhost[127.0.0.1]", "localhost"),
    Connection(
        (Mail(PARTS, "ann@example.net", ["hole@example.org", "bob@example.org"]), Mail(EIGHT_BIT)),
        version=2,
    ),
    Connection(
        (Mail(HEAD + b"\nHi.\n"),),
        client=Client("unknown", None),
        actions=milter.ADDHDRS,
        protocol=0x37F,
    ),
    Connection((Mail(HEAD + b"X-Empty:\nX-Two: a\nX-Two: b\n\nHi.\n"),), "/run/socket", "me.here"),
)


#: What is said after an exception is ours, the codes are theirs: docs/differences.md.
AFTER_ERROR = (r"pymilter: untrapped exception in (.*)(?=\\x00)", r"\1: error in the mail filter")


def packets(data: bytes) -> list[str]:
    """The packets of what a filter sent, one a line: letter and data."""
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        text = repr(data[4 : 4 + length])[2:-1]
        found.append(re.sub(*AFTER_ERROR, text))
        data = data[4 + length :]
    return found


def mail(session: Session, wanted: Mail) -> list[str]:
    """What the MTA saw and did for a message."""
    result = session.send(wanted.content, wanted.sender, wanted.rcpts, auth=wanted.auth)
    return [
        f"{result.verdict} at {result.step}",
        *packets(result.received),
        *(f"{type(error).__name__} {getattr(error, 'what', '')}" for error in result.errors),
    ]


def connection(address: str, wanted: Connection) -> list[str]:
    """The same for each message of a connection, and for one that is given up by its client."""
    mta = MTA(
        address,
        profile=wanted.profile,
        version=wanted.version,
        actions=wanted.actions,
        protocol=wanted.protocol,
        strict=False,
        keep_bytes=True,
    )
    session = mta.session(wanted.client, wanted.helo)
    seen = []
    for each in wanted.mails:
        seen += ["closed"] if session.closed else mail(session, each)
    if not session.closed and not session.held:
        if not session.mail("ann@example.net").final:
            session.rcpt("bob@example.org")
            session.header(b"Subject", b"given up")
        passed = b"".join(data for way, data in session.bytes if way == _wire.TO_MTA)
        seen += ["given up", *packets(passed)]
    session.close()
    return seen


@dataclass(frozen=True)
class Way:
    """How a program is run, and where its two runs may differ on purpose."""

    file: str
    #: What it is given after its socket.
    args: tuple[str, ...] = ()
    #: It gets mail; else it only runs.
    mail: bool = True
    #: It ends by itself after the last connection; else by SIGTERM.
    ends: bool = False
    #: It puts itself into the background, writes its number to "pid", and says "over" at its end.
    forks: bool = False
    #: A SIGTERM kills theirs, and nothing after runmilter is done: docs/differences.md.
    theirs_is_killed: bool = False


FILES = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
#: The ordinary way for each, and special ones.
WAYS = {name: Way(name) for name in FILES} | {
    "asynchronous": Way("asynchronous", theirs_is_killed=True),
    "broken, each in the same place": Way("broken", ("body",)),
    "daemon": Way("daemon", ends=True, forks=True),
    "fakes": Way("fakes", mail=False, ends=True),
    "leftovers, REJECT": Way("leftovers", ("REJECT",)),
    "leftovers, CONTINUE": Way("leftovers", ("CONTINUE",)),
    "leftovers, ACCEPT": Way("leftovers", ("ACCEPT",)),
    "negotiators that refuse": Way("negotiators", ("refuse",)),
    "journal": Way("journal", theirs_is_killed=True),
    "journal, a process": Way("journal", ("process",)),
    "strangers who fail": Way("strangers", ("fail",)),
    "threaded": Way("threaded", ends=True),
    "unittests": Way("unittests", mail=False, ends=True),
}


#: An exception's report: with ours a line about it first. What counts is the last line.
REPORT = re.compile(
    r"(?:.*exception in the \w+ callback\n)?"
    r"(?:Traceback \(most recent call last\):\n(?: .*\n)*|(?=milter\.error: ))(.*\n)"
)
#: The text of milter.error, which says more with ours.
OWN_TEXT = re.compile(r"(?<=^milter\.error):.*")
#: What theirs prints while mime looks at a message, and what ours logs of mistakes in filters, at
#: the level INFO of where it serves and what there was to do, and at DEBUG of each answer.
CHATTER = re.compile(
    r"^(?:chkm? .*|INFO (?:\w+ )?\w+: (?:serving at|stopped:) .*|"
    r"DEBUG \S+ \w+: connection \d+.*: \w+: [A-Z]+|\w+: connection \d+: "
    r"(?:\w+: reply \".*\" is not used.*|the negotiate callback (?:returned|failed).*))\n",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Run:
    """What a run of a program was: what the MTA saw, what was printed, what was reported by
    traceback, and the exit status."""

    seen: list[str]
    printed: list[str]
    raised: list[str]
    status: int


def run(implementation: str, folder: Path, way: Way) -> Run:
    """Runs a program, gives it all mail, ends it."""
    folder.mkdir()
    program = run_program(
        implementation,
        folder,
        FILES[way.file],
        f"unix:{folder}/socket",
        *way.args,
        tracebacks=True,
        forks=way.forks,
        printed="printed",
        PYTHONUTF8="1",
    )
    try:
        seen: list[str] = []
        if way.mail:
            program.connect().close()
            for number, wanted in enumerate(CONNECTIONS, 1):
                seen += [f"connection {number}", *connection(program.socket, wanted)]
        if not way.ends:
            program.signal(signal.SIGTERM)
        status = program.wait()
        if way.forks:
            program.until(lambda: "over" in (folder / "printed").read_text())
    finally:
        program.finish()
        if (folder / "pid").exists():
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    texts = [
        CHATTER.sub("", (folder / file).read_text(errors="backslashreplace"))
        for file in ("printed", "output")
    ]
    printed = [line for text in texts for line in REPORT.sub("", text).splitlines()]
    raised = [OWN_TEXT.sub("", line.strip()) for text in texts for line in REPORT.findall(text)]
    return Run(seen, printed, raised, status)


@pytest.fixture(scope="module")
def theirs(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[Run]]]:
    """The runs on the older package, begun together: theirs takes seconds to stop."""
    folder = tmp_path_factory.mktemp("theirs")
    need("oracle")
    names = [
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == test_as_theirs.__name__
    ]
    with ThreadPoolExecutor(len(names)) as pool:
        yield {name: pool.submit(run, "oracle", folder / name, WAYS[name]) for name in names}


@pytest.mark.parametrize("name", WAYS)
def test_as_theirs(name: str, theirs: dict[str, Future[Run]], tmp_path: Path) -> None:
    ours = run("ours-fast", tmp_path / "ours", WAYS[name])
    expected = theirs[name].result()
    if WAYS[name].theirs_is_killed:
        assert (expected.status, ours.status) == (-signal.SIGTERM, 0)
        assert ours.printed[len(expected.printed) :]
        ours = replace(ours, status=-signal.SIGTERM, printed=ours.printed[: len(expected.printed)])
    for what in ("seen", "printed", "raised"):
        there, here = getattr(expected, what), getattr(ours, what)
        difference = [*difflib.unified_diff(there, here, "theirs", "ours", "", "", 4, "")]
        assert not difference, "\n".join([what, *difference])
    assert ours.status == expected.status
