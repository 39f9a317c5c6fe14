"""Milter.Server, in this process: life, sockets, limits, several at once."""

from __future__ import annotations

import gc
import logging
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import Milter
import milter
import pytest

from .conftest import Start
from .mta import DEADLINE, Closed, Mta


class Filter(Milter.Base):
    """Writes down what it sees, and lets a test hold a callback."""

    seen: ClassVar[list[str]]
    entered: ClassVar[threading.Event]
    go: ClassVar[threading.Event]

    def hello(self, name: str) -> int:
        self.seen.append(f"hello {name}")
        if name == "wait":
            self.entered.set()
            assert self.go.wait(DEADLINE)
        return milter.CONTINUE

    def envfrom(self, f: str, *params: str) -> int:
        return milter.CONTINUE

    def eom(self) -> int:
        self.seen.append("eom")
        return milter.CONTINUE

    def abort(self) -> int:
        self.seen.append("abort")
        return milter.CONTINUE

    def close(self) -> int:
        self.seen.append("close")
        return milter.CONTINUE


@pytest.fixture
def filter_class() -> Iterator[type[Filter]]:
    """A class of its own for each test, with its own record and events."""

    class Own(Filter):
        seen: ClassVar[list[str]] = []
        entered = threading.Event()
        go = threading.Event()

    yield Own
    Own.go.set()


@pytest.fixture
def mtas() -> Iterator[Callable[[Milter.Server], Mta]]:
    """Connects to servers, and closes the connections after the test."""
    made: list[Mta] = []

    def connect(server: Milter.Server) -> Mta:
        mta = connect_to(server)
        made.append(mta)
        return mta

    yield connect
    for mta in made:
        mta.close()


def connect_to(server: Milter.Server) -> Mta:
    address = server.address
    assert address is not None
    kind, _, rest = address.partition(":")
    if kind in ("unix", "local"):
        return Mta.unix(rest)
    port, _, host = rest.partition("@")
    return Mta.inet(host.strip("[]"), int(port))


def until(look: Callable[[], bool]) -> None:
    """Waits for something that another thread does."""
    done = threading.Event()
    for _ in range(int(DEADLINE * 100)):
        if look():
            return
        done.wait(0.01)
    raise AssertionError("it does not happen")


Connect = Callable[[Milter.Server], Mta]


def test_context_manager(filter_class: type[Filter], mtas: Connect) -> None:
    with Milter.Server(filter_class, "inet:0@127.0.0.1") as server:
        mta = mtas(server)
        assert mta.negotiate()[0] == 6
        assert mta.helo("inside") == "c"
        mta.quit()
        address = server.address
    assert filter_class.seen == ["hello inside", "close"]
    assert address is not None
    port = int(address.partition(":")[2].partition("@")[0])
    with pytest.raises(ConnectionRefusedError):
        Mta.inet("127.0.0.1", port)


def test_start_stop_join(filter_class: type[Filter], mtas: Connect) -> None:
    server = Milter.Server(filter_class, "inet:0@127.0.0.1")
    assert server.start() is server
    mta = mtas(server)
    mta.negotiate()
    server.stop()
    assert server.join(DEADLINE)
    assert mta.is_closed()
    assert filter_class.seen == ["close"]


def test_stop_waits_for_open_messages(filter_class: type[Filter], mtas: Connect) -> None:
    server = Milter.Server(filter_class, "inet:0@127.0.0.1").start()
    idle, busy = mtas(server), mtas(server)
    idle.negotiate()
    busy.negotiate()
    assert busy.mail() == "c"
    server.stop()
    assert idle.is_closed()
    assert not server.join(0)
    assert busy.rcpt() == "c"
    assert busy.eom() == [("c", b"")]
    assert busy.is_closed()
    assert server.join(DEADLINE)
    assert sorted(filter_class.seen) == ["close", "close", "eom"]


def test_the_drain_has_an_end(filter_class: type[Filter], mtas: Connect) -> None:
    server = Milter.Server(filter_class, "inet:0@127.0.0.1", drain=1).start()
    mta = mtas(server)
    mta.negotiate()
    mta.mail()
    server.stop()
    assert mta.is_closed()
    assert server.join(DEADLINE)
    assert filter_class.seen == ["abort", "close"]


