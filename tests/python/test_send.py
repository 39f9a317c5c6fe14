"""`milterkit send`: mailboxes, filters in files, output for programs, bad filters, loads."""

import io
import json
import mailbox
import os
import pty
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import Milter
import pytest
from Milter import _wire
from Milter.cli import main
from Milter.cli.progress import Progress
from Milter.cli.sources import sources_in
from Milter.testing import MTA, FilterClosed, ProtocolError
from Milter.testing.repeating import Job, repeat

FILTERS = '''
import os, time
import Milter


class Tags(Milter.Base):
    """Tells in a header what the MTA told."""

    def connect(self, name, family, address):
        self.client = f"{name} {address and address[0]}"
        return Milter.CONTINUE

    def eom(self):
        names = ("j", "{auth_authen}", "{tls_version}", "{mine}", "v")
        told = [f"{name}={self.getsymval(name)}" for name in names]
        self.addheader("X-Told", f"{self.client} " + " ".join(told))
        return Milter.CONTINUE


class Raises(Milter.Base):
    def eom(self):
        raise ValueError("two\\nlines")


class CannotBeMade(Milter.Base):
    def __init__(self):
        raise OSError("no database")


class Hangs(Milter.Base):
    def eom(self):
        time.sleep(600)
'''


@pytest.fixture
def filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file with the filters above, and the folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    Path("send_filters.py").write_text(FILTERS)
    Path("m.eml").write_bytes(b"From: a@b\nTo: c@d\nSubject: hello\n\nhi\n")
    return "send_filters.py"


def milterkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "Milter", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------- sources

MESSAGES = [
    b"Subject: one\n\nhi\n",
    b"Subject: two\n\nfirst\n\nFrom me to you\n>From there\n\n",
    b"Subject: \xff\n\n\x80\n",
]


def contents(name: str) -> list[bytes]:
    """What the messages of a source hold."""
    return [each.read() for each in sources_in(name)]


def test_an_mbox_as_others_write_it(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box")
    for message in MESSAGES:
        box.add(message)
    box.close()
    found = contents(str(tmp_path / "box"))
    assert found == [MESSAGES[0], MESSAGES[1].replace(b"\n>From", b"\nFrom"), MESSAGES[2]]
    assert [each.name for each in sources_in(str(tmp_path / "box"))] == [
        f"{tmp_path}/box:{number}" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"From x\n", [b""]),
        (b"From x\n\nFrom y\n", [b"", b""]),
        (
            b"From x\r\nA: 1\r\n\r\nhi\r\n\r\nFrom y\r\nB: 2\r\n",
            [b"A: 1\r\n\r\nhi\r\n", b"B: 2\r\n"],
        ),
        (b"From x\nA: 1\n\nFrom here it goes on", [b"A: 1\n", b""]),
        (b"From x\nA: 1\nFrom no empty line\n\n", [b"A: 1\nFrom no empty line\n"]),
        (b"From x\nA: 1\n\n>>From\n>>From a\n\n", [b"A: 1\n\n>>From\n>From a\n"]),
        (b"From: x\n\nFrom y\n", [b"From: x\n\nFrom y\n"]),
        (b"", [b""]),
    ],
)
def test_odd_mailboxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, messages: list[bytes]
) -> None:
    (tmp_path / "box").write_bytes(content)
    assert contents(str(tmp_path / "box")) == messages
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert contents("-") == messages


def test_a_maildir_as_others_write_it(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "dir")
    for message in MESSAGES:
        box.add(message)
    assert sorted(contents(str(tmp_path / "dir"))) == sorted(MESSAGES)


