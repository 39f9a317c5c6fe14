"""examples/defang.py."""

import zipfile
from io import BytesIO
from pathlib import Path

import defang
import pytest
from Milter.testing import MTA, ReplaceBody

from .hostile import HOSTILE

pytestmark = pytest.mark.milter(filter=defang.Defang)
HEAD = b"From: ann@example.org\nMIME-Version: 1.0\n"
MIXED = HEAD + b'Content-Type: multipart/mixed; boundary="b"\n\n'
HARMLESS = b"--b\nContent-Type: text/plain; charset=latin1\n\nGr\xfc\xdfe \n\n"
SCRIPT = b"--b\nContent-Type: text/html\n\n<p>\xff<script>x()</script></p>\n"
RUNS = b"--b\nContent-Disposition: attachment; filename=%s\n\nMZ\n"
END = b"--b--\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(defang, "FOLDER", tmp_path)
    return tmp_path


def kept(folder: Path) -> list[bytes]:
    return [file.read_bytes().replace(b"\r\n", b"\n") for file in folder.iterdir()]


@pytest.mark.parametrize("message", [MIXED + HARMLESS + END, HEAD + b"\nHello\n"])
def test_what_is_harmless_passes(mta: MTA, folder: Path, message: bytes) -> None:
    assert mta.send(message).changes == ()
    assert kept(folder) == []


def test_what_would_run_becomes_a_text(mta: MTA, folder: Path) -> None:
    message = MIXED + HARMLESS + RUNS % b"holiday.jpg.exe" + END
    result = mta.send(message)
    assert [type(change) for change in result.changes] == [ReplaceBody]
    before, _, rest = result.message.partition(RUNS[:4] + b"Content-Type: text/plain; name=WARNING")
    assert before == MIXED + HARMLESS
    assert b"holiday.jpg.exe" in rest
    assert b"MZ" not in rest
    [file] = folder.iterdir()
    assert file.name.encode() in rest
    assert str(folder).encode() not in rest
    assert kept(folder) == [message]
    assert file.stat().st_mode & 0o777 == 0o600


def test_scripts_leave_html(mta: MTA, folder: Path) -> None:
    message = MIXED + HARMLESS + SCRIPT + END
    result = mta.send(message)
    assert b"x()" not in result.message
    assert result.message.startswith(MIXED + HARMLESS + SCRIPT[:34])
    assert kept(folder) == [message]


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_a_message_that_is_itself_what_would_run(profile: str) -> None:
    head = HEAD + b"Content-Type: application/x; name=a.exe\nSubject: hello\n"
    head += b"Content-type: text/plain\nContent-Disposition: attachment\n"
    with MTA(defang.Defang, profile=profile) as mta:
        result = mta.send(head + b"\nMZ\n")
    header, _, body = result.message.partition(b"\n\n")
    lines = [line for line in header.split(b"\n") if line.lower().startswith(b"content-")]
    assert lines == [b"Content-Type: text/plain; name=WARNING.TXT"]
    assert b"\nSubject: hello" in header
    assert body.startswith(b"This message appeared to contain a virus.")


def test_archives_are_looked_into(mta: MTA) -> None:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/b.scr", b"MZ")
    part = RUNS[: RUNS.index(b"\n\n") + 2] % b"a.zip" + out.getvalue().replace(b"\r", b"") + b"\n"
    part = part.replace(b"\n\n", b"\nContent-Transfer-Encoding: binary\n\n", 1)
    assert b"originally named 'a.zip'" in mta.send(MIXED + part + END).message


def test_too_large(mta: MTA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defang, "LIMIT", 1 << 20)
    result = mta.send(HEAD + b"\n" + b"x" * 70 * 20_000)
    assert str(result.reply) == "552 5.3.4 A message may have 1 MiB here"
    assert mta.send(HEAD + b"\n" + b"x" * 70 * 10_000).verdict == "accepted"


@pytest.mark.parametrize("name", ["deep", "many parts"])
def test_too_much_to_look_at(mta: MTA, name: str) -> None:
    reply = mta.send(HOSTILE[name]).reply
    assert str(reply) == "554 5.6.0 The message has too many parts to be looked at"


def test_a_full_disk_loses_nothing(folder: Path) -> None:
    folder.rmdir()
    with MTA(defang.Defang, strict=False) as mta:
        result = mta.send(MIXED + RUNS % b"a.exe" + END)
    assert (result.verdict, result.changes) == ("tempfailed", ())


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"deep", "many parts"}))
def test_hostile(mta: MTA, name: str) -> None:
    """It gets an answer, and what would run is found in it."""
    assert mta.send(HOSTILE[name]).verdict == "accepted"
    result = mta.send(b"Content-Disposition: attachment; filename=a.exe\n" + HOSTILE[name])
    assert result.verdict == "accepted"
    if b"multipart/" not in HOSTILE[name]:
        assert b"name=WARNING.TXT\n" in result.message
