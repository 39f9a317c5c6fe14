"""A server that takes over from another one: its socket replaces the other one's, and the other one
retires. No connection is refused, lost or closed for it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import Milter
import milter
import pytest

from .mta import DEADLINE, Mta
from .test_server import connect_to, until

LONGEST = 107  # bytes of a unix socket's path on Linux


class Filter(Milter.Base):
    """Each server has a subclass; an answer tells which one it is from."""

    code: str

    def envfrom(self, f: str, *params: str) -> int:
        self.setreply(self.code, "4.7.1", "later")
        return milter.TEMPFAIL


def named(code: str) -> type[Filter]:
    return type(f"Filter{code}", (Filter,), {"code": code})


OLD, NEW = named("451"), named("452")


def served_by(mta: Mta) -> str:
    """The reply code of the filter that answers."""
    reply = mta.mail()
    assert isinstance(reply, tuple)
    assert reply[0] == "y"
    return reply[1][:3].decode()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """What is entered here is left after the test, the last one first."""
    with contextlib.ExitStack() as entered:
        yield entered


def begin(server: Milter.Server, stack: contextlib.ExitStack) -> Mta:
    mta = stack.enter_context(connect_to(server))
    mta.negotiate()
    assert mta.helo() == "c"
    return mta


def serve(server: Milter.Server, stack: contextlib.ExitStack) -> threading.Thread:
    """Runs it in a thread; a stop or retire from before counts, as it does not for start()."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    stack.callback(thread.join, DEADLINE)
    stack.callback(server.abort)
    return thread


# ------------------------------------------------------------------------------------ replacing