def test_a_pipe(filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.write(write, MESSAGES[0])
    os.close(write)
    try:
        assert main(["send", "--to", f"{filters}:Tags", f"/dev/fd/{read}"]) == 0
    finally:
        os.close(read)
    assert "   Subject: one\n" in capsys.readouterr().out


# -------------------------------------------------------------------------------- what is passed on


def test_options_reach_the_filter(filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(
        ["send", "--to", f"{filters}:Tags", "m.eml", "--client", "h[192.0.2.9]", "--auth", "joe",
         "--tls", "--macro", "{mine}=1", "--no-macro", "v", "--hostname", "mx", "--profile",
         "sendmail", "--json", "--from", "x@y SIZE=5", "--actions", "ADDHDRS+CHGBODY",
         "--protocol", "0x37f"]
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert status == 0
    assert told["changes"] == [
        {"change": "AddHeader", "name": "X-Told",
         "value": "h 192.0.2.9 j=mx {auth_authen}=joe {tls_version}=TLSv1.3 {mine}=1 v=None"}
    ]  # fmt: skip
    assert told["steps"][0]["answer"] == "version 6, actions ADDHDRS+CHGBODY"
    assert {"step": "connect", "sent": "h [192.0.2.9]:54321", "answer": "continue"} in told["steps"]
    assert told["envelope"] == {"sender": "x@y", "rcpts": ["c@d"]}
    assert (told["verdict"], told["step"], told["reply"]) == ("accepted", "eom", None)
    assert told["diff"].startswith("--- message\n")


def test_a_step_that_times_out(filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["send", "--to", f"{filters}:Tags", "m.eml", "--time-out-at", "eom",
                   "--default-action", "accept"])  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0
    assert out.startswith("m.eml: accepted\n")
    assert "X-Told" not in out


def test_output_to_a_folder(filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sub").mkdir()
    Path("sub/m.eml").write_bytes(MESSAGES[1])
    arguments = ["send", "--to", f"{filters}:Tags", "m.eml", "sub/m.eml", "--output", "out"]
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    first = Path("out/m.eml").read_bytes()
    assert first.startswith(b"From: a@b\nTo: c@d\nSubject: hello\nX-Told: localhost 127.0.0.1 j=")
    assert first.endswith(b"\n\nhi\n")
    assert Path("out/m-2.eml").read_bytes().endswith(b"\nFrom me to you\n>From there\n\n")


# ------------------------------------------------------------------------------------- bad filters


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "Raises",
            r"at eom: the filter raised ValueError: two lines \(.*send_filters.py, line 22\)",
        ),
        ("CannotBeMade", r"at negotiate: the filter raised OSError: no database \(.*, line 27\)"),
        ("Hangs", "protocol error at eom: no answer within 0.5 seconds"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--repeat", "3", "--parallel", "2"]])
def test_bad_filters_are_one_line(filters: str, name: str, error: str, more: list[str]) -> None:
    done = milterkit("send", "--to", f"{filters}:{name}", "--timeout", "0.5", "m.eml", *more)
    assert done.returncode == 14
    assert done.stdout == ""
    *log, line = done.stderr.splitlines()
    assert re.fullmatch(f"milterkit: m.eml: {error}", line)
    assert not [each for each in log if not each.startswith("Milter WARNING ")]


def test_errors_as_the_mta_takes_them(filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["send", "--to", f"{filters}:Hangs", "--timeout", "0.2", "m.eml"]
    assert main([*arguments, "--default-action", "reject"]) == 14
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "m.eml: rejected: 550 5.5.0 Service unavailable"
    assert "  error at eom: no answer within 0.2 seconds" in out
    assert main([*arguments, "--json"]) == 14
    assert json.loads(capsys.readouterr().out) == {
        "message": "m.eml",
        "error": {
            "kind": "timeout", "step": "eom", "text": "at eom: no answer within 0.2 seconds"
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"\n\n", b"\r\r\r", b"\0" * 1000, b"To: " + b"x@y, " * 400_000 + b"\n\n",
        b"X: " + b"a" * 10_000_000, b"A: 1\n" * 100_000 + b"\nhi\n", b"From: (" * 50_000,
        b"From: \xff\0\n\nTo\r:x", bytes(range(256)) * 50, b"To: a\n b\n\tc@d\n\n", b"To:\n" * 5000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_messages_that_are_hardly_mail(
    filters: str, capsys: pytest.CaptureFixture[str], profile: str, content: bytes
) -> None:
    Path("odd").write_bytes(content)
    status = main(["send", "--to", f"{filters}:Tags", "--profile", profile, "--json", "odd"])
    told = json.loads(capsys.readouterr().out)
    assert (status, told["verdict"]) in ((0, "accepted"), (12, "tempfailed"), (13, "rejected"))
    assert told["step"] in ("eom", "mta")


# -------------------------------------------------------------------------------------------- load


def test_repeat(filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["send", "--to", f"{filters}:Tags", "m.eml", "m.eml", "--repeat", "20"]
    assert main([*arguments, "--parallel", "2"]) == 0
    assert re.fullmatch(
        r"40 messages in \S+ s, \d+/s; p50 \S+ ms, p90 \S+ ms, p99 \S+ ms, most \S+ ms; "
        r"40 accepted\n",
        capsys.readouterr().out,
    )
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["messages"], told["verdicts"]) == (40, {"accepted": 40})


class Every(Milter.Base):
    """Rejects each fifth message, at MAIL; else adds headers that differ in size and number."""

    ids: list[str]
    seen = 0

    def envfrom(self, _sender: str, *_params: str) -> int:
        type(self).seen += 1
        return Milter.REJECT if self.seen % 5 == 0 else Milter.CONTINUE

    def eom(self) -> int:
        self.ids.append(self.getsymval("i") or "")
        for _ in range(1 + self.seen % 3):
            self.addheader("X-Seen", "x" * self.seen)
        return Milter.CONTINUE


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_repeated_messages_are_judged_one_by_one(profile: str) -> None:
    Every.seen = 0
    Every.ids = []
    job = Job("m", (MESSAGES[0], "a@b", ["c@d"]), {})
    load = repeat(lambda: MTA(Every, profile=profile), [job], 100)
    assert load.error is None
    assert load.verdicts["rejected"] + load.verdicts["accepted"] == load.messages == 100
    assert Every.seen == 100
    assert load.verdicts["accepted"] == len(Every.ids)
    assert len(set(Every.ids)) > 50  # queue ids
    assert load.verdicts["rejected"] == 20
    assert list(load.latencies) == sorted(load.latencies)


class Leaves(Milter.Base):
    """Ends its process's connection at the tenth message by an answer that no MTA knows."""

    messages = 0

    def eom(self) -> int:
        type(self).messages += 1
        if self.messages == 10:
            raise ConnectionError("gone")
        return Milter.CONTINUE


def test_an_error_ends_a_load() -> None:
    Leaves.messages = 0
    job = Job("m", (MESSAGES[0], "a@b", ["c@d"]), {})
    load = repeat(lambda: MTA(Leaves), [job], 100)
    assert load.error is not None
    name, error = load.error
    assert name == "m"
    assert "gone" in str(error)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(b"", FilterClosed), (b"\0\0\0\1c\0\0\0\1c", ProtocolError), (b"\0\0\0\0", ProtocolError)],
)
def test_a_filter_that_goes_wrong_under_load(
    answer: bytes, kind: type[Exception], served: Callable[[bytes], str]
) -> None:
    spec = served(answer)
    job = Job("m", (MESSAGES[0], "a@b", ["c@d"]), {})
    load = repeat(lambda: MTA(spec, timeout=20), [job], 100)
    assert load.messages == 4
    assert load.error is not None
    assert isinstance(load.error[1], kind)


@pytest.fixture
def served(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Serves a filter that wants the end of messages alone; its fifth answer is other bytes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/s")
    listener.listen()
    listener.settimeout(30)
    threads = []

    def serve(answer: bytes) -> None:
        connection, _ = listener.accept()
        decoder = _wire.Decoder(_wire.TO_FILTER)
        ends = 0
        connection.settimeout(30)
        with connection:
            while data := connection.recv(65536):
                decoder.feed(data)
                while packet := decoder.next():
                    if packet[0] == b"O":
                        connection.sendall(_wire.encode(_wire.TO_MTA, b"O", 6, 0, 0x37F))
                    elif packet[0] == b"E":
                        ends += 1
                        if ends == 5:
                            connection.sendall(answer)
                            return
                        connection.sendall(b"\0\0\0\1c")

    def start(answer: bytes) -> str:
        threads.append(threading.Thread(target=serve, args=(answer,)))
        threads[0].start()
        return f"unix:{tmp_path}/s"

    yield start
    listener.close()
    for thread in threads:
        thread.join(30)


# ---------------------------------------------------------------------------------------- terminal


def test_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("Milter.cli.progress._EVERY", 0.0)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress(100, stream=stream) as progress:
        progress.step(0)
        progress.step(50)
        progress.clear()
        progress.clear()
        progress.step(100)
    whole = "[" + "#" * 30 + "]"
    half = "[" + "#" * 15 + "." * 15 + "]"
    assert stream.getvalue().split("\r\x1b[K") == [
        "", "[" + "." * 30 + "] 0 of 100", f"{half} 50 of 100", "", f"{whole} 100 of 100", ""
    ]  # fmt: skip
    for few, other in ((5, Terminal()), (100, io.StringIO())):
        with Progress(few, stream=other) as progress:
            progress.step(1)
        assert other.getvalue() == ""


def test_at_a_terminal(filters: str) -> None:
    """Colours and the bar; the bar is gone when it is over."""
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "Milter", "send", "--to", f"{filters}:Tags", "m.eml", "--repeat",
         "2000"],
        stdin=its, stdout=its, stderr=its, env=environment,
    ) as process:  # fmt: skip
        os.close(its)
        out = b""
        try:
            while data := os.read(ours, 65536):
                out += data
        except OSError:  # so ends a terminal
            pass
        os.close(ours)
    assert process.returncode == 0
    *_, last = out.split(b"\r\x1b[K")
    assert b"\r\n2000 messages in " in b"\r\n" + last


# ------------------------------------------------------------------------------------------ memory

MEASURE = """
import re, sys
from pathlib import Path
from Milter.cli import main
def most():  # that was ever resident, KiB; ru_maxrss would have the parent's as well
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
base = most()
status = main(sys.argv[1:])
print(status, most() - base, file=sys.stderr)
"""


def test_memory_of_a_large_message(filters: str) -> None:
    """A message of 100 MB: at most twice its size, output to a file included."""
    size = 100_000_000
    with Path("large.eml").open("wb") as file:
        file.write(b"From: a@b\nTo: c@d\n\n")
        line = b"x" * 75 + b"\n"
        for _ in range(100):
            file.write(line * (size // 100 // len(line)))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "send", "--to", f"{filters}:Tags", "large.eml", "--output",
         "out"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    status, grown = done.stderr.splitlines()[-1].split()
    assert status == "0"
    assert int(grown) * 1024 < 2 * size
    assert Path("out/large.eml").stat().st_size > Path("large.eml").stat().st_size