def test_stop_with_a_timeout(filter_class: type[Filter], mtas: Connect) -> None:
    """After it the server is aborted, and is over when the call returns."""
    server = Milter.Server(filter_class, "inet:0@127.0.0.1").start()
    mta = mtas(server)
    mta.negotiate()
    mta.mail()
    server.stop(timeout=0.1)
    assert mta.is_closed()
    assert filter_class.seen == ["abort", "close"]
    assert server.join(0)


def test_abort(filter_class: type[Filter], mtas: Connect) -> None:
    server = Milter.Server(filter_class, "inet:0@127.0.0.1").start()
    mta = mtas(server)
    mta.negotiate()
    mta.mail()
    server.abort()
    assert mta.is_closed()
    assert server.join(DEADLINE)
    assert filter_class.seen == ["abort", "close"]


def test_stop_while_a_callback_runs(filter_class: type[Filter], mtas: Connect) -> None:
    """It finishes, and its answer is sent."""
    server = Milter.Server(filter_class, "inet:0@127.0.0.1").start()
    mta = mtas(server)
    mta.negotiate()
    mta.send("H", b"wait\0")
    assert filter_class.entered.wait(DEADLINE)
    server.stop()
    filter_class.go.set()
    assert mta.receive() == ("c", b"")
    assert mta.is_closed()
    assert server.join(DEADLINE)


def test_stop_from_a_callback(mtas: Connect) -> None:
    class Stopping(Milter.Base):
        def hello(self, name: str) -> int:
            server.stop()
            return milter.CONTINUE

    server = Milter.Server(Stopping, "inet:0@127.0.0.1").start()
    mta = mtas(server)
    mta.negotiate()
    assert mta.helo() == "c"
    assert mta.is_closed()
    assert server.join(DEADLINE)


def test_it_can_run_again(filter_class: type[Filter], mtas: Connect, tmp_path: Path) -> None:
    server = Milter.Server(filter_class, f"unix:{tmp_path}/socket")
    for turn in range(3):
        with server:
            mta = mtas(server)
            mta.negotiate()
            assert mta.helo(str(turn)) == "c"
            mta.quit()
    assert [what for what in filter_class.seen if what != "close"] == [
        "hello 0", "hello 1", "hello 2",
    ]  # fmt: skip


def test_two_at_once(mtas: Connect) -> None:
    class Accepting(Milter.Base):
        def hello(self, name: str) -> int:
            return milter.ACCEPT

    class Rejecting(Milter.Base):
        def hello(self, name: str) -> int:
            return milter.REJECT

    first = Milter.Server(Accepting, "inet:0@127.0.0.1", name="first")
    second = Milter.Server(Rejecting, "inet:0@127.0.0.1", name="second")
    with first, second:
        mta, other = mtas(first), mtas(second)
        mta.negotiate()
        other.negotiate()
        assert mta.helo() == "a"
        assert other.helo() == "r"
        mta.quit()
        first.stop(timeout=DEADLINE)
        assert other.helo() == "r"
        other.quit()


def test_it_runs_once(filter_class: type[Filter]) -> None:
    with (
        Milter.Server(filter_class, "inet:0@127.0.0.1") as server,
        pytest.raises(milter.error, match="runs"),
    ):
        server.start()


def test_serve_forever_in_a_thread(filter_class: type[Filter], mtas: Connect) -> None:
    server = Milter.Server(filter_class, "inet:0@127.0.0.1")
    server.open()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    mta = mtas(server)
    mta.negotiate()
    assert mta.helo() == "c"
    server.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_open_before_start(filter_class: type[Filter], mtas: Connect) -> None:
    """Connections wait until it serves."""
    server = Milter.Server(filter_class, "inet:0@127.0.0.1")
    assert server.address is None
    server.open()
    mta = mtas(server)
    mta.send("O", b"\0\0\0\6\0\0\1\xff\0\x1f\xff\xff")
    with server:
        assert mta.receive()[0] == "O"


@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        ("inet:0@127.0.0.1", r"inet:\d+@(127\.0\.0\.1|\[127\.0\.0\.1\])"),
        ("inet:0@localhost", r"inet:\d+@(127\.0\.0\.1|\[127\.0\.0\.1\])"),
        ("inet6:0@[::1]", r"inet6:\d+@\[?::1\]?"),
    ],
)
def test_addresses(filter_class: type[Filter], mtas: Connect, spec: str, pattern: str) -> None:
    with Milter.Server(filter_class, spec) as server:
        assert re.fullmatch(pattern, server.address or "")
        mta = mtas(server)
        mta.negotiate()
        assert mta.helo() == "c"


