"""What callbacks return, and what the MTA gets for it: verdicts, wrong results, exceptions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Program, start_program
from .differences import expected
from .mta import Closed, Mta, inet, strings

# The client's name tells this filter what to return where: "step=result".
TOLD = """
import milter
class Told(Milter.Base):
    step, result = "", "0"
    def tell(self, step):
        if step != self.step:
            return Milter.CONTINUE
        if self.result.startswith("raise "):
            raise {"error": ValueError, "interrupt": KeyboardInterrupt, "exit": SystemExit}[
                self.result[6:]
            ]("boom")
        return eval(self.result)
    def connect(self, hostname, family, hostaddr):
        self.step, self.result = hostname.split("=")
        return self.tell("connect")
    def hello(self, name): return self.tell("hello")
    def envfrom(self, f, *params): return self.tell("envfrom")
    def envrcpt(self, to, *params): return self.tell("envrcpt")
    def data(self): return self.tell("data")
    def header(self, field, value): return self.tell("header")
    def eoh(self): return self.tell("eoh")
    def body(self, chunk): return self.tell("body")
    def unknown(self, cmd): return self.tell("unknown")
    def eom(self): return self.tell("eom")
    def abort(self):
        record("abort")
        return self.tell("abort")
    def close(self):
        record("close")
        return self.tell("close")
import os
if "POLICY" in os.environ:
    milter.set_exception_policy(int(os.environ["POLICY"]))
if "FLAGS" in os.environ:
    milter.set_flags(int(os.environ["FLAGS"]))
run(Told)
"""

# Each step's command, and what an MTA sends before it.
STEPS: dict[str, tuple[str, bytes]] = {
    "hello": ("H", strings("me")),
    "unknown": ("U", strings("FOO")),
    "envfrom": ("M", strings("<a@b>")),
    "envrcpt": ("R", strings("<c@d>")),
    "data": ("T", b""),
    "header": ("L", strings("X", "v")),
    "eoh": ("N", b""),
    "body": ("B", b"text"),
    "eom": ("E", b""),
}

VERDICTS = {"CONTINUE": "c", "REJECT": "r", "DISCARD": "d", "ACCEPT": "a", "TEMPFAIL": "t"}

Reply = str | tuple[str, bytes]

OURS = pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)


def replies(mta: Mta, step: str, result: str, protocol: int = 0x1FFFFF) -> dict[str, Reply]:
    """What the filter answers to each step up to `step`, where it returns `result`."""
    mta.negotiate(protocol=protocol)
    got = {"connect": mta.step("C", inet(f"{step}={result}", "127.0.0.1", 1))}
    for name, (command, data) in STEPS.items():
        if step in got:
            break
        got[name] = mta.step(command, data)
    return got


@pytest.fixture(scope="module", params=["oracle", "ours-lowlevel", "ours-fast"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Told = Callable[..., Program]


@pytest.fixture(scope="module")
def told(implementation: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The filter that does as it is told: one process for each environment."""
    programs: dict[Any, Program] = {}

    def get(**env: Any) -> Program:
        key = tuple(sorted(env.items()))
        if key not in programs:
            folder = tmp_path_factory.mktemp("told")
            programs[key] = start_program(implementation, folder, TOLD, tracebacks=True, **env)
        return programs[key]

    yield get
    for program in programs.values():
        program.finish()


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("step", ["connect", *STEPS])
def test_verdicts(told: Told, step: str, verdict: str) -> None:
    got = replies(told().connect(), step, f"Milter.{verdict}")
    assert got.pop(step) == VERDICTS[verdict]
    assert set(got.values()) <= {"c"}


@pytest.mark.parametrize("step", ["envfrom", "envrcpt"])
def test_a_refused_command_is_not_the_end(told: Told, step: str) -> None:
    """A refusal is for this sender or recipient: the MTA may go on with the next."""
    mta = told().connect()
    assert replies(mta, step, "Milter.REJECT")[step] == "r"
    assert mta.step(*STEPS[step]) == "r"


def test_skip(told: Told, implementation: str) -> None:
    mta = told().connect()
    assert replies(mta, "body", "Milter.SKIP")["body"] == "s"
    assert mta.step("E") == "c"
    mta = told().connect()
    got = replies(mta, "body", "Milter.SKIP", protocol=0x1FFFFF & ~0x400)
    assert got["body"] == expected(implementation, "SKIP that was not negotiated")