def test_a_path_is_taken_over(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    path = f"unix:{tmp_path}/socket"
    old = stack.enter_context(Milter.Server(OLD, path))
    mta = begin(old, stack)
    new = stack.enter_context(Milter.Server(NEW, path, replace=True))
    assert new.address == path
    assert served_by(begin(new, stack)) == "452"
    assert served_by(mta) == "451"
    old.retire()
    assert served_by(mta) == "451"
    mta.quit()
    assert old.join(DEADLINE)
    assert served_by(begin(new, stack)) == "452"
    assert os.listdir(tmp_path) == ["socket"]
    new.stop(timeout=DEADLINE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("way", ["stop", "abort"])
def test_the_end_of_the_one_before_leaves_the_new_socket(
    tmp_path: Path, stack: contextlib.ExitStack, way: str
) -> None:
    path = f"unix:{tmp_path}/socket"
    old = stack.enter_context(Milter.Server(OLD, path))
    new = stack.enter_context(Milter.Server(NEW, path, replace=True))
    getattr(old, way)()
    assert old.join(DEADLINE)
    assert served_by(begin(new, stack)) == "452"


@pytest.mark.parametrize("there", ["nothing", "a stale file", "a stale file beside it"])
def test_nobody_to_take_over_from(tmp_path: Path, stack: contextlib.ExitStack, there: str) -> None:
    path = tmp_path / "socket"
    if there != "nothing":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path) + (".new" if "beside" in there else ""))
    server = stack.enter_context(Milter.Server(NEW, f"unix:{path}", replace=True, mode=0o640))
    assert served_by(begin(server, stack)) == "452"
    assert os.listdir(tmp_path) == ["socket"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(milter.error, match="is not a socket: remove it"):
        Milter.Server(NEW, f"unix:{path}", replace=True).open()
    assert os.listdir(tmp_path) == ["socket"]
    assert path.read_text() == "precious"


def test_a_server_that_cannot_take_over_changes_nothing(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    """Here the name beside the path is taken."""
    path = f"unix:{tmp_path}/socket"
    old = stack.enter_context(Milter.Server(OLD, path))
    stack.enter_context(Milter.Server(NEW, path + ".new"))
    with pytest.raises(milter.error, match="another program answers on it"):
        Milter.Server(NEW, path, replace=True).open()
    assert served_by(begin(old, stack)) == "451"


def test_a_path_that_leaves_no_room(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    room = LONGEST - len(".new")
    longest = f"{tmp_path}/".ljust(room, "x")
    stack.enter_context(Milter.Server(OLD, f"unix:{longest}"))
    new = stack.enter_context(Milter.Server(NEW, f"unix:{longest}", replace=True))
    assert served_by(begin(new, stack)) == "452"
    with pytest.raises(milter.error, match=f"too long to be replaced: make it {room} bytes"):
        Milter.Server(NEW, f"unix:{longest}x", replace=True).open()


@pytest.mark.parametrize("spec", ["inet:0@127.0.0.1", "fd"])
def test_only_a_path_can_be_replaced(spec: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"fd:{listener.fileno()}" if spec == "fd" else spec
        with pytest.raises(milter.error, match="only the path of a unix socket can be replaced"):
            Milter.Server(NEW, where, replace=True).open()


# ------------------------------------------------------------------------------------- retiring


def test_those_that_wait_to_be_accepted_are_served(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    """More of them than are accepted at once; then the socket is gone."""
    old = Milter.Server(OLD, f"unix:{tmp_path}/socket")
    old.open()
    mtas = [stack.enter_context(connect_to(old)) for _ in range(150)]
    old.retire()
    thread = serve(old, stack)
    for mta in mtas:
        mta.negotiate()
        assert served_by(mta) == "451"
    assert os.listdir(tmp_path) == []
    for mta in mtas:
        mta.quit()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_an_open_socket_that_is_shared(stack: contextlib.ExitStack) -> None:
    """A port cannot be bound twice: both servers have the same socket."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    where = f"fd:{listener.fileno()}"
    old = Milter.Server(OLD, where).start()
    mta = begin(old, stack)
    new = stack.enter_context(Milter.Server(NEW, where))
    old.retire()
    until(lambda: old.address is None)
    for _ in range(20):
        assert served_by(begin(new, stack)) == "452"
    assert served_by(mta) == "451"
    mta.quit()
    assert old.join(DEADLINE)


def test_between_messages_and_inside_one(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    """The old server keeps all its connections, in whatever step they are, for any number of
    messages; it ends with the last of them."""
    seen: list[str] = []

    class Whole(Milter.Base):
        def eom(self) -> int:
            seen.append("eom")
            return milter.CONTINUE

    old = Milter.Server(Whole, f"unix:{tmp_path}/socket").start()
    mtas = [begin(old, stack) for _ in range(3)]
    inside, between, _ = mtas  # the third one has had no message yet
    inside.mail()
    between.mail()
    between.eom()
    old.retire()
    until(lambda: old.address is None)
    assert inside.rcpt() == "c"
    inside.eom()
    for mta in mtas:
        for _ in range(3):
            assert mta.mail() == "c"
            assert mta.eom() == [("c", b"")]
    for mta in mtas:
        assert old.stats.open > 0
        mta.quit()
    assert old.join(DEADLINE)
    assert len(seen) == 11


def test_retiring_ends_in_time(stack: contextlib.ExitStack) -> None:
    """An MTA that keeps its connection for ever is drained at the deadline."""
    old = Milter.Server(OLD, "inet:0@127.0.0.1").start()
    mta = begin(old, stack)
    old.retire(timeout=1)
    assert mta.is_closed()
    assert old.join(DEADLINE)


@pytest.mark.parametrize("way", ["stop", "abort"])
def test_a_stop_while_it_retires(stack: contextlib.ExitStack, way: str) -> None:
    old = Milter.Server(OLD, "inet:0@127.0.0.1").start()
    mta = begin(old, stack)
    old.retire()
    until(lambda: old.address is None)
    getattr(old, way)()
    assert mta.is_closed()
    assert old.join(DEADLINE)


@pytest.mark.parametrize("timeout", [0, -1, 1 << 31])
def test_a_timeout_that_is_none(timeout: int) -> None:
    with pytest.raises(milter.error, match=re.escape(f"timeout: {timeout} is not from 1 to")):
        Milter.Server(OLD, None).retire(timeout)