@pytest.mark.parametrize("prefix", ["", "unix:", "local:"])
def test_unix_sockets(
    filter_class: type[Filter], mtas: Connect, tmp_path: Path, prefix: str
) -> None:
    with Milter.Server(filter_class, f"{prefix}{tmp_path}/socket") as server:
        assert server.address == f"unix:{tmp_path}/socket"
        mta = mtas(server)
        mta.negotiate()
        assert mta.helo() == "c"


def test_an_inherited_descriptor(filter_class: type[Filter], tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()
    with Milter.Server(filter_class, f"fd:{listening.detach()}"):
        mta = Mta.unix(str(tmp_path / "socket"))
        mta.negotiate()
        assert mta.helo() == "c"
        mta.close()


def test_an_adopted_connection(filter_class: type[Filter]) -> None:
    ours, theirs = socket.socketpair()
    with Milter.Server(filter_class, None) as server, Mta(theirs) as mta:
        server.adopt(ours)
        mta.negotiate()
        assert mta.helo("pair") == "c"
    assert filter_class.seen[0] == "hello pair"


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode_of_the_socket(filter_class: type[Filter], tmp_path: Path, mode: int) -> None:
    path = tmp_path / "socket"
    with Milter.Server(filter_class, f"unix:{path}", mode=mode):
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(mode)


def test_the_owner_of_the_socket(filter_class: type[Filter], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Milter.Server(filter_class, f"unix:{path}", owner=os.getuid(), group=os.getgid()):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("which", ["owner", "group"])
def test_an_owner_that_does_not_exist(filter_class: type[Filter], which: str) -> None:
    keywords: dict[str, Any] = {which: "no-such-name"}
    with pytest.raises(milter.error, match="no-such-name"):
        Milter.Server(filter_class, "inet:0@127.0.0.1", **keywords)


REFUSED = """
import os, Milter
if os.geteuid() == 0:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
try:
    Milter.Server(Milter.Base, "unix:s", group="root").open()
except Milter.milter.error as error:
    print(error)
"""


def test_a_group_that_may_not_be_set() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its owner alone
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", REFUSED],
            cwd=folder, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert os.listdir(folder) == []
    assert done.stdout.startswith("socket unix:s: cannot set the group root: Operation not perm")
    assert "only root may" in done.stdout


def test_a_stale_socket(filter_class: type[Filter], mtas: Connect, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(milter.error, match="in use"):
        Milter.Server(filter_class, f"unix:{path}", remove_stale=False).open()
    with Milter.Server(filter_class, f"unix:{path}") as server:
        mta = mtas(server)
        mta.negotiate()


def test_a_socket_that_is_served(filter_class: type[Filter], mtas: Connect, tmp_path: Path) -> None:
    """Nobody takes it away from a filter that runs."""
    spec = f"unix:{tmp_path}/socket"
    with Milter.Server(filter_class, spec) as server:
        with pytest.raises(milter.error):
            Milter.Server(filter_class, spec).open()
        mta = mtas(server)
        mta.negotiate()
        assert mta.helo() == "c"


def test_a_port_that_is_taken(filter_class: type[Filter]) -> None:
    with Milter.Server(filter_class, "inet:0@127.0.0.1") as server:
        other = Milter.Server(filter_class, str(server.address))
        with pytest.raises(milter.error, match="in use"):
            other.start()
        assert other.address is None


@pytest.mark.parametrize("spec", ["", "nothing:x", "inet:", "inet:99999@127.0.0.1", "unix:"])
def test_bad_specifications(filter_class: type[Filter], spec: str) -> None:
    with pytest.raises(milter.error):
        Milter.Server(filter_class, spec).open()


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"factory": 5}, TypeError),
        ({"timeout": -1}, milter.error),
        ({"max_connections": -1}, milter.error),
        ({"max_threads": -1}, milter.error),
        ({"backlog": -1}, milter.error),
        ({"drain": -1}, milter.error),
        ({"progress": -0.5}, milter.error),
        ({"progress": float("nan")}, milter.error),
        ({"exception_policy": milter.DISCARD}, milter.error),
        ({"other": 1}, TypeError),
    ],
)
def test_bad_settings(keywords: dict[str, Any], error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"factory": Filter, "socket": "inet:0@127.0.0.1", **keywords}
    with pytest.raises(error):
        Milter.Server(**arguments)