@pytest.mark.parametrize("step", ["connect", *STEPS])
@pytest.mark.parametrize("policy", ["default", "TEMPFAIL", "REJECT", "CONTINUE", "ACCEPT"])
def test_exceptions(told: Told, policy: str, step: str) -> None:
    codes = {"TEMPFAIL": "4", "REJECT": "1", "CONTINUE": "0", "ACCEPT": "3"}
    env = {} if policy == "default" else {"POLICY": codes[policy]}
    reply = replies(told(**env).connect(), step, "raise error")[step]
    if policy in ("CONTINUE", "ACCEPT"):
        assert reply == VERDICTS[policy]
        return
    assert isinstance(reply, tuple)
    code = b"554 5.3.0 " if policy == "REJECT" else b"451 4.3.0 "
    assert reply[0] == "y"
    assert reply[1].startswith(code)
    assert reply[1].endswith(b"\0")
    assert b"testfilter" in reply[1]


@pytest.mark.parametrize("kind", ["error", "interrupt"])
def test_the_connection_goes_on_after_an_exception(told: Told, kind: str) -> None:
    mta = told().connect()
    assert replies(mta, "envfrom", f"raise {kind}")["envfrom"][0] == "y"
    assert mta.helo() == "c"
    mta.quit()


@OURS
def test_exit_in_a_callback(told: Told) -> None:
    """sys.exit() in a callback is an exception like any other, not the end of all mail. (The older
    package hangs while it ends: there is nothing to compare.)"""
    mta = told().connect()
    assert replies(mta, "envfrom", "raise exit")["envfrom"][0] == "y"
    assert replies(told().connect(), "envfrom", "0")["envfrom"] == "c"


@pytest.mark.parametrize("step", ["abort", "close"])
def test_exceptions_at_the_end(told: Told, step: str) -> None:
    """Nobody waits for an answer to these; the next connection is served."""
    program = told()
    before = program.steps().count(step)
    mta = program.connect()
    replies(mta, step, "raise error")
    mta.mail()
    mta.send("A")
    mta.quit()
    program.await_step(step, before + 1)
    assert replies(program.connect(), "hello", "0")["hello"] == "c"


@pytest.mark.parametrize("result", ["None", "'0'", "1.0", "b''", "[]"])
@pytest.mark.parametrize("step", ["connect", *STEPS])
def test_results_that_are_no_int(told: Told, step: str, result: str) -> None:
    program = told()
    reply = replies(program.connect(), step, result)[step]
    assert isinstance(reply, tuple)
    assert reply[0] == "y"
    assert reply[1].startswith(b"451 4.3.0 ")
    name = "helo" if step == "hello" else step
    program.until(lambda: f"The {name} callback must return int" in program.output())


@pytest.mark.parametrize(("result", "reply"), [("True", "r"), ("False", "c")])
def test_a_bool_is_an_int(told: Told, result: str, reply: str) -> None:
    assert replies(told().connect(), "envfrom", result)["envfrom"] == reply


def all_replies(mta: Mta, result: str) -> list[str]:
    """The letters that answer MAIL, where `result` is returned, and the QUIT behind it."""
    mta.negotiate()
    mta.step("C", inet(f"envfrom={result}", "127.0.0.1", 1))
    mta.send(*STEPS["envfrom"])
    mta.send("Q")
    letters = []
    with contextlib.suppress(Closed):
        while True:
            letters.append(mta.receive()[0])
    return letters


@pytest.mark.parametrize("result", ["5", "99", "-1", "2**31", "2**31 - 1", "10", "20"])
def test_ints_that_are_no_verdict(told: Told, implementation: str, result: str) -> None:
    """The MTA must not be left without an answer."""
    letters = all_replies(told().connect(), result)
    assert letters == expected(implementation, "ints that are no verdict")


@OURS
def test_an_int_without_measure(told: Told) -> None:
    """(The older package's next callback raises SystemError.)"""
    assert all_replies(told().connect(), "10**30") == ["y"]


def test_noreply_that_was_not_negotiated(told: Told, implementation: str) -> None:
    letters = all_replies(told().connect(), "Milter.NOREPLY")
    assert letters == expected(implementation, "NOREPLY that was not negotiated")


