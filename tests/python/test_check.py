"""`milterkit check`: what it finds, what it leaves alone, and what it says of a filter."""

import os
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from Milter.checking import CHECKS
from Milter.cli import main
from Milter.macros import MTAS
from mistakes import MISTAKES

EXAMPLES = Path(__file__).parents[2] / "examples"
FILTERS = Path(__file__).parents[1] / "mta" / "filters"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Runs `milterkit check --quiet` on a class with these methods, or on a whole file; returns
    what it finds as (line of the methods, text)."""
    monkeypatch.chdir(tmp_path)

    def run(methods, *options, whole=False):
        modules = "Milter, milter, time, io, functools, threading, sqlite3"
        before = f"import {modules}\nclass Filter(Milter.Base):\n"
        text = textwrap.dedent(methods).strip("\n")
        if not whole:
            text = before + textwrap.indent(text, "    ")
        (tmp_path / "filter.py").write_text(text + "\n")
        status = main(["check", "--quiet", "filter.py", *options])
        out, err = capsys.readouterr()
        assert err == ""
        assert status == (1 if out else 0)
        found = []
        for line in out.splitlines():
            file, number, told = line.split(":", 2)
            assert file == "filter.py"
            found.append((int(number) - (0 if whole else 2), told.strip()))
        return found

    return run


@pytest.mark.parametrize("name", MISTAKES)
def test_finds(check, name):
    methods, expected = MISTAKES[name]
    found = [(line, text) for line, text in check(methods) if text.endswith(f"[{name}]")]
    assert [line for line, _ in found] == [line for line, _ in expected]
    for (_, text), (_, piece) in zip(found, expected, strict=True):
        assert piece in text


def test_every_check_has_an_example():
    assert {*MISTAKES, "action"} == CHECKS.keys()


def test_every_check_is_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    _, table = page.split("| check | looks for |\n| --- | --- |\n")
    rows = [line.split("`")[1] for line in table.partition("\n\n")[0].splitlines()]
    assert rows == [*CHECKS]


LOW_LEVEL = """
import milter, sys
def hello(ctx): return milter.CONTINUE
def eom(ctx):
    helper("X", ctx)
    ctx.addrcpt("<a@b>", "NOTIFY=NEVER")
    ctx.getsymval("{client_port}")
    return milter.CONTINUE
def helper(name, it):
    it.addheader(name, "y")
    it.replacebody(b"")
    it.add_header(name, "y")
milter.set_flags(milter.ADDHDRS | milter.ADDRCPT)
milter.set_helo_callback(hello)
milter.set_eom_callback(eom)
milter.set_header_callback(lambda ctx, name, value: None)
milter.setconn("inet:1234@127.0.0.1")
milter.main()
sys.exit("it was started")
"""


def test_low_level(check):
    assert [(line, text.split(":")[0]) for line, text in check(LOW_LEVEL, whole=True)] == [
        (2, "hello is called with one argument after the context, which it does not take "
            "[signature]"),
        (5, "addrcpt needs ADDRCPT_PAR, which set_flags leaves out"),
        (6, "macro {client_port} in eom"),
        (10, "replacebody needs CHGBODY, which set_flags leaves out"),
        (11, "it.add_header does not exist"),
        (15, "header returns None, which is no verdict"),
    ]  # fmt: skip


def test_lambda_is_a_callback(check):
    text = "import milter\nmilter.set_eoh_callback(lambda ctx: None)\n"
    [(line, told)] = check(text, whole=True)
    assert line == 2
    assert told.startswith("eoh returns None")


def test_factory(check, capsys):
    text = """
    import Milter
    class Filter(Milter.Base):
        def __init__(self, limit): self.limit = limit
        def eom(self): return None
    def make(): return Filter(3)
    """
    assert [told.split("[")[-1] for _, told in check(text, whole=True)] == ["init]", "verdict]"]
    assert main(["check", "--quiet", "filter.py:make"]) == 1
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    "served", ["Milter.factory = lambda: Filter(3)", "Milter.Server(lambda: Filter(3), 'inet:1')"]
)
def test_a_program_with_a_factory(check, served):
    text = f"""
    import Milter
    class Filter(Milter.Base):
        def __init__(self, limit): self.limit = limit
    {served}
    """
    assert check(text, whole=True) == []


def test_sqlite_of_the_module(check):
    text = """
    import Milter, sqlite3
    DB = sqlite3.connect(":memory:")
    SHARED = sqlite3.connect(":memory:", check_same_thread=False)
    class Filter(Milter.Base):
        def eom(self): return DB.execute("") and SHARED.execute("") and Milter.CONTINUE
    """
    [(line, told)] = check(text, whole=True)
    assert (line, told.partition(",")[0]) == (2, "DB is a connection of sqlite3")


def test_one_mta(check):
    methods = 'def eom(self): return self.getsymval("{if_name}") and Milter.CONTINUE'
    assert check(methods, "--mta", "sendmail") == []
    assert len(check(methods, "--mta", "postfix")) == 1


@pytest.mark.parametrize("file", ["house_rules.py"])
def test_examples_are_fine(file, capsys):
    assert main(["check", str(EXAMPLES / file)]) == 0
    assert "Nothing was found to be wrong." in capsys.readouterr().out


SUBJECT = """
import Milter
@Milter.rejected_recipients
class Filter(Milter.Base):
    @Milter.symlist("{client_ptr}")
    @Milter.noreply
    def connect(self, *args): return Milter.CONTINUE
    def eom(self):
        self.getsymval("{client_port}")
        self.quarantine("x")
        return Milter.CONTINUE