def test_stats(filter_class: type[Filter], mtas: Connect) -> None:
    with Milter.Server(filter_class, "inet:0@127.0.0.1") as server:
        assert server.stats[:5] == (0, 0, 0, 0, 0)
        mta, other = mtas(server), mtas(server)
        mta.negotiate()
        other.negotiate()
        assert server.stats.open == 2
        for _ in range(3):
            mta.mail()
            mta.rcpt()
            mta.eom()
        mta.quit()
        other.raw(b"GET / HTTP/1.0\r\n\r\n")
        assert other.is_closed()
        until(lambda: server.stats.open == 0)
        stats = server.stats
        assert (stats.accepted, stats.messages, stats.failures) == (2, 3, 1)
        assert stats.threads >= 1


def test_max_connections(filter_class: type[Filter], mtas: Connect) -> None:
    with Milter.Server(filter_class, "inet:0@127.0.0.1", max_connections=2) as server:
        first, second = mtas(server), mtas(server)
        first.negotiate()
        second.negotiate()
        third = mtas(server)
        with pytest.raises((Closed, ConnectionError)):
            third.negotiate()
        assert server.stats.refused == 1
        first.quit()
        until(lambda: server.stats.open == 1)
        fourth = mtas(server)
        fourth.negotiate()
        assert fourth.helo() == "c"
        assert second.helo() == "c"


def test_a_silent_peer_times_out(filter_class: type[Filter], mtas: Connect) -> None:
    with Milter.Server(filter_class, "inet:0@127.0.0.1", timeout=1) as server:
        idle, inside = mtas(server), mtas(server)
        idle.negotiate()
        inside.negotiate()
        inside.mail()
        assert idle.is_closed()
        assert inside.is_closed()
        until(lambda: filter_class.seen.count("close") == 2)
        assert filter_class.seen.count("abort") == 1


def test_blocked_callbacks_do_not_hold_up_others(filter_class: type[Filter], mtas: Connect) -> None:
    with Milter.Server(filter_class, "inet:0@127.0.0.1") as server:
        blocked = [mtas(server) for _ in range(10)]
        for mta in blocked:
            mta.negotiate()
            mta.send("H", b"wait\0")
        other = mtas(server)
        other.negotiate()
        assert other.helo("quick") == "c"
        filter_class.go.set()
        assert [mta.receive() for mta in blocked] == [("c", b"")] * 10


def test_actions(mtas: Connect) -> None:
    """They are for objects that do not negotiate themselves."""

    class Plain:
        def _setctx(self, ctx: milter.Context) -> None:
            self.ctx = ctx

        def eom(self) -> int:
            return milter.ACCEPT

    with Milter.Server(Plain, "inet:0@127.0.0.1", actions=milter.QUARANTINE) as server:
        mta = mtas(server)
        assert mta.negotiate()[1] == milter.QUARANTINE


@pytest.mark.parametrize(
    ("policy", "reply"),
    [
        (milter.TEMPFAIL, "y"),
        (milter.REJECT, "y"),
        (milter.CONTINUE, "c"),
        (milter.ACCEPT, "a"),
    ],
)
def test_exception_policy(
    mtas: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    policy: int,
    reply: str,
) -> None:
    hooked: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: hooked.append(args.exc_type))

    class Failing(Milter.Base):
        def hello(self, name: str) -> int:
            raise ValueError("boom")

    with Milter.Server(
        Failing, "inet:0@127.0.0.1", exception_policy=policy, name="failing"
    ) as server:
        mta = mtas(server)
        mta.negotiate()
        got = mta.helo()
        assert got[0] == reply
        if isinstance(got, tuple):
            code = b"451 4.3.0 " if policy == milter.TEMPFAIL else b"554 5.3.0 "
            assert got[1].startswith(code)
            assert b"failing" in got[1]
    assert hooked == [ValueError]
    (line,) = caplog.records
    assert (line.name, line.levelname) == ("Milter", "ERROR")
    assert line.exc_info is not None
    assert line.exc_info[0] is ValueError


