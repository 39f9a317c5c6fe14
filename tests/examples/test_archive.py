"""examples/archive.py."""

import errno
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archive import Archive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from Milter.testing import MTA
from Milter.testing.samples import SAMPLES

ENVELOPE = b"X-Envelope-To: <c@d>\r\nX-Envelope-To: <b@d>\r\nX-Envelope-From: <a@d>\r\n"
MESSAGE = b"Subject: hello\r\n\r\nhi\r\n"
EMPTY: dict[str, list[bytes]] = {"tmp": [], "new": [], "cur": []}
#: What the MTA itself has changed in the samples that are no proper mail, before a filter sees it.
BY_THE_MTA: dict[str, Any] = {
    "no blank line": (rb"\Z", b"\r\n"),
    "no line end": (rb"\Z", b"\r\n"),
    "not mail": (rb"\A", b"\r\n"),
    "bare cr": (rb"\r(\r\n)|\r(?!\n)", lambda found: found[1] or b" "),
    "empty": (rb"\Z", b"\r\n"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "box"


@pytest.fixture
def mta(folder: Path) -> Iterator[MTA]:
    with MTA(archive_in(folder)) as made:
        yield made


def archive_in(path: Path) -> type[Archive]:
    class Here(Archive):
        folder = path

    return Here


def kept(folder: Path) -> dict[str, list[bytes]]:
    """What the folders of the maildir hold."""
    return {
        each: [file.read_bytes() for file in sorted((folder / each).iterdir())] for each in EMPTY
    }


def verdict(mta: MTA, message: bytes) -> str:
    return str(mta.send(message, "a@d", ["c@d", "b@d"]).verdict)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_is_kept_as_it_came(mta: MTA, folder: Path, name: str) -> None:
    assert verdict(mta, SAMPLES[name]) == "accepted"
    expected = re.sub(rb"(?<!\r)\n", b"\r\n", SAMPLES[name])
    if name in BY_THE_MTA:
        expected = re.sub(*BY_THE_MTA[name], expected)
    assert kept(folder) == {**EMPTY, "new": [ENVELOPE + expected]}


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_spaces_and_folds_are_kept(folder: Path, profile: str) -> None:
    message = b"a:b\r\nA:  b\r\nX:\tb\r\n \tc\r\nY:\r\nZ: \xff\r\n\r\nhi\r\n"
    with MTA(archive_in(folder), profile=profile) as mta:
        assert verdict(mta, message) == "accepted"
    assert kept(folder)["new"] == [ENVELOPE + message]


def test_an_mta_that_does_not_tell_the_spaces(folder: Path) -> None:
    with MTA(archive_in(folder), version=2) as mta:
        assert verdict(mta, MESSAGE) == "accepted"
    assert kept(folder)["new"] == [ENVELOPE + MESSAGE]


@given(st.lists(st.binary(max_size=70).map(lambda line: re.sub(rb"[\r\n]", b"", line))))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_is_kept(tmp_path: Path, lines: list[bytes]) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    message = b"\r\n".join([b"Subject: hello", b"", *lines, b""])
    with MTA(archive_in(folder)) as mta:
        assert verdict(mta, message) == "accepted"
    assert kept(folder)["new"] == [ENVELOPE + message]


def test_a_large_body_is_kept(mta: MTA, folder: Path) -> None:
    message = b"Subject: hello\r\n\r\n" + b"\xe9" * 60 * 5000 + b"\r\n"
    assert verdict(mta, message) == "accepted"
    assert kept(folder)["new"] == [ENVELOPE + message]


def test_nobody_else_reads_it(mta: MTA, folder: Path) -> None:
    verdict(mta, MESSAGE)
    [file] = (folder / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_several_messages_on_one_connection(mta: MTA, folder: Path) -> None:
    for _ in range(3):
        assert verdict(mta, MESSAGE) == "accepted"
    assert kept(folder)["new"] == [ENVELOPE + MESSAGE] * 3


@pytest.mark.parametrize("end", ["abort", "vanish"])
def test_a_message_without_an_end_is_not_kept(mta: MTA, folder: Path, end: str) -> None:
    with mta.session() as session:
        session.mail("a@d")
        session.rcpt("b@d")
        session.header(b"Subject", b" hello")
        session.eoh()
        session.body(b"hi\r\n")
        assert len(kept(folder)["tmp"]) == 1
        getattr(session, end)()
    assert kept(folder) == EMPTY


def test_a_folder_that_cannot_be_made(mta: MTA, folder: Path) -> None:
    folder.write_text("a file")
    result = mta.send(MESSAGE)
    assert (result.verdict, result.code, result.enhanced) == ("tempfailed", 452, "4.3.1")
    folder.unlink()
    assert verdict(mta, MESSAGE) == "accepted"


def test_a_full_disk(tmp_path: Path) -> None:
    """A bound of the size of files is met in the middle of a body, whatever the policy is."""
    source = Path(__file__).parents[2] / "examples" / "archive.py"
    (tmp_path / "archive.py").write_bytes(source.read_bytes())
    milterkit = f"{Path(sys.executable).parent}/milterkit"
    command = f"ulimit -f 64; exec {milterkit} run archive.py --socket unix:s"
    with subprocess.Popen(
        ["sh", "-c", f"{command} --exception-policy accept"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr
            assert " serving " in process.stderr.readline()
            with MTA(tmp_path / "s") as mta:
                result = mta.send(MESSAGE + b"x" * 200_000)
                assert (result.verdict, result.code) == ("tempfailed", 452)
                assert verdict(mta, MESSAGE) == "accepted"
        finally:
            process.terminate()
        assert f"not archived: [Errno {errno.EFBIG}]" in process.stderr.read()
    assert kept(tmp_path / "archive") == {**EMPTY, "new": [ENVELOPE + MESSAGE]}
