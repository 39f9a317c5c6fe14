"""The same binary on Debian's library and on ours: what it sends and what it sees is equal, byte
by byte. Where it is not, docs/differences.md says why ("libmilter for C"); those are not made here.
tests/transcripts tries the protocol in full; here are random sessions and calls with odd arguments.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from native import HERE, LIBRARIES, Told, compile_c, packet, told_to

STEPS = (
    *("connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body"),
    *("eom", "unknown", "abort", "close"),
)

# Command lines of told.c: version, actions, negotiate, callbacks that there are not.
FILTERS = {
    "everything": ("0x01000001", "0x1ff", "0x400"),
    "no negotiate": ("0x01000001", "0x1ff", "-"),
    "macro lists": ("0x01000001", "0x1ff", "setsymlist,0,j {x};setsymlist,5,;setsymlist,6,i"),
    "no actions, no replies": ("0x01000001", "0", "0x7ff00"),
    "no connect": ("0x01000001", "0x1ff", "-", "connect", "helo"),
    "version 2": ("2", "0x3f", "-"),
    "version 3": ("3", "0x3f", "-", "eoh", "envrcpt"),
    "version 4": ("4", "0x3f", "-"),
    "nothing wanted": ("0x01000001", "0x1ff", "0x3ff"),
    "no body": ("0x01000001", "0x1ff", "-", "body", "header", "eom"),
    "emulated": ("0x01000001", "0x1ff", "0x1ff80"),
    "refuses": ("0x01000001", "0x1ff", "refuse"),
}

OFFERS = (
    *["00000006000001ff001fffff"] * 6,
    *("000000020000000000000000", "000000020000003f0000007f", "00000006000001ff000003ff"),
    *("00000004000001ff000003ff", "00000007000001ff7fffffff", "00000006000000ff001fffff"),
)

#: How many of these a filter refuses: those without an action or an option that it wants.
REFUSED = {
    "everything": 4, "no negotiate": 3, "macro lists": 0, "no actions, no replies": 4,
    "no connect": 3, "version 2": 1, "version 3": 1, "version 4": 1, "nothing wanted": 1,
    "no body": 3, "emulated": 4, "refuses": 7,
}  # fmt: skip

TEXT_980 = "x*980"
CALLS = (
    *("addheader,X,v", "addheader,X,", "addheader,,v", "addheader,X,~", "addheader,~,v"),
    *("addheader,X,v*65532", "addheader,X,v*65533", "insheader,0,X, v", "insheader,-1,X,v"),
    *("chgheader,X,2,~", "chgheader,X,0,v", "chgheader,,1,v", "chgheader,X,-1,v"),
    *("addrcpt,<a@b>", "addrcpt,", "addrcpt,~", "addrcpt_par,<a@b>,~", "addrcpt_par,<a@b>,"),
    *("addrcpt_par,<a@b>,NOTIFY=NEVER", "addrcpt_par,,x", "delrcpt,<a@b>", "delrcpt,"),
    *("chgfrom,<x@y>,RET=HDRS", "chgfrom,<x@y>,~", "chgfrom,<x@y>,", "chgfrom,,x"),
    *("quarantine,why", "quarantine,", "quarantine,~", "replacebody,x*70000,70000"),
    *("replacebody,abc,3", "replacebody,abc,0", "replacebody,~,0", "replacebody,~,3"),
    *("replacebody,abc,-1", "replacebody,x*131070,131070", "progress"),
    *("setreply,550,5.7.1,no", "setreply,450,4.7.1,later", "setreply,550,~,~"),
    *("setreply,550,5.7.1,~", "setreply,550,5.7.1,", "setreply,550,~,x", "setreply,599,5.0.0,x"),
    *("setreply,250,~,x", "setreply,55,~,x", "setreply,5500,~,x", "setreply,5a0,~,x"),
    *("setreply,~,~,x", "setreply,550,,x", "setreply,550,5.7,x", "setreply,550,3.7.1,x"),
    *("setreply,550,4.7.1,x", "setreply,550,2.7.1,100%", "setreply,550,5.1234.1,x"),
    *("setreply,550,5.7.1,a\nb", "setreply,550,5.7.1,a\rb", "setreply,550,5.7.1.1,x"),
    *(f"setreply,550,5.7.1,{TEXT_980}", "setreply,550,5.7.1,x*981"),
    *("setmlreply,550,5.7.1,one,two", "setmlreply,550,~,one", "setmlreply,450,~,one,two"),
    *("setmlreply,550,5.7.1,one", "setmlreply,550,~,,x", "setmlreply,550,5.7.1,x*981"),
    *("setmlreply,250,~,a", "setmlreply,~,~,a", "setmlreply,550,5.7,a", "setmlreply,550,5.7.1,a\n"),
    "setmlreply,450,4.7.1," + ",".join(f"line {i}" for i in range(32)),
    "setmlreply,450,4.7.1," + ",".join(f"line {i}" for i in range(33)),
    *("setsymlist,0,j", "setsymlist,7,j", "setsymlist,-1,j", "setsymlist,3,~", "setsymlist,5,"),
    *("getsymval,i", "getsymval,{i}", "getsymval,{foo}", "getsymval,foo", "getsymval,"),
    *("getsymval,~", "setpriv,p", "getpriv"),
)


PACKETS = {
    "C": packet("C", b"localhost\x004\x04\xd2127.0.0.1\x00"),
    "6": packet("C", b"h\x006\x00\x19IPv6:2001:db8::1\x00"),
    "P": packet("C", b"h\x00L\x00\x00/run/x\x00"),
    "?": packet("C", b"\x00U"),
    "H": packet("H", b"me\x00"),
    "h": packet("H", b"\x00"),
    "M": packet("M", b"<a@b>\x00SIZE=1\x00"),
    "m": packet("M", b"\x00"),
    "R": packet("R", b"<c@d>\x00"),
    "r": packet("R", b"<c@d>\x00" + b"ARG=1\x00" * 40 + b"TAIL"),
    "T": packet("T"),
    "L": packet("L", b"Subject\x00hi\x00"),
    "l": packet("L", b"X\x00a\n \xe9\x00"),
    "N": packet("N"),
    "B": packet("B", b"body\r\n"),
    "b": packet("B", b"z" * 65535),
    "E": packet("E"),
    "U": packet("U", b"FOO\x00"),
    "A": packet("A"),
    "Q": packet("Q"),
}
# Packets that end a connection when they come where they may.
BROKEN = {
    "C": (b"h\x00", b"h\x004\x00\x19", b"h\x004\x00\x191.2.3.4", b"h\x00X\x00\x191.2.3.4\x00"),
    "M": (b"abc",),
    "R": (b"x",),
    "L": (b"abc\x00", b"\x00v\x00", b"abc\x00d", b"a"),
    "B": (b"q" * 65536,),
}
SESSIONS = (
    *("CHMRTLLNBBEQ", "6HMRNEQ", "PHMRlNbEQ", "?MRTLNBEQ", "hmrRTLNBEQ", "CHMRTLNBAQ"),
    *("CHMRTLNBEMRTLNBEQ", "CUHMRTLNBEMREQ", "CHMREMRLNbBEQ", "CHMRTLNB"),
)
# Orders of commands after which the two differ on purpose.
DIFFERENT = re.compile(r"[MRTLNBE].*U|U.*A|(^|[^MRTLNB])A|E$|T[BE]", re.IGNORECASE)
# The same for filters that leave steps out: theirs may call abort once more.
LEAVES_OUT = ("no connect", "version 3", "nothing wanted", "no body")


def plan(chance: random.Random) -> str:
    """What the filter shall do in a callback."""
    calls = [chance.choice(CALLS) for _ in range(chance.randrange(4))]
    verdicts = {0: 60, 1: 8, 2: 4, 3: 6, 4: 6, 7: 3, 8: 3, 10: 1, 5: 1, -1: 1, 99: 1}
    [verdict] = chance.choices(list(verdicts), list(verdicts.values()))
    return ";".join([*calls, str(verdict)])


def macros(chance: random.Random) -> bytes:
    """A packet of macros, some of them odd."""
    kinds = (b"i\x00Q1\x00", b"{i}\x00Q2\x00", b"{foo}\x00f\x00", b"j\x00\x00", b"cut off")
    data = b"".join(chance.choice(kinds) for _ in range(chance.randrange(3)))
    return packet("D", chance.choice("CHMRTNELBUZA").encode() + data)


def offer(options: str) -> bytes:
    """The first packet of an MTA, with the data of OFFERS."""
    return packet("O", bytes.fromhex(options))


def session(chance: random.Random, options: str, commands: str = "CHMRTLNBEAU") -> bytes:
    """All that an MTA which offers these options sends on one connection. commands: those that it
    may send."""
    while True:
        order = [
            letter for letter in chance.choice(SESSIONS) if letter.upper() in commands + "6PQ?"
        ]
        for _ in range(chance.choice((0, 0, 1, 2))):
            place = chance.randrange(len(order))
            change = chance.choice(("drop", "insert", "replace", "repeat"))
            if change == "repeat":
                order.insert(place, order[place])
            elif change == "drop":
                del order[place]
            else:
                order[place : place + (change == "replace")] = chance.choice(commands)
        if order and not DIFFERENT.search("".join(order)):
            break
    order = list(re.sub("(?<=T)[RT]", "L", "".join(order)))  # so do commands after DATA
    plans = {step: plan(chance) for step in STEPS if chance.random() < 0.35}
    broken = chance.randrange(len(order)) if chance.random() < 0.1 else -1
    if broken >= 0:  # theirs sends progress there all the same
        plans = {step: calls for step, calls in plans.items() if step not in ("abort", "close")}
    data = [offer(options), told_to(**plans)]
    for place, letter in enumerate(order):
        if chance.random() < 0.2:
            data.append(macros(chance))
        if place == broken and letter in BROKEN:
            data.append(packet(letter, chance.choice(BROKEN[letter])))
            break  # what it comes to depends on the order: nothing may follow
        data.append(PACKETS[letter])
    return b"".join(data)


@pytest.mark.parametrize("name", FILTERS)
def test_random_sessions(told: Told, name: str) -> None:
    """One filter for each offer: what one of theirs left out once, it leaves out ever after."""
    chance = random.Random(name)
    words = FILTERS[name]
    commands = "CHMRTLNBEU" if name in LEAVES_OUT else "CHMRTLNBEAU"
    refused = set()
    for options, share in Counter(OFFERS).items():
        with told.running("theirs", *words) as theirs, told.running("ours", *words) as ours:
            data = session(chance, options, commands)
            answer, their = ours.play(data), theirs.play(data)
            assert answer == their, data
            if not answer[0]:  # it wants more than that, and ends the connection
                refused.add(options)
                continue
            for _ in range(20 * share):
                data = session(chance, options, commands)
                answer = ours.play(data)
                assert answer[0], f"nothing came back: {data!r}"
                assert answer == theirs.play(data), data
    assert len(refused) == REFUSED[name]


def test_every_call_in_every_callback(told: Told) -> None:
    """What it returns, and what it sends."""
    words = FILTERS["everything"]
    with told.running("theirs", *words) as theirs, told.running("ours", *words) as ours:
        for call in CALLS:
            data = offer(OFFERS[0]) + told_to(**dict.fromkeys(STEPS, call))
            data += b"".join(PACKETS[letter] for letter in "CUHMRTLNBEMAQ")
            assert ours.play(data) == theirs.play(data), call


def test_control_functions(tmp_path: Path) -> None:
    """control.c prints what they return."""
    program = compile_c(tmp_path / "control", HERE / "control.c", "-lmilter")
    done = {}
    for name, env in LIBRARIES.items():
        folder = tmp_path / name
        folder.mkdir()
        done[name] = subprocess.run(
            (program, folder),
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done["ours"].stdout == done["theirs"].stdout
    assert len(done["ours"].stdout.splitlines()) > 60
    for name in LIBRARIES:  # both say in the log why a socket cannot be opened
        assert "control" in done[name].stderr
        assert "Address already in use" in done[name].stderr
