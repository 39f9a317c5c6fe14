"""The sessions that are recorded with each real MTA, small and chosen to differ; and how.

As a program (`make record`) it records them anew: as transcripts, which people read, into
recorded/, a file for each MTA; and into tests/fuzz/corpus the bytes that the MTA sent into mta/,
the filter's into filter/, a file each. There they are seeds for the fuzz targets; test_recorded.py
plays them on the filters of today.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from Milter.testing.recording import Recorder
from Milter.testing.transcript import Answered, Sent, Transcript, parse, render
from mta import ELSEWHERE, Client, Mta
from postfix import Postfix
from running import Filter, Plan
from sendmail import Sendmail

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
RECORDED = Path(__file__).parent / "recorded"
EIGHT_BIT = b"Subject: caf\xe9 caf\xc3\xa9\r\nX-Empty:\r\nX-Fold: a\r\n\tb\r\n\r\n\xff\x80\r\n.\r\n"


def one(client: Client) -> None:
    """One message."""
    client.run()


def three(client: Client) -> None:
    """Three messages, two recipients each."""
    for _ in range(3):
        client.run(rcpts=["<one@local.test>", "<two@local.test>"])


def every(client: Client) -> None:
    """A message for each step from MAIL on, reset in between."""
    for _ in range(7):
        client.run(b"Subject: test\r\n\r\nThe body.\r\n")
        client.command("RSET")


def odd(client: Client) -> None:
    """What is rare in envelopes and messages."""
    client.command("FOO bar")
    client.run(EIGHT_BIT, "<> BODY=8BITMIME SIZE=99", ["<one@local.test> NOTIFY=NEVER", ELSEWHERE])
    client.run(b"Subject: no body\r\n")
    client.command("HELO again.test")
    client.run(b"\r\nno headers\r\n", "<@a.test,@b.test:x@c.test>", ['"a b"@local.test'])
    client.command("NOOP")


def given_up(client: Client) -> None:
    """Messages that are not finished."""
    client.command("MAIL FROM:<sender@example.test> RET=HDRS ENVID=abc")
    client.command("RSET")
    client.command("MAIL FROM:<sender@example.test>")
    client.command("RCPT TO:<one@local.test> ORCPT=rfc822;other@local.test")
    client.command("EHLO again.test")
    client.command("MAIL FROM:<sender@example.test>")
    client.command("RCPT TO:<one@local.test>")
    client.command("DATA")
    client.send(b"Subject: half a mess")


class Session(NamedTuple):
    """What is recorded under a name: a filter of filters/ with its arguments and its plan, and
    what a client says to it."""

    name: str
    client: Callable[[Client], None] = one
    plan: Plan = {}  # noqa: RUF012
    program: tuple[str, ...] = ("scripted.py",)
    service: str = "unix"
    only: str = ""  # the one MTA that has this; empty: each


EDITS: list[list[object]] = [
    ["addheader", "X-New", "a\n\tb"],
    ["addheader", "X-Top", "café", 0],
    ["chgheader", "Subject", 1, "other"],
    ["chgheader", "X-Two", 2, None],
    ["addrcpt", "<three@local.test>"],
    ["addrcpt", "<four@local.test>", "NOTIFY=NEVER"],
    ["delrcpt", "<one@local.test>"],
    ["chgfrom", "<other@example.test>", "RET=HDRS"],
    ["progress"],
    ["replacebody", b"New.\r\n"],
    ["replacebody", b"\xff\r\n"],
    ["quarantine", "why"],
]
STEPS = ["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"]


def verdicts(verdict: str, *reply: str) -> Plan:
    """The verdict at another step in each message, with a reply's text."""
    set_: list[list[object]] = [["setreply", *reply]] if reply else []
    return {
        f"{step} {number}": [*set_, ["return", verdict]] for number, step in enumerate(STEPS, 1)
    }


SESSIONS = [
    Session("plain"),
    Session("odd", odd),
    Session("given_up", given_up),
    Session("edits", one, {"eom": EDITS}),
    Session(
        "different_edits", three, {"eom 1": EDITS[:3], "eom 2": [["replacebody", b""]], "eom 3": []}
    ),
    Session("rejected", every, verdicts("REJECT", "550", "5.7.1", "no", "100%% no")),
    Session("tempfailed", every, verdicts("TEMPFAIL", "450", "4.7.1", "later")),
    Session("accepted", every, verdicts("ACCEPT")),
    Session("discarded", every, verdicts("DISCARD")),
    Session("skipped", one, {"body": [["return", "SKIP"]]}),
    Session(
        "closed", one, {"envrcpt": [["setreply", "421", "4.7.0", "x"], ["return", "TEMPFAIL"]]}
    ),
    Session("rejected_client", one, {"connect": [["return", "REJECT"]]}),
    Session("accepted_hello", one, {"hello": [["return", "ACCEPT"]]}),
    Session("rejected_hello", one, {"hello": [["return", "REJECT"]]}),
    Session("no_replies", odd, program=("nothing.py", "noreply")),
    Session("decorated", odd, program=("decorated.py",)),
    Session("low_level", one, program=("lowlevel.py",)),
    Session(
        "symbol_lists", one, program=("symlists.py", "CONNECT=j {client_port}", "EOM=", "EOH=i")
    ),
    Session("version2", odd, service="version2", only="postfix"),
    Session("version4", odd, service="version4", only="postfix"),
]


def started(session: Session, socket: Path, folder: Path) -> Filter:
    """A session's filter on a socket, with its plan."""
    program, *more = session.program
    it = Filter(program, f"unix:{socket}", folder, *more)
    it.plan(session.plan)
    return it


def sessions_of(mta: str) -> Iterator[Session]:
    """Those that an MTA of this name has."""
    return (session for session in SESSIONS if session.only in ("", mta))


def record(mta: Mta, session: Session, folder: Path) -> Transcript:
    """Runs one session. Returns what passed on its connection between MTA and filter."""
    with (
        tempfile.TemporaryDirectory() as recorded,
        started(session, mta.two, folder),
    ):
        with (
            Recorder(f"unix:{mta.one}", f"unix:{mta.two}", Path(recorded), mode=0o777),
            closing(mta.client(session.service)) as client,
        ):
            if client.greeting.code == 220:
                client.command("EHLO client.test")
                session.client(client)
        [file] = Path(recorded).glob("*.transcript")
        [transcript] = parse(file.read_text())
    transcript.title = f"{mta.name} {session.name}"
    return transcript


def sent(transcript: Transcript, who: str) -> bytes:
    """All that one side sent: "mta" or "filter"."""
    kind = Sent if who == "mta" else Answered
    return b"".join(event.data or b"" for event in transcript.events() if isinstance(event, kind))


def main() -> None:
    """Records all."""
    RECORDED.mkdir(exist_ok=True)
    for who in ("mta", "filter"):
        (CORPUS / who).mkdir(parents=True, exist_ok=True)
        for old in (CORPUS / who).iterdir():
            old.unlink()
    for kind in (Postfix, Sendmail):
        if why := kind.missing():
            sys.exit(why)
        transcripts = []
        with kind() as mta, tempfile.TemporaryDirectory() as folder:
            for session in sessions_of(mta.name):
                transcripts.append(record(mta, session, Path(folder) / session.name))
                for who in ("mta", "filter"):
                    file = CORPUS / who / f"{mta.name}_{session.name}"
                    file.write_bytes(sent(transcripts[-1], who))
                    print(file.relative_to(CORPUS), file.stat().st_size)
        (RECORDED / f"{mta.name}.transcript").write_text(render(transcripts))


if __name__ == "__main__":
    main()
