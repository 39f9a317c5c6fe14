"""Sessions byte by byte: what each MTA sends, and recorded ones played on the filters of today."""

import socket
from contextlib import closing
from pathlib import Path

import differences
import pytest
from Milter._wire import TO_FILTER, TO_MTA, Decoder
from Milter.testing.replaying import replay
from Milter.testing.spec import connect
from Milter.testing.transcript import Sent, parse
from mta import Mta
from sessions import CORPUS, SESSIONS, Session, record, sent, sessions_of, started
from sessions import RECORDED as TRANSCRIPTS

# (MTA, session) of every file that there is.
RECORDED = [(mta, each) for mta in ("postfix", "sendmail") for each in sessions_of(mta)]


def packets(direction: int, data: bytes) -> list[str]:
    """The packets in order: the command's letter, and for macros what for and which."""
    decoder = Decoder(direction)
    decoder.feed(data)
    found = []
    while packet := decoder.next():
        command, *fields = packet
        if (direction, command) == (TO_FILTER, b"D"):
            names = fields[1].split(b"\0")[:-1:2]
            found.append(" ".join(part.decode() for part in (b"D", fields[0], *names)))
        else:
            found.append(command.decode())
    assert decoder.pending == 0
    return found


def test_plain_message(mta: Mta, folder: Path) -> None:
    """All that passes for one message, with the macros; each command but D, A, Q gets a reply."""
    passed = record(mta, SESSIONS[0], folder)
    found = packets(TO_FILTER, sent(passed, "mta"))
    assert found == differences.of(mta, "packets")
    awaited = [each for each in found if each[0] not in "DAQ"]
    assert packets(TO_MTA, sent(passed, "filter")) == ["O", *["c"] * (len(awaited) - 1)]


def test_files() -> None:
    """There is a file for each session and direction, and no other."""
    names = {f"{mta}_{each.name}" for mta, each in RECORDED}
    for who, direction in (("mta", TO_FILTER), ("filter", TO_MTA)):
        files = {path.name: path.read_bytes() for path in (CORPUS / who).iterdir()}
        assert files.keys() == names
        assert all(packets(direction, data)[0] == "O" for data in files.values())


@pytest.mark.parametrize("mta", ["postfix", "sendmail"])
def test_transcripts(mta: str) -> None:
    """The transcripts hold the same bytes as the files, in the order in which they passed."""
    transcripts = parse((TRANSCRIPTS / f"{mta}.transcript").read_text())
    assert [each.title for each in transcripts] == [
        f"{mta} {each.name}" for each in sessions_of(mta)
    ]
    for each in transcripts:
        name = each.title.replace(" ", "_", 1)
        for who in ("mta", "filter"):
            assert sent(each, who) == (CORPUS / who / name).read_bytes()
        assert each.events()[-1] == Sent(None)


@pytest.mark.parametrize(
    ("mta", "session"), RECORDED, ids=[f"{mta}-{each.name}" for mta, each in RECORDED]
)
def test_played_again(mta: str, session: Session, tmp_path: Path) -> None:
    """The filter answers the recorded bytes of an MTA with the recorded bytes of the filter: all
    sent at once, and step by step."""
    transcripts = parse((TRANSCRIPTS / f"{mta}.transcript").read_text())
    [transcript] = [each for each in transcripts if each.title == f"{mta} {session.name}"]
    path = tmp_path / "socket"
    with started(session, path, tmp_path / "filter") as running:
        with closing(connect(running.where, 30)) as client:
            client.sendall((CORPUS / "mta" / f"{mta}_{session.name}").read_bytes())
            client.shutdown(socket.SHUT_WR)
            answered = b"".join(iter(lambda: client.recv(65536), b""))
        assert answered == (CORPUS / "filter" / f"{mta}_{session.name}").read_bytes()
        assert replay(transcript, connect(running.where, 30)) == []
