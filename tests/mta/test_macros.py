"""Milter.macros against the MTAs themselves: what they send by default, which macros they know,
from which stage on these have a value, and what the settings are called."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from Milter._wire import TO_FILTER, Decoder
from Milter.macros import MTAS, STAGES, Macro, written
from mta import Client, Mta
from postfix import Postfix
from sendmail import Sendmail
from sessions import SESSIONS, Session, record
from sessions import sent as sent_by

COMMANDS = dict(zip("CHMRTNEU", (*STAGES, "unknown"), strict=True))
LISTS = ("CONNECT", "HELO", "ENVFROM", "ENVRCPT", "DATA", "EOH", "EOM")  # as filters name stages
MOST = 50  # Sendmail sends none of a longer list


def of(value: Macro) -> int:
    """A macro's first stage as a number."""
    return STAGES.index(value.since)


def sent(data: bytes) -> Iterator[tuple[str, list[str]]]:
    """The macros in what an MTA sent: a packet's stage and names."""
    decoder = Decoder(TO_FILTER)
    decoder.feed(data)
    while packet := decoder.next():
        if packet[0] == b"D" and packet[1].decode() in COMMANDS:
            yield COMMANDS[packet[1].decode()], packet[2].decode().split("\0")[:-1:2]


def two_recipients(client: Client) -> None:
    client.command("FOO")
    client.run(rcpts=["<one@local.test>", "<two@local.test>"])


def test_defaults_of_postfix() -> None:
    """Those that the program itself names, for the setting of each stage."""
    if why := Postfix.missing():
        pytest.skip(why)
    postfix = MTAS["postfix"]
    said = subprocess.run(
        ["/usr/sbin/postconf", "-d", *postfix.settings.values()],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.splitlines() == [postfix.setting(stage) for stage in postfix.settings]


def test_defaults_of_sendmail(sendmail: Sendmail) -> None:
    """Those that m4 writes into the configuration where it is told nothing."""
    cf = (sendmail.folder / "mta.cf").read_text()
    found = {stage: tuple(names.split(", "))
             for stage, names in re.findall(r"(?m)^O Milter\.macros\.(\w+)=(.+)$", cf)}  # fmt: skip
    named = {"envfrom": "mail", "envrcpt": "rcpt"}
    assert {named.get(stage, stage): found[stage] for stage in found} == MTAS["sendmail"].sent


def test_setting_of_sendmail(sendmail: Sendmail, tmp_path: Path) -> None:
    """m4 takes a line with one more macro for each stage."""
    table = MTAS["sendmail"]
    lines = [table.setting(stage, ["{client_ptr}"]) for stage in STAGES]
    mc = (
        (sendmail.folder / "mta.mc")
        .read_text()
        .replace("FEATURE", "\n".join(lines) + "\nFEATURE", 1)
    )
    (tmp_path / "mta.mc").write_text(mc)
    cf = subprocess.run(["m4", tmp_path / "mta.mc"], check=True, capture_output=True, text=True)
    expected = [", ".join((*table.sent.get(stage, ()), "{client_ptr}")) for stage in STAGES]
    found = dict(re.findall(r"(?m)^O Milter\.macros\.(\w+)=(.+)$", cf.stdout))
    assert sorted(found.values()) == sorted(expected)
    assert found["eoh"] == "{client_ptr}"


def test_sent(mta: Mta, folder: Path) -> None:
    """Of a stage's default list those are sent that have a value by then and need nothing more."""
    table = MTAS[mta.name]
    expected = {
        stage: [
            name
            for name in names
            if stage in STAGES
            if of(table.known[name]) <= STAGES.index(stage)
            and table.known[name].when in ("", "the message came by SMTP")
        ]
        for stage, names in table.sent.items()
    }
    if mta.name == "postfix":  # tests/mta/postfix.py asks for these, by the setting
        expected["connect"] += ["{client_addr}", "{client_name}"]
    packets = sent(sent_by(record(mta, SESSIONS[0]._replace(client=two_recipients), folder), "mta"))
    found: dict[str, list[list[str]]] = {}
    for stage, names in packets:
        found.setdefault(stage, []).append(names)
    if mta.name == "postfix":
        # The id is there from the second recipient on, which no filter can wait for.
        assert found.pop("rcpt") == [expected.pop("rcpt"), list(table.sent["rcpt"])]
    else:
        assert found["rcpt"].pop() == expected["rcpt"]
    assert found == {stage: [names] for stage, names in expected.items()}


def test_known(mta: Mta, folder: Path) -> None:
    """Asked for each macro at each stage, it sends those that need nothing more from their first
    stage on, none earlier, and none that only the other MTA knows."""
    table = MTAS[mta.name]
    everybody = sorted({name for each in MTAS.values() for name in each.known})
    first: dict[str, int] = {}
    for number, start in enumerate(range(0, len(everybody), MOST)):
        names = " ".join(everybody[start : start + MOST])
        lists = [f"{stage}={names}" for stage in LISTS]
        session = Session("all", program=("symlists.py", *lists))
        for stage, found in sent(
            sent_by(record(mta, session, folder.with_name(str(number))), "mta")
        ):
            for name in found if stage in STAGES else ():
                first.setdefault(name, STAGES.index(stage))
    if mta.name == "sendmail":
        # The first message's at the connection already; a later one has its own from MAIL on.
        assert first["i"] == 0
        first["i"] = of(table.known["i"])
    always = {name: of(value) for name, value in table.known.items() if not value.when}
    assert {name: first.get(name) for name in always} == always
    assert first.keys() <= table.known.keys()
    assert all(first[name] >= of(table.known[name]) for name in first)


@pytest.mark.parametrize(
    ("given", "name"), [("i", "i"), ("{i}", "i"), ("{_}", "_"), ("{ab}", "{ab}"), ("j}", "j}")]
)
def test_written(given: str, name: str) -> None:
    assert written(given) == name
