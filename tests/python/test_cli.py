"""`milterkit`: what it prints, its exit statuses, its errors in one line."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import Milter
import pytest
from Milter.cli import main
from Milter.cli.exits import CommandError
from Milter.cli.load import load_filter
from Milter.cli.show import Printer
from Milter.testing import MTA, ConnectError, FilterClosed

EXAMPLES = Path(__file__).parents[2] / "examples"


class Words(Milter.Base):
    """Does what the Subject says."""

    def envfrom(self, _sender, *_params):
        self.subject = ""
        return Milter.CONTINUE

    def envrcpt(self, rcpt, *_params):
        if rcpt == "<no@d>":
            self.setreply("550", "5.1.1", "nobody", "here")
            return Milter.REJECT
        return Milter.CONTINUE

    def header(self, name, value):
        if name == "Subject":
            self.subject = value
        return Milter.CONTINUE

    def eom(self):
        if self.subject == "hold":
            self.quarantine("be\x1bcause")
        if self.subject == "later":
            self.setreply("450", "4.2.0", "not \xfc now")
        self.addheader("X-Word", self.subject)
        return {
            "no": Milter.REJECT,
            "later": Milter.TEMPFAIL,
            "drop": Milter.DISCARD,
        }.get(self.subject, Milter.CONTINUE)


@pytest.fixture(scope="module")
def filter_spec(tmp_path_factory):
    with Milter.Server(Words, f"unix:{tmp_path_factory.mktemp('cli')}/s") as server:
        yield server.address


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(subject, to="c@d"):
        (tmp_path / f"{subject}.eml").write_text(
            f"From: A <a@b>\nTo: {to}\nSubject: {subject}\n\nhello\n"
        )
        return f"{subject}.eml"

    return make


# -------------------------------------------------------------------------------------- send


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("fine", (0, "fine.eml: accepted")),
        ("hold", (10, "hold.eml: quarantined: be\\x1bcause")),
        ("drop", (11, "drop.eml: discarded")),
        ("later", (12, "later.eml: tempfailed: 450 4.2.0 not \xfc now")),
        ("no", (13, "no.eml: rejected: 550 5.7.1 Command rejected")),
    ],
)
def test_send(filter_spec, write, capsys, subject, expected):
    status = main(["send", "--socket", filter_spec, write(subject)])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert (status, lines[0]) == expected
    assert err == ""
    added = f"add header X-Word: {subject}"
    at_end = {
        "fine": [added, "continue"],
        "hold": ["quarantine: be\\x1bcause", added, "continue"],
        "drop": [added, "discard"],
        "later": [added, "450 4.2.0 not \xfc now"],
        "no": [added, "reject"],
    }[subject]
    steps = [
        ["negotiate", "version 6", "version 6, actions all"],
        ["mail", "<a@b>", "continue"],
        ["rcpt", "<c@d>", "continue"],
        ["header", "3: From, To, Subject", "continue"],
        ["eom", at_end[0]],
        *([each] for each in at_end[1:]),
    ]
    below = len(steps) + 1
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[1:below]] == steps
    difference = [
        "  --- message",
        "  +++ message (filtered)",
        "  @@ -1,5 +1,6 @@",
        "   From: A <a@b>",
        "   To: c@d",
        f"   Subject: {subject}",
        f"  +X-Word: {subject}",
        "   ",
        "   hello",
    ]
    assert lines[below:] == (difference if status <= 10 else [])


def test_send_refused_recipients(filter_spec, write, capsys):
    name = write("fine", to="c@d, no@d")
    assert main(["send", "--socket", filter_spec, name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fine.eml: accepted"
    assert lines[4:6] == [
        "  rcpt       <no@d>                550-5.1.1 nobody",
        "                                   550 5.1.1 here",
    ]
    at = lines.index("  <no@d>: rejected:")
    assert lines[at : at + 8] == [
        "  <no@d>: rejected:",
        "    550-5.1.1 nobody",
        "    550 5.1.1 here",
        "  --- envelope",
        "  +++ envelope (filtered)",
        "  @@ -1,3 +1,2 @@",
        "   MAIL FROM:<a@b>",
        "   RCPT TO:<c@d>",
    ]
    assert main(["send", "--socket", filter_spec, name, "--rcpt", "no@d"]) == 13
    assert capsys.readouterr().out.splitlines()[0] == "fine.eml: rejected at rcpt:"


def test_send_several_messages_the_worst_counts(filter_spec, write, capsys):
    names = [write("fine"), write("later"), write("drop")]
    assert main(["send", "--socket", filter_spec, *names]) == 12
    found = [line for line in capsys.readouterr().out.splitlines() if ".eml" in line]
    assert [line.split(":")[0] for line in found] == names


def test_send_options_reach_the_filter(filter_spec, write, capsys):
    status = main(
        ["send", "--socket", filter_spec, write("fine"), "--trace", "--from", "", "--rcpt", "x@y",
         "--rcpt", "z@y", "--client", "h[192.0.2.9]:25", "--helo", "me", "--macro", "{m}=1=2",
         "--protocol-version", "4"]
    )  # fmt: skip
    assert status == 0
    out = capsys.readouterr().out
    assert "  > OPTNEG version 4 " in out
    assert re.search(r"  > MACRO CONNECT .* _=h \[192\.0\.2\.9\] m=1=2\n", out)
    assert "  > MAIL <>\n" in out
    assert "  > RCPT <x@y>\n" in out
    assert "  > RCPT <z@y>\n" in out


def test_send_from_standard_input(filter_spec, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Subject: drop\n\n")))
    assert main(["send", "--socket", filter_spec, "-"]) == 11
    assert capsys.readouterr().out.startswith("-: discarded\n")


@pytest.mark.parametrize("content", [b"", b"\0\xff\r\n", b"no blank line", b"From: \xff\xfe <\n\n"])
def test_send_what_is_hardly_mail(filter_spec, tmp_path, content, capsys):
    (tmp_path / "x").write_bytes(content)
    assert main(["send", "--socket", filter_spec, str(tmp_path / "x")]) == 0
    assert "accepted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["unix:nothing", "fine.eml"], 15, "cannot connect to unix:nothing: No such file"),
        (["x25:1", "fine.eml"], 15, 'x25:1": the socket type is unknown: write unix:, inet:'),
        (["unix:nothing", "missing.eml"], 1, "missing.eml: No such file or directory"),
        (["unix:nothing", "."], 1, ".: it is a folder, but no maildir"),
        (["missing.py", "fine.eml"], 1, "missing.py: no such file"),
        (["unix:nothing", "fine.eml", "--output", "fine.eml"], 1, "fine.eml: File exists"),
        (["unix:nothing", "fine.eml", "--default-action", "x"], 2, "postfix has no action 'x'"),
        (["unix:nothing", "fine.eml", "--repeat", "5"], 15, "cannot connect to unix:nothing"),
    ],
)
def test_send_errors_are_one_line(write, capsys, arguments, status, error):
    write("fine")
    assert main(["send", "--socket", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("milterkit: ")
    assert error in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", "protocol error at negotiate: the filter closed the connection"),
        (b"\0\0\0\x01c", "protocol error at negotiate: CONTINUE instead of OPTNEG"),
        (b"HTTP/1.1 400 Bad Request\r\n", "protocol error at negotiate: malformed packet"),
    ],
)
def test_send_to_what_is_no_filter(write, capsys, reply, error):
    def serve(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        spec = f"inet:{listener.getsockname()[1]}@127.0.0.1"
        assert main(["send", "--socket", spec, write("fine")]) == 14
        thread.join(30)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"milterkit: fine.eml: {error}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["send"], ["send", "x"], ["run"], ["nothing"],
     ["send", "--socket", "s", "x", "--client", "???"],
     ["send", "--socket", "s", "x", "--macro", "y"],
     ["send", "--socket", "s", "x", "--timeout", "0"],
     ["send", "--socket", "s", "x", "--actions", "ADDHDRS+NOTHING"],
     ["send", "--socket", "s", "x", "--repeat", "2", "--trace"],
     ["run", "x.py", "--socket", "s", "--mode", "9"]],
)  # fmt: skip
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"milterkit \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_help_names_every_exit_status(capsys):
    with pytest.raises(SystemExit):
        main(["send", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for status in ("0 accepted", "13 rejected", "12 tempfailed", "11 discarded",
                   "10 quarantined", "14 protocol error", "15 cannot connect"):  # fmt: skip
        assert status in text


# ----------------------------------------------------------------------------------- printing


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal, {"TERM": "xterm"}, True),
        (Terminal, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals(filter_spec, monkeypatch, stream, environment, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with MTA(filter_spec) as mta:
        result = mta.send(b"Subject: fine\n\n")
    out = stream()
    Printer(out).result("m", result)
    assert ("\x1b[32m+X-Word: fine\x1b[0m" in out.getvalue()) == coloured
    assert ("\x1b[" in out.getvalue()) == coloured


def test_printing_where_the_encoding_lacks_letters(filter_spec):
    with MTA(filter_spec) as mta:
        result = mta.send("Subject: gr\xfc\xdfe\n\n".encode())
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    Printer(stream).result("m", result)
    assert b"+X-Word: gr\\xfc\\xdfe" in raw.getvalue()


# ---------------------------------------------------------------------------------------- run


def test_load_the_only_filter(tmp_path):
    file = tmp_path / "one_filter.py"
    file.write_text(
        "import Milter\nfrom Milter import Milter as Other\n"
        "class Common(Milter.Base): pass\nclass Mine(Common): pass\nMine2 = Mine\n"
        "def make(): return Mine()\nnumber = 1\n"
    )
    assert load_filter(str(file)).__name__ == "Mine"
    assert load_filter(f"{file}:Common").__name__ == "Common"
    assert load_filter(f"{file}:make").__name__ == "make"


@pytest.mark.parametrize(
    ("code", "name", "error"),
    [
        (None, "", "no such file"),
        ("", "", "no class in it is derived from Milter.Base"),
        ("from Milter import Base", "", "no class in it is derived from Milter.Base"),
        ("import Milter\nclass A(Milter.Base): pass\nclass B(Milter.Base): pass\n", "",
         "several filters in it (A, B)"),
        ("x = 1", ":y", "there is no y in it"),
        ("x = 1", ":x", "x is no class and cannot be called"),
        ("x = (\n", "", "line 1: '(' was never closed"),
        ("\nx = y", "", "line 2: NameError: name 'y' is not defined"),
        ("import nosuchmodule", "", "line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("raise ValueError('two\\nlines')", "", "line 1: ValueError: two lines"),
        ("import Milter\nclass A(Milter.Base):\n  def __init__(self, limit): pass", "",
         "without arguments for each connection (missing a required argument: 'limit')"),
        ("def make(x): pass", ":make", "make is called without arguments for each connection"),
    ],
)  # fmt: skip
def test_load_errors_are_one_line(tmp_path, code, name, error):
    file = tmp_path / "broken.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(CommandError) as caught:
        load_filter(f"{file}{name}")
    assert str(caught.value).startswith(str(file))
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_does_not_hide_a_module(tmp_path):
    (tmp_path / "io.py").write_text("import Milter\nclass Mine(Milter.Base): pass\n")
    assert load_filter(str(tmp_path / "io.py")).__name__ == "Mine"
    assert sys.modules["io"] is io


@pytest.fixture(autouse=True)
def _keep_imports(monkeypatch):
    """What load_filter adds to the import system goes after each test."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    modules = sys.modules.copy()
    yield
    for name in set(sys.modules) - set(modules):
        if name.partition(" ")[0] in ("one_filter", "broken", "io"):
            del sys.modules[name]


