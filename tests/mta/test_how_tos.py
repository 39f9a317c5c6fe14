"""docs/postfix.md and docs/sendmail.md: the MTAs take the settings as the pages show them, and a
message goes through the filter that the page shows."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import postfix
import pytest
import sendmail
from mta import Mta, wait_for

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, file: str) -> list[str]:
    """What a page shows of a file."""
    return re.findall(rf"^```\w+ {file}\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


@contextmanager
def serving(page: str, folder: Path, *sockets: str) -> Iterator[None]:
    """The page's filter at some sockets."""
    [code] = blocks(page, "filter.py")
    (folder / "filter.py").write_text(code)
    run = [sys.executable, "-m", "Milter", "run", str(folder / "filter.py"), "--socket"]
    with ExitStack() as stack:
        for number, each in enumerate(sockets):
            log = folder / f"log{number}"
            with log.open("wb") as file:
                process = subprocess.Popen([*run, each], stdout=file, stderr=file, umask=0)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wait_for(f"{each} to serve", lambda log=log: " serving " in log.read_text())
        yield


def clients(mta: Mta, service: str) -> list[str]:
    """What the filters told of the client in a message that was delivered."""
    headers = mta.delivered(mta.submit(service)).headers
    return [line for line in headers if line.startswith("X-Client: ")]


# ---------------------------------------------------------------------------------------- Postfix

MAIN = [
    dict(re.findall(r"^(\w+) = ?(.*(?:\n[ \t].*)*)", each, re.M))
    for each in blocks("postfix.md", "main.cf")
]
[MASTER] = blocks("postfix.md", "master.cf")
FROM_HERE = {"smtpd_milter_maps": "inline:{ 127.0.0.1=DISABLE }"}  # 192.0.2.1 on the page


class ShownPostfix(postfix.Postfix):
    """A Postfix with a service for each group of settings on the page."""

    services = ("plain", "first", "braces", "left out", "unix", "master")

    def start(self) -> None:
        first, braces, left_out, unix = MAIN
        assert left_out["smtpd_milter_maps"].replace("192.0.2.1", "127.0.0.1") in FROM_HERE.values()
        shown = {"plain": {}, "first": first, "braces": braces, "unix": unix}
        shown["left out"] = {**first, **FROM_HERE}
        lines = [postfix.MASTER_CF]
        for name, settings in shown.items():
            lines.append(f"127.0.0.1:{self.ports[name]} inet n - n - - smtpd\n")
            lines += [f"    -o {{ {key} = {value} }}\n" for key, value in settings.items()]
        # Nothing is in a chroot here.
        service = MASTER.replace("submission inet n       -       y", "{} inet n - n", 1)
        lines.append(service.replace("{}", f"127.0.0.1:{self.ports['master']}", 1))
        text = "".join(lines).replace("127.0.0.1:8894", f"127.0.0.1:{self.inet}")
        (self.etc / "master.cf").write_text(text)
        (self.folder / "queue" / "milterkit").mkdir()
        self._postfix("start")


@pytest.fixture(scope="module")
def shown() -> Iterator[Mta]:
    if why := ShownPostfix.missing():
        pytest.skip(why)
    with ShownPostfix() as running:
        yield running


def test_postfix(shown: Mta, tmp_path: Path) -> None:
    folder = shown.folder / "queue" / "milterkit"
    sockets = (f"unix:{folder}/filter.sock", f"unix:{folder}/second.sock")
    with serving("postfix.md", tmp_path, f"inet:{shown.inet}@127.0.0.1", *sockets):
        found = {name: clients(shown, name) for name in shown.services}
    here = "X-Client: 127.0.0.1"
    assert found == {
        "plain": [], "first": [here], "braces": [here, here], "left out": [], "unix": [here],
        "master": [here],
    }  # fmt: skip


def test_postfix_knows_the_settings(shown: Mta) -> None:
    command = ["/usr/sbin/postconf", "-c", str(shown.folder / "etc"), "-P"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "smtpd_milter_maps" in done.stdout
    assert done.stderr == ""


@pytest.mark.usefixtures("shown")
def test_postfix_has_the_defaults_of_the_table() -> None:
    page = (DOCS / "postfix.md").read_text()
    rows = re.findall(r"^\| (`milter_\w+_macros`.*?) \| (.*) \|$", page, re.M)
    told = {
        name: value.replace("`", "")
        for names, value in rows
        for name in re.findall(r"milter_\w+_macros", names)
    }
    command = ["/usr/sbin/postconf", "-d", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    defaults = dict(re.findall(r"^(\w+) = (.*)$", done.stdout, re.M))
    assert len(told) == 7
    assert {name: value.split() for name, value in defaults.items()} == {
        name: value.split() for name, value in told.items()
    }


# --------------------------------------------------------------------------------------- Sendmail

LINES = dict(zip(("first", "daemon", "unix"), blocks("sendmail.md", "sendmail.mc"), strict=True))
DAEMON = "DAEMON_OPTIONS(`Name=page, Addr=127.0.0.1, Port=587')dnl\n"


@pytest.mark.parametrize("which", LINES)
def test_sendmail(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shown(sendmail.Sendmail):
        services = ("plain", "page")

        def start(self) -> None:
            text = LINES[which] if "DAEMON" in LINES[which] else LINES[which] + DAEMON
            text = text.replace("Addr=127.0.0.1, ", "").replace(
                "Port=587", f"Addr=127.0.0.1, Port={self.ports['page']}"
            )
            text = text.replace("8894", str(self.inet))
            text = text.replace("/run/milterkit/filter.sock", str(self.one))
            text = text.replace("{", "{{").replace("}", "}}")
            monkeypatch.setattr(sendmail, "MC", original.replace("MAILER(local)", text + last))
            super().start()

    original, last = sendmail.MC, "MAILER(local)"
    monkeypatch.setattr(sendmail, "FILTERS", {})
    monkeypatch.setattr(sendmail, "SERVICES", {"plain": ""})
    if why := Shown.missing():
        pytest.skip(why)
    with (
        Shown() as mta,
        serving("sendmail.md", tmp_path, f"inet:{mta.inet}@127.0.0.1", f"unix:{mta.one}"),
    ):
        assert clients(mta, "plain") == []
        told = "127.0.0.1" if which == "first" else "unknown"
        assert clients(mta, "page") == [f"X-Client: {told}"]
