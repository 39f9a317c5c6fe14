"""Milter.testctx and Milter.test: one filter, driven by the older package's and by ours, and over
the protocol by Milter.testing. Two seconds."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import Milter
import mime
import pytest
from api.conftest import ORACLE_PYTHON, need
from hypothesis import given
from hypothesis import strategies as st
from Milter.test import TestBase
from Milter.testctx import TestCtx
from Milter.testing import MTA, Client

from . import driven

STEPS = ("connect", "hello", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "close")
ENDS = (Milter.ACCEPT, Milter.REJECT, Milter.DISCARD, Milter.TEMPFAIL)
#: Those that mean the same in both; test_testctx.py has the others.
ACTIONS: list[list[Any]] = [
    ["setreply", "550", "5.7.1", "a", "b"], ["setreply", "450", None, "later"],
    ["addheader", "X-N", "v"], ["addheader", "X-N", "a\n b"], ["addrcpt", "<q@r>"],
    ["delrcpt", "<q@r>"], ["chgfrom", "<n@n>"], ["chgfrom", "<n@n>", "BODY=8BITMIME"],
    ["progress"], ["chgheader", "X-Z", 1, "n"], ["setsymlist", 0, "i"],
]  # fmt: skip


def messages(count: int, others: str = "") -> list[str]:
    """Messages that both packages read alike, as Latin-1. others: characters in them."""
    chance = Random(7)

    def text() -> str:
        return "".join(chance.choice(f"ab.:; =?\t<@>{others}") for _ in range(9)).strip() or "x"

    def value() -> str:
        return text() + "".join(f"\n\t{text()}" for _ in range(chance.choice([0, 0, 2])))

    made = []
    for _ in range(count):
        lines = [f"X-{chance.choice('ABC')}: {value()}" for _ in range(chance.randint(1, 5))]
        lines += ["", *(text() for _ in range(chance.randint(1, 5)))]
        whole = "\n".join(lines) + chance.choice(["\n", ""])
        made.append(chance.choice([whole, whole.replace("\n", "\r\n")]))
    return made


def plans() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for mixin in (False, True):
        # The older mixin fails at other header values than ASCII.
        one, two, *more = messages(40, "" if mixin else "\xe9\xc3")
        for quiet in (False, True):
            every = {"mixin": mixin, "quiet": quiet}
            made.append({**every, "messages": [one, two, one]})
            made.append({**every, "messages": [one], "macros": {"i": "Q", "{mail_addr}": "m"}})
            made.append({**every, "messages": [one], "envelope": ["s@t", "r@u", "v@w"]})
            made.append({**every, "messages": [one], "envelope": ["", "r@u"]})
            made.append({**every, "messages": [one], "connect": ["h", "e", "::1"]})
            for step in STEPS:
                for end in ENDS:
                    made.append({**every, "messages": [one, two], "answers": {step: end}})
                for action in ACTIONS if step != "close" else []:
                    made.append({**every, "messages": [one], "actions": {step: [action]}})
            made.append({**every, "messages": [one], "actions": {"eom": ACTIONS}})
        made += [{"mixin": mixin, "messages": [each]} for each in more]
        made.append({"mixin": mixin, "messages": ["A: b\n\n" + "line\n" * 20000]})
    made.append({"mixin": False, "messages": [], "connect": ["h", "e", "unix"]})
    return made


def done(python: str, wanted: list[dict[str, Any]], log: Path) -> list[Any]:
    program = [python, "-B", driven.__file__, str(log)]
    run = subprocess.run(
        program, input=json.dumps(wanted), capture_output=True, text=True, check=False, cwd="/"
    )
    assert run.returncode == 0, run.stderr
    answers: list[Any] = json.loads(run.stdout.splitlines()[-1])
    return answers


def alike(plan: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Without what the older package has differently: body chunks of its own size; the mixin has
    the message not before the body, and addresses without parameters."""
    seen: list[Any] = []
    for step in answer["seen"]:
        if step[0] == "body" and seen and seen[-1][0] == "body":
            seen[-1] = ["body", [seen[-1][1][0] + step[1][0]]]
        else:
            seen.append(step)
    records = {**answer["records"]}
    if plan["mixin"] and not any(step[0] == "eom" for step in seen):
        del records["_msg"]
    return {"results": answer["results"], "seen": seen, "records": records}


