"""`milterkit` at the prompt: wrong options, what can be loaded, where errors are, what it says."""

from __future__ import annotations

import ast
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import Milter
import milter
import pytest
from fake import FakeFilter, answer
from Milter.checking.program import undone
from Milter.cli import main
from Milter.cli.exits import CommandError
from Milter.cli.load import load, load_filter, target_of
from Milter.testing import MTA

FILTER = """
import Milter
class Mine(Milter.Base):
    def eom(self):
        self.addheader("X-Mine", "yes")
        return Milter.CONTINUE
"""
MESSAGE = b"From: a@b\nTo: c@d\nSubject: hello\n\nhi\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder to work in; what is imported goes after each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    Path("m.eml").write_bytes(MESSAGE)
    modules = sys.modules.copy()
    yield tmp_path
    for name in set(sys.modules) - set(modules):
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if origin.startswith(str(tmp_path)):
            del sys.modules[name]


def write(files: Mapping[str, str] = {}, **more: str) -> None:
    """Writes files; .py is added to their names."""
    for name, text in {**files, **more}.items():
        path = Path(f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextmanager
def running(
    *arguments: str, command: tuple[str, ...] = ("-m", "Milter", "run")
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A program that serves; its lines up to that, and once it was stopped all of them."""
    with subprocess.Popen(
        [sys.executable, *command, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        lines: list[str] = []
        try:
            assert process.stderr
            for line in process.stderr:
                lines.append(line)
                if " serving at " in line:
                    break
            yield process, lines
            process.send_signal(signal.SIGTERM)
            out, rest = process.communicate(timeout=30)
            lines += rest.splitlines(keepends=True)
            assert (out, process.returncode) == ("", 0), lines
        finally:
            process.kill()


# ------------------------------------------------------------------------------- wrong options


@pytest.mark.parametrize(
    ("arguments", "wrong", "usage"),
    [
        ("send --sockt unix:s m.eml", "milterkit send: --sockt: there is no such option; did you "
         "mean --socket?", "usage: milterkit send "),
        ("send --prof postfix --to s", "milterkit send: --prof: there is no such option; did you "
         "mean --profile?", "usage: milterkit send "),
        ("send --xyz --to s", "milterkit send: --xyz: there is no such option",
         "usage: milterkit send "),
        ("send --to unix:s --profile sendmial m.eml", "milterkit send: argument --profile: "
         "'sendmial' is not one of: postfix, sendmail; did you mean sendmail?",
         "usage: milterkit send "),
        ("sned m.eml", "milterkit: argument COMMAND: 'sned' is not one of: run, send, check, "
         "record, replay; did you mean send?", "usage: milterkit COMMAND "),
        ("run f.py --sokcet unix:s", "milterkit run: --sokcet: there is no such option; did you "
         "mean --socket? (write -- before options of f.py itself)", "usage: milterkit run "),
        ("run --socket unix:s", "milterkit run: the following arguments are required: "
         "FILE.py[:NAME]|MODULE:NAME", "usage: milterkit run "),
        ("replay --to unix:s", "milterkit replay: the following arguments are required: FILE",
         "usage: milterkit replay "),
    ],
)  # fmt: skip
def test_a_wrong_option(
    arguments: str, wrong: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    first, second, *rest = err.splitlines()
    assert (out, first.split(", ARGUMENT")[0], rest) == ("", wrong, [])
    assert second.startswith(usage)


# ------------------------------------------------------------------------------ what is loaded


def test_a_folder() -> None:
    write({"app/__main__": FILTER, "empty/other": ""})
    assert load_filter("app").__name__ == "Mine"
    with pytest.raises(CommandError, match=r"empty: it is a folder without __main__\.py"):
        load_filter("empty")


SCRIPT = """#!/usr/bin/python3
import re
import sys
from installed.daemon import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""
DAEMON = """
import argparse, sys
import Milter
class Mine(Milter.Base):
    word = ""
    def eom(self):
        self.addheader("X-Mine", self.word)
        return Milter.CONTINUE
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--word")
    Mine.word = parser.parse_args().word
    Milter.factory = Mine
    Milter.runmilter("mine", "unix:own.sock", 60)
"""


def test_a_script_of_setuptools(capsys: pytest.CaptureFixture[str]) -> None:
    """It has no .py, its filter is elsewhere, and its options come behind its name."""
    write({"installed/daemon": DAEMON, "installed/__init__": ""})
    Path("my-milter").write_text(SCRIPT)
    with running("my-milter", "--word", "there") as (_, lines), MTA("own.sock") as mta:
        assert b"X-Mine: there" in mta.send(MESSAGE).message
    assert "Mine: serving at unix:own.sock" in lines[0]
    assert not Path("__pycache__").exists()
    assert main(["check", "--quiet", "my-milter", "--word", "x"]) == 0
    assert main(["check", "my-milter", "--", "--word", "x"]) == 0
    assert "smtpd_milters = unix:own.sock" in capsys.readouterr().out


def test_a_module() -> None:
    write({"package/filters": "from .words import WORD\n" + FILTER, "package/__init__": "",
           "package/words": "WORD = 1"})  # fmt: skip
    assert load_filter("package.filters:Mine").__name__ == "Mine"
    assert target_of("package.filters:Mine").__name__ == "Mine"  # type: ignore[union-attr]
    write(single=FILTER)
    assert load_filter("single:Mine").__name__ == "Mine"
    with pytest.raises(CommandError, match="there is no such file, and no module of that name"):
        load_filter("nosuchmodule:Mine")
    with pytest.raises(CommandError, match="there is no Other in it; there is: Mine"):
        load_filter("single:Other")
    with pytest.raises(CommandError, match=r"relative import.* \(write it as package\.module:NAME"):
        load_filter("package/filters.py")
    with pytest.raises(CommandError, match=r"package\.filters: no such file \(a module is written"):
        load_filter("package.filters")
    assert target_of("unix:Mine") == "unix:Mine"


def test_a_file_beside_a_package_of_its_name() -> None:
    write({"foo": "import foo.part\n" + FILTER, "foo/part": "", "foo/__init__": ""})
    assert load_filter("foo.py").__name__ == "Mine"
    assert sys.modules["foo"].__file__ == str(Path("foo/__init__.py").absolute())


def test_a_file_keeps_the_name_that_it_is_imported_by() -> None:
    """So that what it hands to other processes is found there."""
    write(alone=FILTER)
    assert load_filter("alone.py").__module__ == "alone"


def test_what_a_program_chooses() -> None:
    write(two=FILTER + "class Other(Milter.Base): pass\nMilter.factory = Other\n"
          "Milter.runmilter('x', 'unix:two.sock')\n1 / 0\n")  # fmt: skip
    before = Milter.factory
    loaded = load("two.py")
    assert loaded.serving().__name__ == "Other"
    assert loaded.socket == "unix:two.sock"
    assert Milter.factory is before


# ---------------------------------------------------------------------- where errors are


def test_an_error_in_a_module_that_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    write(f="import helper\n" + FILTER, helper="\n\nx = y\n")
    assert main(["send", "--to", "f.py", "m.eml"]) == 1
    assert capsys.readouterr().err == (
        "milterkit: helper.py, line 3: NameError: name 'y' is not defined\n"
    )
    assert main(["check", "--traceback", "f.py"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "Traceback (most recent call last):"
    assert any('f.py", line 1, in <module>' in line for line in err)
    assert err[-1] == "milterkit: helper.py, line 3: NameError: name 'y' is not defined"


RAISES = """
import json
import Milter
class Mine(Milter.Base):
    def envfrom(self, sender, *params):
        return json.loads("{")
    def eom(self):
        return self.addheader("", "x")
class Forgets(Milter.Base):
    def eom(self):
        pass
"""


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("f.py:Mine", "at mail: the filter raised JSONDecodeError: .* (f.py, line 6)"),
        ("g.py", "at eom: the filter raised error: .* (g.py, line 8)"),
        ("f.py:Forgets", "at eom: the filter raised error: The eom callback must return int, not "
         "None (f.py, line 10)"),
    ],
)  # fmt: skip
def test_an_error_points_at_the_authors_line(
    target: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(f=RAISES, g=RAISES.replace('json.loads("{")', "0").split("class Forgets")[0])
    assert main(["send", "--to", target, "m.eml"]) == 14
    err = capsys.readouterr().err
    pattern = ".*".join(re.escape(each) for each in f"milterkit: m.eml: {wrong}\n".split(".*"))
    assert re.fullmatch(pattern, err), err
    assert main(["send", "--traceback", "--to", target, "m.eml"]) == 14
    err = capsys.readouterr().err
    assert re.search(pattern, err)
    assert ("Traceback" in err) or "must return" in wrong


# --------------------------------------------------------------------------- what run says


def test_the_socket_of_the_file() -> None:
    write(f=FILTER + 'if __name__ == "__main__":\n    where = "unix:own.sock"\n'
          '    Milter.factory = Mine\n    Milter.runmilter("mine", where, 60)\n')  # fmt: skip
    with running("f.py") as (_, lines), MTA("own.sock") as mta:
        assert mta.send(MESSAGE).verdict == "accepted"
    assert re.search(r"Milter INFO Mine: serving at unix:own\.sock$", lines[0])
    assert "WARNING" not in "".join(lines)
    assert "Mine: stopped: 1 messages, 1 connections, " in lines[-1]


def test_a_program_that_serves_in_a_thread() -> None:
    write(f=FILTER + "import threading\ndef serve():\n"
          "    Milter.Server(lambda: Mine(), 'unix:' + 'own.sock').serve_forever()\n"
          "served = threading.Thread(target=serve)\nserved.start()\nserved.join()\n")  # fmt: skip
    with running("f.py") as (_, lines), MTA("own.sock") as mta:
        assert mta.send(MESSAGE).verdict == "accepted"
    assert " serving at unix:own.sock" in lines[0]


def test_a_server_that_cannot_listen_says_nothing_of_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(milter.error, match="nowhere"):
        Milter.Server(Milter.Base, "unix:nowhere/s").serve_forever()
    assert caplog.messages == []


def test_no_socket(capsys: pytest.CaptureFixture[str]) -> None:
    write(f=FILTER)
    assert main(["run", "f.py"]) == 2
    assert "f.py: it does not say where to listen: give --socket" in capsys.readouterr().err


def test_all_addresses() -> None:
    write(f=FILTER)
    with running("f.py", "--socket", "inet:0") as (_, lines):
        at = re.search(r"inet:\d+@127\.0\.0\.1", lines[0])
        assert at
        with MTA(at[0]) as mta:
            mta.send(MESSAGE)
        assert re.search(r"at inet:\d+@\[0\.0\.0\.0\], on all addresses of this machine \(inet:\d+"
                         r"@127\.0\.0\.1 is for itself alone\)$", lines[0])  # fmt: skip


MORE = """
def main():
    import sys
    print("starting")
    {}
    Milter.factory = Mine
    Milter.set_flags(Milter.ADDHDRS)
    Milter.runmilter("mine", "unix:own.sock", 600)
if __name__ == "__main__":
    main()
"""


def test_what_is_not_run_is_named() -> None:
    write(f=FILTER + MORE.format("Mine.table = open('table').read()"))
    with running("f.py") as (_, lines), MTA("own.sock") as mta:
        mta.send(MESSAGE)
    assert "WARNING f.py, line 11: what it does as a program before it serves is not done here: " \
        "Mine.table = open('table').read(); run it by python, or " in lines[0]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("pass", False), ("name = 'x'", False), ("milter.setconn('unix:s')", False),
        ("cache.load()", True), ("os.umask(0o007)", True), ("del x", True),
        ("for x in y: z()", True), ("Mine.words = read('words')", True),
        ("with Milter.Server(Mine, 's') as server: server.join()", False),
        ("with Milter.Server(Mine, 's') as server: prepare()", True),
        ("try:\n        pass\n    finally:\n        clean()", True),
    ],
)  # fmt: skip
def test_which_statements_are_more(statement: str, named: bool) -> None:
    found = undone(ast.parse(MORE.format(statement)))
    assert bool(found) == named


def test_a_line_for_each_message() -> None:
    write(
        f="""
import Milter
class Mine(Milter.Base):
    def connect(self, name, family, address):
        return Milter.REJECT if name == "bad" else Milter.CONTINUE
    def envrcpt(self, rcpt, *params):
        return Milter.TEMPFAIL if rcpt == "<later@d>" else Milter.CONTINUE
    def header(self, name, value):
        self.word = value
        return Milter.CONTINUE
    def eom(self):
        if self.word == "hold":
            self.quarantine("why")
        if self.word == "raise":
            raise ValueError(1)
        return {"drop": Milter.DISCARD, "no": Milter.REJECT}.get(self.word, Milter.CONTINUE)
"""
    )
    with running("f.py", "--socket", "unix:s", "--log-messages") as (_, lines), MTA("s") as mta:
        for word in (b"fine", b"hold", b"fine", b"drop", b"no", b"raise"):
            mta.send(b"A: " + word + b"\n\nhi\n", rcpts=["c@d"])
        mta.send(MESSAGE, rcpts=["later@d", "c@d"])
        mta.send(MESSAGE, client="bad[192.0.2.1]")
    told = [re.sub(".*connection [0-9]+ ", "", line).strip() for line in lines if " at " in line
            and "connection " in line]  # fmt: skip
    assert told == [
        "(localhost), queue id QUEUEID001: accepted at eom",
        "(localhost), queue id QUEUEID002: quarantined at eom",
        "(localhost), queue id QUEUEID003: accepted at eom",
        "(localhost), queue id QUEUEID004: discarded at eom",
        "(localhost), queue id QUEUEID005: rejected at eom",
        "(localhost), queue id QUEUEID006: tempfailed at eom",
        "(localhost): tempfailed at envrcpt",
        "(localhost), queue id QUEUEID007: accepted at eom",
        "(bad): rejected at connect",
    ]
    with running("f.py", "--socket", "unix:s") as (_, lines), MTA("s") as mta:
        mta.send(MESSAGE)
    assert not any(" at eom" in line for line in lines)


PROGRAM = (
    FILTER
    + """
import logging, sys
if "log" in sys.argv:
    logging.basicConfig(level="INFO")
else:
    print(" serving at ", file=sys.stderr, flush=True)
Milter.factory = Mine
Milter.runmilter("mine", "unix:own.sock", 60)
"""
)


@pytest.mark.parametrize("log", ["log", ""])
def test_runmilter_says_where(log: str) -> None:
    """By logging alone: nothing on standard output, and nothing where nobody has set it up."""
    write(f=PROGRAM)
    with running(log, command=("f.py",)) as (_, lines), MTA("own.sock", wait=30) as mta:
        mta.send(MESSAGE)
    assert lines == ([
        "INFO:Milter:mine: serving at unix:own.sock\n",
        "INFO:Milter:mine: stopped: 1 messages, 1 connections, 0 of them refused, 0 errors of the "
        "protocol\n",
    ] if log else [" serving at \n"])  # fmt: skip


def test_names(caplog: pytest.LogCaptureFixture) -> None:
    class Mine(Milter.Base):
        pass

    def make() -> Mine:
        return Mine()

    with caplog.at_level(logging.INFO, "Milter"):
        for factory in (Mine, make, lambda: Mine()):  # noqa: PLW0108
            Milter.Server(factory, "inet:0@127.0.0.1").start().stop(30)
    names = [each.getMessage().split(":")[0] for each in caplog.records]
    assert names == ["Mine", "Mine", "make", "make", "test_prompt", "test_prompt"]


def test_the_name_of_a_program_without_a_name() -> None:
    write(
        {
            "my.old-filter": """
import sys
import milter
def eom(ctx): raise ValueError
milter.set_eom_callback(eom)
milter.setconn("unix:own.sock")
milter.opensocket(True)
print(" serving at ", file=sys.stderr, flush=True)
milter.main()
"""
        }
    )
    with running(command=("my.old-filter.py",)), MTA("own.sock") as mta:
        result = mta.send(MESSAGE)
    assert str(result.reply) == "451 4.3.0 my.old-filter: error in the mail filter"


# -------------------------------------------------------------------------------------- send


def envelope(text: bytes) -> tuple[bytes, list[bytes]]:
    """Sender and recipients that `send` gives to a filter."""
    seen: list[bytes] = []

    class Seeing(Milter.Base):
        def envfrom_bytes(self, sender: bytes, *params: bytes) -> int:
            seen.append(sender)
            return Milter.CONTINUE

        def envrcpt_bytes(self, rcpt: bytes, *params: bytes) -> int:
            seen.append(rcpt)
            return Milter.CONTINUE

    Path("x.eml").write_bytes(text)
    with Milter.Server(Seeing, "unix:seeing") as server:
        assert main(["send", "--quiet", "--to", str(server.address), "x.eml"]) == 0
    return seen[0], seen[1:]


@pytest.mark.parametrize(
    ("header", "sender", "rcpts"),
    [
        (b"From: <j\xc3\xb6rg@d>\nTo: M <m\xfcller@d>\nCc: \xff@d", b"<j\xc3\xb6rg@d>",
         [b"<m\xfcller@d>", b"<\xff@d>"]),
        (b"Return-Path: <r@d>\nFrom: a@b\nTo: c@d", b"<r@d>", [b"<c@d>"]),
        (b"RETURN-PATH: <>\nFrom: a@b\nTo: c@d,\n e@f", b"<>", [b"<c@d>", b"<e@f>"]),
        (b"Return-Path: \nFrom: =?utf-8?q?J=C3=B6rg?= <a@b>", b"<a@b>", [b"<nobody@example.org>"]),
        (b"Subject: x", b"<nobody@example.org>", [b"<nobody@example.org>"]),
    ],
)  # fmt: skip
def test_addresses_keep_their_bytes(header: bytes, sender: bytes, rcpts: list[bytes]) -> None:
    assert envelope(header + b"\n\nhi\n") == (sender, rcpts)


def test_the_trace_of_a_session_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeFilter("s", {b"M": answer(b"?")}) as fake:
        assert main(["send", "--trace", "--to", fake.spec, "m.eml"]) == 14
    out, err = capsys.readouterr()
    assert err.startswith("milterkit: m.eml: protocol error at mail: ")
    assert re.search(r"^  mail +<a@b>", out, re.MULTILINE)
    assert "  > MAIL <a@b>\n" in out
    with FakeFilter("t", {b"O": None}) as fake:
        assert main(["send", "--trace", "--to", fake.spec, "m.eml"]) == 14
    assert "  > OPTNEG version 6 " in capsys.readouterr().out


def test_wait_for_the_socket(capsys: pytest.CaptureFixture[str]) -> None:
    """As after `milterkit run ... &`: there is no file yet, then one that nobody answers on."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind("s")
    for file in ("s", "t"):
        served = Milter.Server(Milter.Base, f"unix:{file}")
        timer = threading.Timer(0.1, served.start)
        timer.start()
        try:
            assert main(["send", "--wait", "60", "--to", f"unix:{file}", "m.eml"]) == 0
        finally:
            timer.join()
            served.stop(30)
    capsys.readouterr()
    assert main(["send", "--wait", "0", "--to", "unix:none", "m.eml"]) == 15


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    assert main(["replay", "out", "--to", "unix:s"]) == 3
    assert capsys.readouterr().err == "milterkit: out: there is no recorded session in it\n"
    Path("box/new").mkdir(parents=True)
    assert main(["send", "box", "--to", "unix:s"]) == 3
    assert capsys.readouterr().err == "milterkit: box: there is no message in it\n"


def test_protocol_version_5(capsys: pytest.CaptureFixture[str]) -> None:
    write(f=FILTER)
    assert main(["send", "--protocol-version", "5", "--json", "--to", "f.py", "m.eml"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "accepted"
    assert main(["send", "--protocol-version", "5", "--trace", "--to", "f.py", "m.eml"]) == 0
    assert "  > OPTNEG version 5 " in capsys.readouterr().out