def test_a_verdict_ends_the_message(told: Told) -> None:
    """After it, abort is not called: the filter itself has ended the message."""
    program = told()
    before = program.steps()
    mta = program.connect()
    replies(mta, "header", "Milter.REJECT")
    mta.send("A")
    mta.quit()
    program.await_step("close", before.count("close") + 1)
    assert program.steps().count("abort") == before.count("abort")


def test_discard_of_a_recipient_goes_on(told: Told) -> None:
    mta = told().connect()
    assert replies(mta, "envrcpt", "Milter.DISCARD")["envrcpt"] == "d"
    assert mta.data() == "c"


def test_accept_at_connect_waits_for_quit(told: Told) -> None:
    mta = told().connect()
    assert replies(mta, "connect", "Milter.ACCEPT")["connect"] == "a"
    mta.send("Q")
    with pytest.raises(Closed):
        mta.receive()


REPLIES = """
class Filter(Milter.Base):
    def hello(self, name):
        if name == "early":
            self.setreply("550", "5.7.1", "said early")
        return Milter.CONTINUE
    def envfrom(self, f, *params):
        code, xcode, lines, verdict = eval(f)
        if code:
            self.setreply(code, xcode, *lines)
        return verdict
run(Filter)
"""


@pytest.fixture(scope="module")
def replying(implementation: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = start_program(implementation, tmp_path_factory.mktemp("replying"), REPLIES)
    yield program
    program.finish()


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (("550", "5.7.1", ["no way"], 1), b"550 5.7.1 no way"),
        (("451", "4.7.1", ["later"], 4), b"451 4.7.1 later"),
        (("550", None, ["no way"], 1), b"550 no way"),
        (("550", "5.7.1", [""], 1), b"550 5.7.1 "),
        (("550", "5.7.1", ["100%%"], 1), b"550 5.7.1 100%%"),
        (("550", "5.7.1", ["\xe9"], 1), b"550 5.7.1 \xc3\xa9"),
        (("550", "5.7.1", ["1", "2", "3"], 1), b"550-5.7.1 1\r\n550-5.7.1 2\r\n550 5.7.1 3"),
        (("451", "4.7.1", ["one", "two"], 4), b"451-4.7.1 one\r\n451 4.7.1 two"),
        (("550", None, ["one", "two"], 1), b"550-5.0.0 one\r\n550 5.0.0 two"),
        (("421", "4.7.0", ["closing"], 4), b"421 4.7.0 closing"),
        (("550", "5.7.1", ["x" * 980], 1), b"550 5.7.1 " + b"x" * 980),
        (("450", "4.7.1", ["class of the other verdict"], 1), None),
        (("550", "5.7.1", ["class of the other verdict"], 4), None),
        (("550", "5.7.1", ["not used"], 3), None),
        (("550", "5.7.1", ["not used"], 2), None),
        (("550", "5.7.1", ["not used"], 0), None),
    ],
)
def test_reply_texts(
    replying: Program, said: tuple[str, str | None, list[str], int], reply: bytes | None
) -> None:
    mta = replying.connect()
    mta.negotiate()
    got = mta.mail(repr(said))
    assert got == ("crdat"[said[3]] if reply is None else ("y", reply + b"\0"))


def test_a_reply_text_that_begins_with_a_digit(replying: Program, implementation: str) -> None:
    mta = replying.connect()
    mta.negotiate()
    got = mta.mail(repr(("550", None, ["3 tries"], 1)))
    assert got == ("y", expected(implementation, "a reply text that begins with a digit"))
    assert mta.mail(repr(("550", None, ["5 tries"], 1))) == ("y", b"550 5 tries\0")


def test_32_lines(replying: Program) -> None:
    mta = replying.connect()
    mta.negotiate()
    reply = mta.mail(repr(("550", "5.7.1", [str(n) for n in range(32)], 1)))
    assert isinstance(reply, tuple)
    assert reply[1].split(b"\r\n") == [
        b"550%s5.7.1 %d%s" % (b" " if n == 31 else b"-", n, b"\0" if n == 31 else b"")
        for n in range(32)
    ]


def test_a_reply_waits_for_its_verdict(replying: Program) -> None:
    """A text stays until a verdict uses it, and is used once."""
    mta = replying.connect()
    mta.negotiate()
    assert mta.helo("early") == "c"
    assert mta.mail(repr(("", None, [], 1))) == ("y", b"550 5.7.1 said early\0")
    assert mta.mail(repr(("", None, [], 1))) == "r"