def test_as_the_oracle(tmp_path: Path) -> None:
    need("oracle")
    wanted = plans()
    both = [done(python, wanted, tmp_path / "log") for python in (ORACLE_PYTHON, sys.executable)]
    assert len(both[0]) == len(wanted) > 500
    for plan, their, our in zip(wanted, *both, strict=True):
        assert (plan, alike(plan, our)) == (plan, alike(plan, their))


# ------------------------------------------------------------------------------------ the macros

MACROS = {"i": "1", "j": "2", "{auth_authen}": "ann", "{auth_type}": "PLAIN", "{mail_addr}": "a@b"}
ASKING = ("connect", "hello", "envfrom", "envrcpt", "data", "eoh", "eom")
#: What a filter asks for by @symlist: names of macros by callback.
LISTS: list[dict[str, list[str]]] = [
    {},
    *({step: names} for step in ASKING for names in (["{auth_authen}"], ["i", "{mail_addr}"], [])),
    *({"envfrom": [names]} for names in ("{auth_authen} i", "{none}", "j")),
    {"eom": ["{auth_type}"], "eoh": ["j"]}, {step: ["j"] for step in ASKING},
    {"connect": ["{none}"], "envrcpt": ["j", "{auth_type}"], "eom": ["i"]},
]  # fmt: skip


def macro_plans(mixin: bool) -> list[dict[str, Any]]:
    same = {"mixin": mixin, "messages": ["A: b\n\nc\n"], "macros": MACROS, "visible": ASKING}
    return [{**same, "symlist": lists} for lists in LISTS]


def visible(answer: dict[str, Any]) -> list[Any]:
    return [step[1] for step in answer["seen"] if step[0] == "macros"]


def test_a_list_hides_the_others_as_the_oracle(tmp_path: Path) -> None:
    """In the callback that asked, and nowhere else."""
    need("oracle")
    wanted = macro_plans(mixin=False)
    both = [done(python, wanted, tmp_path / "log") for python in (ORACLE_PYTHON, sys.executable)]
    for plan, their, our in zip(wanted, *both, strict=True):
        assert len(visible(our)) == len(ASKING)
        assert (plan["symlist"], visible(our)) == (plan["symlist"], visible(their))
    envfrom = visible(both[1][1 + 3 * ASKING.index("envfrom")])[ASKING.index("envfrom")]
    assert envfrom == [None, None, "ann", None, None]


def test_a_list_hides_the_others_in_the_mixin(tmp_path: Path) -> None:
    """As in the context. The older mixin hides all of them, or none."""
    context, mixin = (
        done(sys.executable, macro_plans(mixin), tmp_path / "log") for mixin in (False, True)
    )
    assert list(map(visible, mixin)) == list(map(visible, context))