def test_objects_are_let_go(mtas: Connect) -> None:
    alive: weakref.WeakSet[Milter.Base] = weakref.WeakSet()

    class Counted(Milter.Base):
        def __init__(self) -> None:
            alive.add(self)
            self.itself = self

        def hello(self, name: str) -> int:
            return milter.CONTINUE

    with Milter.Server(Counted, "inet:0@127.0.0.1") as server:
        for _ in range(20):
            mta = mtas(server)
            mta.negotiate()
            mta.helo()
            mta.quit()
        until(lambda: server.stats.open == 0)

        def gone() -> bool:
            gc.collect()
            return len(alive) == 0

        until(gone)


def test_servers_are_let_go() -> None:
    class Refusing(Milter.Base):
        pass

    made = [Milter.Server(Refusing, "inet:0@127.0.0.1") for _ in range(5)]
    for server in made:
        with server:
            pass
    refs = [weakref.ref(server) for server in made]
    del made, server
    gc.collect()
    assert [ref() for ref in refs] == [None] * 5


def test_no_descriptor_is_left(filter_class: type[Filter]) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def serve() -> None:
        with (
            Milter.Server(filter_class, "inet:0@127.0.0.1") as server,
            connect_to(server) as mta,
        ):
            mta.negotiate()
            mta.helo()

    serve()
    gc.collect()
    before = descriptors()
    for _ in range(5):
        serve()
    gc.collect()
    assert descriptors() == before


def test_the_module_is_free_beside_it(filter_class: type[Filter], mtas: Connect) -> None:
    """Servers have nothing to do with the one of runmilter: stop() of it does not end them."""
    with Milter.Server(filter_class, "inet:0@127.0.0.1") as server:
        milter.stop()
        mta = mtas(server)
        mta.negotiate()
        assert mta.helo() == "c"


FORK = """
import os, sys, Milter, milter
server = Milter.Server(Milter.Base, "inet:0@127.0.0.1").start()
for call in (server.stop, server.serve_forever, lambda: server.stats):
    child = os.fork()
    if child == 0:
        try:
            call()
        except milter.error as error:
            print(error, flush=True)
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"no error: {status}")
server.stop(timeout=10)
"""


def test_a_fork_of_a_running_server() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("process" in line for line in lines)


@pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)
@pytest.mark.parametrize("poller", ["epoll", "poll"])
def test_pollers(start: Start, poller: str) -> None:
    program = start(
        """
        class Filter(Seen):
            def hello(self, name):
                links = set()
                for fd in os.listdir("/proc/self/fd"):
                    try:
                        links.add(os.readlink("/proc/self/fd/" + fd))
                    except OSError:
                        pass
                record("anon_inode:[eventpoll]" in links)
                return Milter.CONTINUE
        run(Filter)
        """,
        MILTERKIT_POLLER=poller,
    )
    mtas = [program.connect() for _ in range(20)]
    for mta in mtas:
        mta.negotiate()
    for mta in mtas:
        assert mta.helo() == "c"
        mta.mail()
        mta.rcpt()
        assert mta.eom() == [("c", b"")]
        mta.quit()
    assert {what for what in program.seen() if what[0] in (True, False)} == {(poller == "epoll",)}


def test_a_logger_of_its_own(
    filter_class: type[Filter],
    mtas: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the callbacks raise goes there and nowhere else, with the step."""

    class Raising(filter_class):  # type: ignore[misc, valid-type]
        def envfrom(self, f: str, *params: str) -> int:
            raise ValueError("no such thing")

    records: list[logging.LogRecord] = []
    hooked: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", hooked.append)
    own = logging.Logger("own", logging.INFO)  # it is to know no other
    own.addHandler(handler := logging.Handler())
    monkeypatch.setattr(handler, "emit", records.append)
    with Milter.Server(Raising, "inet:0@127.0.0.1", logger=own) as server:
        mta = mtas(server)
        mta.negotiate()
        assert mta.mail()[0] == "y"
    [record] = [each for each in records if each.levelno > logging.INFO]
    assert record.exc_info
    assert repr(record.exc_info[1]) == "ValueError('no such thing')"
    assert record.getMessage().endswith("exception in the envfrom callback")
    assert (hooked, caplog.records) == ([], [])
