"""Socket specifications: one grammar for the engine, the commands and the MTAs' lines."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import Milter
import milter
import pytest
from Milter._sockets import Socket, address_of

GOOD = [
    "unix:s", "s", ":s", "local:s", "UNIX:s", "unix:8894", "unix:in:et", "unix: a b", "./8894",
    "inet:0@127.0.0.1", "inet:0:127.0.0.1", "inet:0@[127.0.0.1]", "INET:0@localhost", "inet:0",
    "inet6:0@::1", "inet6:0@[::1]", "inet6:0@[IPv6:::1]", "inet:00000@127.0.0.1", "inet:0:0.0.0.0",
]  # fmt: skip
BAD = [
    "", "8894", ":8894", "unix:", ":", "x25:1", "inet:", "inet:@127.0.0.1", "inet:99999@127.0.0.1",
    "inet:65536", "inet: 0@127.0.0.1", "inet:0 @127.0.0.1", "inet:0@ 127.0.0.1",
    "inet:+0@127.0.0.1", "inet:-1", "inet:0x1F", "inet:0\n", "inet:\u0660", "inet:no-such-service",
    "inet:0@", "inet:0:",
    "inet:127.0.0.1:0", "inet:localhost:0", "inet6:[::1]:0", "inet:0@[::1]", "inet6:0@[127.0.0.1]",
    "inet:0@127.0.0.1:25", "inet:0@[127.0.0.1", "inet:0@a@b", "inet:0@[]", "fd:", "fd:-1", "fd:x",
    "fd:2147483648", "fd: 3", "unix:" + 107 * "x",
]  # fmt: skip


def as_the_engine_has_it(spec: str) -> str | None:
    """The address that it serves at; None if it does not understand the specification."""
    server = milter._Server(
        factory=Milter.Base, planner=None, name="x", actions=0, policy=milter.TEMPFAIL, timeout=0,
        drain=-1, max_connections=0, max_threads=0, progress=-1, grace=-1, deadline=0,
    )  # fmt: skip
    try:
        server.listen(spec, 0, True, False, None, None, None)
    except milter.error as error:
        return None if str(error).startswith("socket specification ") else "it cannot be opened"
    address = server.address(0)
    assert address is not None
    return str(address)


@pytest.mark.parametrize("spec", GOOD)
def test_what_both_take(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    served = as_the_engine_has_it(spec)
    assert served is not None
    with Socket.parse(spec).listen() as ours:

        def without_port(address: str) -> str:
            return re.sub(r"(?<=:)\d+(?=@)", "0", address)

        assert without_port(address_of(ours)) == without_port(served)


@pytest.mark.parametrize("spec", BAD)
def test_what_both_refuse(spec: str) -> None:
    assert as_the_engine_has_it(spec) is None
    with pytest.raises(ValueError, match=r"^socket specification "):
        Socket.parse(spec)
    with pytest.raises(milter.error, match=r"^socket specification "):
        Milter.Server(Milter.Base, spec).open()


PORTS = ["0", "", "x", " 0", "0 ", "+0", "-0", "65536", "0x1", "127.0.0.1", "[::1]"]
HOSTS = ["", "@", ":", "@127.0.0.1", ":127.0.0.1", "@[127.0.0.1]", "@::1", "@[::1]", "@[]", "@[",
         ":0", "@ ", "@127.0.0.1 ", "@[IPv6:::1]", "@[ipv6:]"]  # fmt: skip


@pytest.mark.parametrize("kind", ["", ":", "unix:", "inet:", "inet6:", "fd:", "x:"])
def test_all_together(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take it, or neither does."""
    monkeypatch.chdir(tmp_path)
    for port, host in itertools.product(PORTS, HOSTS):
        spec = f"{kind}{port}{host}"
        try:
            Socket.parse(spec)
        except ValueError:
            assert as_the_engine_has_it(spec) is None, spec
        else:
            assert as_the_engine_has_it(spec) is not None, spec


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("inet:127.0.0.1:8894", "write inet:8894@127.0.0.1"),
        ("inet6:[::1]:8894", "write inet6:8894@[::1]"),
        ("inet:localhost:25", "write inet:25@localhost"),
        ("8894", "write inet:8894@127.0.0.1"),
        (":8894", "write inet:8894@127.0.0.1"),
        ("inet: 70000@127.0.0.1", "there are blanks in it"),
        ("inet:+25000@127.0.0.1", "the port is not a number from 0 to 65535"),
    ],
)
def test_what_to_write_instead(spec: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        Socket.parse(spec)
    with pytest.raises(milter.error, match=re.escape(hint)):
        Milter.Server(Milter.Base, spec).open()


@pytest.mark.parametrize(
    ("spec", "postfix", "sendmail"),
    [
        ("/run/f.sock", "unix:/run/f.sock", "unix:/run/f.sock"),
        ("local:/run/f.sock", "unix:/run/f.sock", "unix:/run/f.sock"),
        ("inet:8894", "inet:127.0.0.1:8894", "inet:8894@127.0.0.1"),
        ("inet:8894:0.0.0.0", "inet:127.0.0.1:8894", "inet:8894@127.0.0.1"),
        ("inet:smtp@mail.example", "inet:mail.example:25", "inet:25@mail.example"),
        ("inet6:8894", "inet:[::1]:8894", "inet6:8894@::1"),
        ("inet6:8894@[IPv6:2001:db8::1]", "inet:[2001:db8::1]:8894", "inet6:8894@2001:db8::1"),
    ],
)
def test_what_mtas_are_told(spec: str, postfix: str, sendmail: str) -> None:
    where = Socket.parse(spec)
    assert (where.postfix(), where.sendmail()) == (postfix, sendmail)


@pytest.mark.parametrize("spec", ["fd:3", "inet:0@127.0.0.1", "unix:/run/a b", "unix:/run/a,b"])
def test_what_mtas_cannot_be_told(spec: str) -> None:
    where = Socket.parse(spec)
    for told in (where.postfix, where.sendmail):
        with pytest.raises(ValueError, match=re.escape(str(where))):
            told()


def test_all_addresses_are_said() -> None:
    for spec, note in (
        ("inet:1", "(inet:1@127.0.0.1 is for itself alone)"),
        ("inet6:1@[::]", "(inet6:1@::1 is for itself alone)"),
        ("inet:1@127.0.0.1", ""),
        ("unix:s", ""),
    ):
        assert Socket.parse(spec).note.endswith(note)
        assert bool(Socket.parse(spec).note) == bool(note)


def test_a_descriptor_is_for_who_has_it() -> None:
    for use in (Socket.parse("fd:3").connect, Socket.parse("fd:3").listen):
        with pytest.raises(ValueError, match="descriptor that another program opened"):
            use()


@pytest.mark.parametrize("which", ["owner", "group"])
@pytest.mark.parametrize("number", [-1, 2**32 - 1, 2**32, 2**64, str(2**32)])
def test_numbers_that_no_user_has(tmp_path: Path, which: str, number: int | str) -> None:
    with pytest.raises(milter.error, match=f"^{which}: {number} is not from 0 to 4294967294"):
        Milter.Server(Milter.Base, f"unix:{tmp_path}/s", **{which: number})  # type: ignore[arg-type]
    server = Milter.Server(Milter.Base, f"unix:{tmp_path}/s")._server
    ids = [int(number), None] if which == "owner" else [None, int(number)]
    with pytest.raises(milter.error, match=f"^{which}: {number} is not from 0 to 4294967294"):
        server.listen(f"unix:{tmp_path}/s", 0, True, False, None, *ids)
    assert not (tmp_path / "s").exists()


def test_numbers_as_text(tmp_path: Path) -> None:
    """As chown takes them."""
    path = tmp_path / "s"
    with Milter.Server(Milter.Base, f"unix:{path}", owner=str(os.getuid()), group=str(os.getgid())):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