if __name__ == "__main__":
    Milter.runmilter("it", "inet6:99@::1")
"""


def test_negotiation_and_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my filter.py").write_text(SUBJECT)
    assert main(["check", "my filter.py"]) == 1
    out = capsys.readouterr().out
    for line in (
        "my filter.py: class Filter",
        "  steps:       connect, eom",
        "  left out:    hello, envfrom, envrcpt, data, header, eoh, body, unknown",
        "  no reply to: connect",
        "  actions:     all that the MTA offers",
        "  changes:     hold messages",
        "  macros read: {client_port}",
        "  asked for:   connect: {client_ptr}",
        "  also:        sees recipients that the MTA has refused itself",
        "  smtpd_milters = inet:[::1]:99",
        "  milter_connect_macros = j {daemon_name} {daemon_addr} v _ {client_port}",
        "    -o { milter_connect_macros = j {daemon_name} {daemon_addr} v _ {client_port} }",
        "  INPUT_MAIL_FILTER(`my-filter', `S=inet6:99@::1, F=T, T=C:10s;S:10s;R:10s;E:5m')dnl",
        "  define(`confMILTER_MACROS_CONNECT', `j, _, {daemon_name}, {if_name}, {if_addr}, "
        "{client_port}')dnl",
    ):
        assert line in out.splitlines()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "filter.py: no such file"),
        ("def x(:", "filter.py, line 1: invalid syntax"),
        ("1 / 0", "filter.py, line 1: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", "filter.py: it ended while it was loaded, by exit 3"),
        ("import sys\nsys.argv[1]", "filter.py, line 2: IndexError: list index out of range"),
        ("x = 1", "filter.py: no class in it is derived from Milter.Base, and no callback is set"),
        (
            "import Milter\ndef x(): raise OSError('none')",
            "filter.py, line 2: x() raised OSError: none",
        ),
        (
            "import Milter\ndef x(y): pass",
            "filter.py: x() raised TypeError: x() missing 1 required positional argument: 'y'",
        ),
        (
            "import Milter\nclass Filter(Milter.Base):\n  @Milter.decode('latin-1')\n"
            "  def header(self, name, value): return Milter.CONTINUE",
            "filter.py, line 3: ValueError: @decode('latin-1'): it must be 'bytes', 'strict', "
            "'ignore', 'replace' or 'surrogateescape'; all but 'bytes' decode UTF-8",
        ),
    ],
)
def test_what_cannot_be_read(tmp_path, monkeypatch, capsys, text, error):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("filter.py").write_text(text)
    target = "filter.py:x" if text and "\ndef x(" in text else "filter.py"
    assert main(["check", target]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"milterkit: {error}\n")


def test_arguments_of_a_program():
    assert main(["check", "--quiet", str(FILTERS / "symlists.py"), "x", "y", "CONNECT=j"]) == 0


@pytest.mark.parametrize(
    "way",
    [
        "Milter.runmilter('x', {0!r})",
        "Milter.Server(Filter, {0!r}).start()",
        "milter.setconn({0!r}); milter.opensocket(True)",
    ],
)
def test_nothing_is_served(check, tmp_path, way):
    spec = f"unix:{tmp_path}/socket"
    text = "import Milter, milter\nclass Filter(Milter.Base):\n  pass\n" + way.format(spec)
    assert check(text + "\n1 / 0", whole=True) == []
    assert not (tmp_path / "socket").exists()


def test_postfix_reads_the_lines(tmp_path, monkeypatch, capsys):
    """main.cf and master.cf as Postfix itself understands them."""
    postconf = shutil.which("postconf", path=f"{os.environ['PATH']}:/usr/sbin")
    if postconf is None:
        pytest.skip("Postfix is not installed")
    monkeypatch.chdir(tmp_path)
    Path("filter.py").write_text(SUBJECT)
    main(["check", "filter.py", "--mta", "postfix", "--socket", "unix:/run/x"])
    groups = [group.splitlines() for group in capsys.readouterr().out.split("\n\n")]
    main_cf = next(group[1:] for group in groups if group[0].startswith("Postfix, main.cf"))
    master = next(group[1:] for group in groups if group[0].startswith("Postfix, master.cf"))
    Path("main.cf").write_text("\n".join(each.strip() for each in main_cf) + "\n")
    Path("master.cf").write_text("smtp inet n - n - - smtpd\n" + "\n".join(master) + "\n")

    environment = {name: each for name, each in os.environ.items() if name != "LD_PRELOAD"}

    def postfix(*options):
        command = [postconf, "-c", str(tmp_path), *options]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout

    macros = MTAS["postfix"].setting("connect", ["{client_port}"])
    said = postfix("-n").splitlines()
    assert {"smtpd_milters = unix:/run/x", "milter_default_action = tempfail", macros} <= {*said}
    assert postfix("-P", "smtp/inet/milter_connect_macros").strip() == f"smtp/inet/{macros}"
    assert postfix("-P", "smtp/inet/smtpd_milters") == "smtp/inet/smtpd_milters = unix:/run/x\n"