def test_lists_of_a_connection_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What negotiate itself asks for counts; the next connection begins without any."""

    class Own(Milter.Base):
        def negotiate(self, opts: list[int]) -> int:
            result = super().negotiate(opts)
            self.setsymlist(Milter.M_EOH, "j")
            self.setsymlist(Milter.M_HELO, "{mail_addr}", "i")
            return result

        @Milter.symlist("{auth_type}")
        def eom(self) -> int:
            return Milter.CONTINUE

    ctx = TestCtx()
    monkeypatch.setattr(Milter, "factory", Own)
    ctx._connect()
    found = {Milter.M_HELO: {b"{mail_addr}", b"i"}, Milter.M_EOM: {b"{auth_type}"}}
    assert dict(enumerate(ctx._symlist)) == {
        **dict.fromkeys(range(7)), **found, Milter.M_EOH: {b"j"}
    }  # fmt: skip
    monkeypatch.setattr(Milter, "factory", Milter.Base)
    ctx._connect()
    assert ctx._symlist == [None] * 7


# --------------------------------------------------------------------------------- Milter.testing

CONTENTS = st.one_of(
    st.binary(),
    st.lists(
        st.sampled_from(
            [b"A: b", b"A:", b" c", b"\t", b":", b"From x", b"\r", b"\xe9", b"\0", b"x"]
        )
        | st.binary(max_size=9)
        | st.just(b"")
    ).map(b"\n".join),
    st.sampled_from(messages(20, "\xe9\xc3")).map(lambda text: text.encode("latin-1")),
)


def joined(steps: list[Any]) -> list[Any]:
    return list(alike({"mixin": False}, {"results": [], "seen": steps, "records": {}})["seen"])


@given(CONTENTS)
def test_as_over_the_protocol(content: bytes) -> None:
    """What the filter is told, and what becomes of the envelope and the body."""
    # What Postfix makes of bare CR, mailbox separators and a line without an end is its own.
    content = re.sub(rb"\r(?!\n)|^(?:From |>From)+", b"", content)
    content += b"" if content.endswith(b"\n") else b"\n"
    actions = [["addheader", "X-New", "v"], ["addheader", "X-First", "v", 0]]
    actions += [["chgheader", "A", 1, "other"], ["chgheader", "X-B", 2, ""]]
    actions += [["replacebody", "new\r\n"], ["addrcpt", "<q@r>"], ["chgfrom", "<n@n>", "SIZE=1"]]
    driven.plan.clear()
    driven.plan["actions"] = {"eom": actions}
    driven.seen.clear()
    client = Client("localhost", "1.2.3.4", 1234)
    with MTA(driven.Filter) as mta:
        result = mta.send(
            content, "spam@adv.com", ["victim@lamb.com"], client=client, helo="spamrelay"
        )
    told = [step for step in driven.seen if step[0] not in ("close", "abort")]
    driven.seen.clear()
    Milter.factory = driven.Filter
    ctx = TestCtx()
    ctx._setsymval("i", "QUEUEID001")
    ctx._setsymval("mail_addr", "spam@adv.com")
    assert ctx._connect() == Milter.CONTINUE
    assert ctx._feedFile(io.BytesIO(content)) == Milter.CONTINUE
    assert joined(driven.seen) == joined(told)
    assert ctx._body is not None
    assert ctx._body.getvalue().endswith(b"new\r\n")
    assert result.message.endswith((b"new\r\n", b"new\n"))
    assert ctx._addrcpt == [("<q@r>", None)]
    assert (ctx._sender, ctx._sender_params) == ("<n@n>", "SIZE=1")
    assert (result.envelope.rcpts, result.envelope.sender) == (("victim@lamb.com", "q@r"), "n@n")


# ------------------------------------------------------------------------------------ the records


class Mixed(TestBase, driven.Filter):
    pass


def test_records_can_be_set(tmp_path: Path) -> None:
    driven.plan.clear()
    driven.plan["actions"] = {"eom": [["addrcpt", "<q@r>", "NOTIFY=NEVER"], ["quarantine", "q"]]}
    mixed = Mixed(str(tmp_path / "log"))
    mixed.connect()
    mixed.feedFile(io.BytesIO(b"A: b\n\nc\n"))
    assert isinstance(mixed._msg, mime.MimeMessage)
    assert (mixed._addrcpt, mixed._quarantined) == (["<q@r>"], "q")
    mixed._addrcpt.append("<x@y>")
    assert mixed._addrcpt == ["<q@r>", "<x@y>"]
    for name in driven.RECORDS:
        setattr(mixed, name, name)
        assert getattr(mixed, name) == name
    mixed._addrcpt = []
    assert mixed._addrcpt == []


def test_parameters_of_a_changed_sender() -> None:
    driven.plan.clear()
    driven.plan["actions"] = {"eom": [["chgfrom", "<n@n>", "BODY=8BITMIME"]]}
    Milter.factory = driven.Filter
    ctx = TestCtx()
    ctx._connect()
    ctx._feedFile(io.BytesIO(b"A: b\n\nc\n"))
    assert (ctx._sender, ctx._sender_params) == ("<n@n>", "BODY=8BITMIME")
    driven.plan.clear()
    ctx._feedFile(io.BytesIO(b"A: b\n\nc\n"))
    assert (ctx._sender, ctx._sender_params) == ("<spam@adv.com>", None)


def test_a_mailbox_separator_is_left_out() -> None:
    driven.plan.clear()
    driven.seen.clear()
    Milter.factory = driven.Filter
    ctx = TestCtx()
    ctx._connect()
    assert ctx._feedFile(io.BytesIO(b"From x\nA: b\n\nc\n")) == Milter.CONTINUE
    assert [step for step in driven.seen if step[0] == "header"] == [["header", ["A", "b"]]]