def test_run_serves_until_it_is_stopped(tmp_path):
    spec = f"unix:{tmp_path}/s"
    process = subprocess.Popen(
        [sys.executable, "-m", "Milter", "run", EXAMPLES / "house_rules.py", "--socket", spec,
         "--mode", "600", "--name", "rules", "--timeout", "60", "--max-connections", "5",
         "--max-threads", "2", "--drain", "5", "--progress", "2.5", "--exception-policy", "reject",
         "--backlog", "7", "--limit", "recipients=3", "--limit", "header_bytes=1000"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()  # it is there once the socket listens
        assert line.rstrip().endswith(f"Milter INFO rules: serving at {spec}")
        assert os.stat(tmp_path / "s").st_mode & 0o777 == 0o600
        with MTA(spec) as mta:
            assert mta.send(b"Subject: Lottery\n\n").verdict == "discarded"
            with pytest.raises(FilterClosed):
                mta.send(b"Subject: x\n\n", rcpts=["a@b.test"] * 4)
            with pytest.raises(FilterClosed):
                mta.send(b"Subject: " + b"x" * 1000 + b"\n\n")
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert rest.rstrip().endswith(
        "Milter INFO rules: stopped: 1 messages, 2 connections, 0 of them refused, "
        "2 errors of the protocol"
    )
    with pytest.raises(ConnectError):
        MTA(spec).open()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["missing.py", "--socket", "unix:s"], "missing.py: no such file"),
        (["{example}", "--socket", "x25:1"], "cannot serve x25:1"),
        (["{example}", "--socket", "unix:/nonexistent/s"], "cannot serve unix:/nonexistent/s"),
        (["{example}", "--socket", "unix:s", "--owner", "no such user"], "no such user"),
        (["{example}", "--socket", "unix:s", "--limit", "packet=99999999999"], "limits: packet"),
    ],
)
def test_run_errors_are_one_line(tmp_path, arguments, error):
    filled = [each.format(example=EXAMPLES / "house_rules.py") for each in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "Milter", "run", *filled],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("milterkit: ")
    assert error in done.stderr
    assert done.stderr.count("\n") == 1


def test_output_into_a_closed_pipe(filter_spec, write):
    read, write_end = os.pipe()
    os.close(read)
    with os.fdopen(write_end, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "Milter", "send", "--socket", filter_spec, write("fine")],
            stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


# --------------------------------------------------------------------------------------- demo


def test_demo():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "1-plain.eml: accepted",
        "  +Subject: [external] Lunch on Friday?",
        "2-no-such-person.eml: rejected at rcpt: "
        "550 5.1.1 The intern has left; write to jobs@example.org",
        "  -RCPT TO:<intern@example.org>",
        "  -The list is at http://intranet.example.org/phones",
        "  +The list is at https://intranet.example.org/phones",
        "  +Subject: [external] Grüße, and the new",
        "5-lottery.eml: discarded",
        "6-password.eml: quarantined: asks for a password",
        "  +X-House-Rules: checked",
    ):
        assert line in done.stdout.splitlines()
