"""Hard times in a server's life: ends while something blocks, stops at odd moments, forks, signals,
peers that do not read, the interpreter's end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import Milter
import milter
import pytest

from .conftest import Start
from .mta import DEADLINE, Mta
from .test_server import connect_to, until

TESTS = str(Path(__file__).parent.parent)
# Newer Pythons warn of forks while threads run, which is what these tests are about.
FORKS = "ignore:This process:DeprecationWarning"
LOOPBACK = "inet:0@127.0.0.1"
OURS = pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)

Pair = Callable[[Milter.Server], Mta]


@pytest.fixture
def narrow() -> Iterator[Pair]:
    """Connects to servers by socket pairs that hold few bytes, and closes them after the test."""
    made: list[Mta] = []

    def connect(server: Milter.Server) -> Mta:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made.append(Mta(theirs))
        with ours:  # which closes what was not adopted
            server.adopt(ours)
        return made[-1]

    yield connect
    for mta in made:
        mta.close()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """For callbacks that fail as they should: pytest would report it once more."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


def to_eom(mta: Mta) -> None:
    """One message, up to its end; does not read what the filter then sends."""
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    mta.send("E")


def run_python(source: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, which must come and be a good one."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", FORKS, "-c", textwrap.dedent(source), *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# --------------------------------------------------------------------- peers that do not read


class Writing(Milter.Base):
    """Sends much at the end of a message."""

    def envfrom(self, f: str, *params: str) -> int:
        return milter.CONTINUE

    def envrcpt(self, to: str, *params: str) -> int:
        return milter.CONTINUE

    def eom(self) -> int:
        self.replacebody(b"x" * (1 << 20))
        return milter.CONTINUE


@pytest.mark.usefixtures("quiet")
def test_abort_while_a_callback_writes(narrow: Pair) -> None:
    server = Milter.Server(Writing, None).start()
    mta = narrow(server)
    to_eom(mta)
    assert mta.sock.recv(1, socket.MSG_PEEK)  # it has begun, and has room for little
    server.abort()
    assert server.join(DEADLINE)


@pytest.mark.usefixtures("quiet")
def test_stop_with_a_timeout_while_a_callback_writes(narrow: Pair) -> None:
    server = Milter.Server(Writing, None).start()
    mta = narrow(server)
    to_eom(mta)
    assert mta.sock.recv(1, socket.MSG_PEEK)
    thread = threading.Thread(target=server.stop, args=(0.1,), daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_abort_in_a_callback_whose_output_waits(narrow: Pair) -> None:
    class Aborting(Writing):
        def eom(self) -> int:
            self.replacebody(b"x" * 200_000)  # too little to be written during the call
            server.abort()
            return milter.CONTINUE

    server = Milter.Server(Aborting, None).start()
    to_eom(narrow(server))
    assert server.join(DEADLINE)


def test_it_ends_with_the_interpreter() -> None:
    run_python(
        """
        import socket, sys, Milter
        sys.path.insert(0, sys.argv[1])
        from api.mta import Mta
        from api.test_server_life import Writing, to_eom
        server = Milter.Server(Writing, None).start()
        ours, theirs = socket.socketpair()
        server.adopt(ours)
        mta = Mta(theirs)
        to_eom(mta)
        mta.sock.recv(1, socket.MSG_PEEK)
        """,
        TESTS,
    )


@OURS
@pytest.mark.parametrize("size", [262_100, 262_143, 262_144, 300_000, 50_000_000])
def test_others_are_served_while_a_callback_writes(start: Start, size: int) -> None:
    program = start(
        f"""
        class Filter(Milter.Base):
            def hello(self, name):
                return Milter.CONTINUE
            def eom(self):
                body = b"x" * {size}
                record("eom")
                self.replacebody(body)
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta, other = program.connect(), program.connect()
    other.negotiate()
    mta.negotiate()
    mta.mail()
    mta.send("E")
    program.await_step("eom")
    for _ in range(100):
        assert other.helo() == "c"
    got = 0
    while (packet := mta.receive())[0] == "b":
        got += len(packet[1])
    assert (got, packet) == (size, ("c", b""))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("poller", ["epoll", "poll"])
def test_a_peer_that_does_not_read_times_out(
    narrow: Pair, monkeypatch: pytest.MonkeyPatch, poller: str
) -> None:
    monkeypatch.setenv("MILTERKIT_POLLER", poller)
    raised: list[BaseException] = []

    class Waiting(Writing):
        def eom(self) -> int:
            try:
                return super().eom()
            except BaseException as error:
                raised.append(error)
                raise

    with Milter.Server(Waiting, None, timeout=1) as server:
        to_eom(narrow(server))
        until(lambda: server.stats.open == 0)
    assert [type(error) for error in raised] == [milter.error]


def test_a_long_callback_is_not_the_silence_of_the_peer(narrow: Pair) -> None:
    """Time passes here because it is what the test is about."""

    class Slow(Milter.Base):
        def hello(self, name: str) -> int:
            if name == "wait":
                time.sleep(2.5)
            return milter.CONTINUE

    with Milter.Server(Slow, None, timeout=2) as server:
        mta = narrow(server)
        mta.negotiate()
        assert mta.helo("wait") == "c"
        time.sleep(0.8)
        assert mta.helo() == "c"


# ------------------------------------------------------------------------------ odd moments


def serves(server: Milter.Server) -> bool:
    with connect_to(server) as mta:
        return mta.negotiate()[0] == 6


def test_a_stop_is_for_one_run() -> None:
    server = Milter.Server(Milter.Base, LOOPBACK)
    for _ in range(2):
        with server:
            assert serves(server)
            server.stop(timeout=DEADLINE)
            server.stop()
    with server:
        assert serves(server)


def test_a_stop_before_the_start_is_no_stop() -> None:
    server = Milter.Server(Milter.Base, LOOPBACK)
    server.stop()
    server.abort()
    with server:
        assert serves(server)


def test_a_stop_while_it_starts() -> None:
    for _ in range(50):
        server = Milter.Server(Milter.Base, LOOPBACK).start()
        server.stop()
        assert server.join(DEADLINE)
        assert server.address is None


def test_serving_twice(tmp_path: Path) -> None:
    with Milter.Server(Milter.Base, f"unix:{tmp_path}/socket") as server:
        address = server.address
        with pytest.raises(milter.error, match="runs already"):
            server.serve_forever()
        server.open()
        assert server.address == address
        assert serves(server)


def test_start_of_what_serves_in_another_thread() -> None:
    server = Milter.Server(Milter.Base, LOOPBACK)
    server.open()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert serves(server)
    with pytest.raises(milter.error, match="runs already"):
        server.start()
    assert serves(server)
    server.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_join_in_several_threads() -> None:
    server = Milter.Server(Milter.Base, LOOPBACK).start()
    results: list[Any] = []

    def join() -> None:
        try:
            results.append(server.join(DEADLINE))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=join) for _ in range(8)]
    for thread in threads:
        thread.start()
    server.stop()
    for thread in threads:
        thread.join(DEADLINE)
    assert results == [True] * 8


def test_adopt_while_it_ends(narrow: Pair) -> None:
    """A connection that would never be ended is not taken."""
    raised: list[BaseException] = []

    class Adopting(Milter.Base):
        def close(self) -> int:
            try:
                narrow(server)
            except BaseException as error:
                raised.append(error)
            return milter.CONTINUE

    server = Milter.Server(Adopting, None).start()
    narrow(server).negotiate()
    server.abort()
    assert server.join(DEADLINE)
    assert [type(error) for error in raised] == [milter.error]


def test_adopting_twice() -> None:
    ours, theirs = socket.socketpair()
    fd = ours.fileno()
    with Milter.Server(Milter.Base, None) as server, Mta(theirs) as mta:
        server.adopt(ours)
        with pytest.raises(milter.error, match="already"):
            server.adopt(fd)
        mta.negotiate()
        mta.quit()


@pytest.mark.parametrize("keyword", ["timeout", "drain", "max_connections", "max_threads"])
def test_numbers_that_are_too_large(keyword: str) -> None:
    keywords: dict[str, Any] = {keyword: 1 << 32}
    with pytest.raises(milter.error, match=keyword):
        Milter.Server(Milter.Base, LOOPBACK, **keywords)


@pytest.mark.parametrize("mode", [-1, 0o10000, 1 << 70])
def test_a_mode_that_is_none(mode: int) -> None:
    with pytest.raises(milter.error, match="mode"):
        Milter.Server(Milter.Base, LOOPBACK, mode=mode)


def test_no_socket_is_left_where_opening_fails(tmp_path: Path) -> None:
    """Here: to give it to another owner, which only root may."""
    tmp_path.chmod(0o777)
    run_python(
        """
        import os, sys, Milter, milter
        os.chdir(sys.argv[1])
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            Milter.Server(Milter.Base, "unix:socket", owner=0).open()
        except milter.error as error:
            assert "owner" in str(error), error
        else:
            sys.exit("no error")
        """,
        str(tmp_path),
    )
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ objects


def test_objects_with_slots_on_a_connection_that_is_used_again(narrow: Pair) -> None:
    class Slots:
        __slots__ = ("ctx",)

        def _setctx(self, ctx: milter.Context) -> None:
            self.ctx = ctx

        def hello(self, name: str) -> int:
            return milter.ACCEPT

    with Milter.Server(Slots, None) as server:
        mta = narrow(server)
        mta.negotiate()
        assert mta.helo() == "a"
        mta.send("K")  # a new client on the same connection, without a negotiation
        assert mta.helo() == "a"


def test_destructors_that_raise(narrow: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    hooked: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: hooked.append(args[:2] + args[4:]))

    class Dying(Milter.Base):
        def negotiate(self, opts: list[int]) -> int:
            self.kept = self._ctx
            return super().negotiate(opts)

        def __del__(self) -> None:
            self.kept.addheader("X", "too late")

    mine = Dying.__del__

    def seen() -> list[Any]:
        return [kind for kind, _, what in hooked if what is mine]

    with Milter.Server(Dying, None) as server:
        for _ in range(3):
            mta = narrow(server)
            mta.negotiate()
            mta.quit()
        until(lambda: len(seen()) >= 3)
    assert seen() == [milter.error] * 3


# --------------------------------------------------------------------------------------- forks


@OURS
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("pass", 1),
        ("raise ValueError('in the child')", 1),
        ("sys.exit(7)", 7),
        ("sys.exit()", 0),
        ("os._exit(9)", 9),
    ],
)
def test_a_fork_in_a_callback(start: Start, end: str, status: int) -> None:
    """The child ends where it leaves the callback: one process answers the MTA."""
    program = start(
        f"""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        class Filter(Milter.Base):
            def hello(self, name):
                child = os.fork()
                if child == 0:
                    {end}
                    return Milter.REJECT
                record(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                return Milter.CONTINUE
        run(Filter)
        """,
        tracebacks=True,
    )
    mta = program.connect()
    mta.negotiate()
    for _ in range(3):
        assert mta.helo() == "c"
    assert program.seen() == [(status,)] * 3


def test_a_socket_that_is_not_set_is_refused() -> None:
    """Not served where nobody can find it."""
    run_python(
        """
        import Milter
        try:
            Milter.runmilter("test", None)
        except TypeError as error:
            assert "must be a str such as 'unix:" in str(error), error
        else:
            raise AssertionError
        """
    )


def test_a_child_has_a_filter_of_its_own(tmp_path: Path) -> None:
    """Also where the parent's main() runs."""
    run_python(
        """
        import os, sys, threading, Milter
        Milter.factory = Milter.Base
        def serve(path):
            Milter.runmilter("test", "unix:" + path)
        threading.Thread(target=serve, args=(sys.argv[1],)).start()
        from api.mta import Mta
        def reach(path):
            while True:
                try:
                    return Mta.unix(path)
                except OSError:
                    pass
        reach(sys.argv[1]).close()
        child = os.fork()
        if child == 0:
            threading.Thread(
                target=lambda: (reach(sys.argv[2]).negotiate(), Milter.stop())
            ).start()
            serve(sys.argv[2])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        reach(sys.argv[1]).negotiate()
        Milter.stop()
        """.replace("import os, sys", f"import sys; sys.path.insert(0, {TESTS!r}); import os", 1),
        str(tmp_path / "parent"),
        str(tmp_path / "child"),
    )


def test_what_a_fork_may_not_use() -> None:
    run_python(
        """
        import os, socket, sys, Milter, milter
        server = Milter.Server(Milter.Base, "inet:0@127.0.0.1").start()
        while not server.stats.threads:
            pass
        calls = (server.open, server.start, server.serve_forever, server.stop, server.abort,
                 lambda: server.stats, lambda: server.address, lambda: server.adopt(0))
        child = os.fork()
        if child == 0:
            for call in calls:
                try:
                    call()
                except milter.error as error:
                    assert "process" in str(error), error
                else:
                    print("no error:", call, flush=True)
                    os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        server.stop(timeout=10)
        """
    )


def test_a_daemon_that_opens_its_socket_first(tmp_path: Path) -> None:
    """The parent's end does not take the socket away from the child that serves it."""
    path = tmp_path / "socket"
    program = """
        import os, sys, Milter
        server = Milter.Server(Milter.Base, "unix:" + sys.argv[1])
        server.open()
        if os.fork():
            sys.exit()
        server.serve_forever()
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], start_new_session=True
    )
    try:
        assert process.wait(DEADLINE) == 0
        with Mta.unix(str(path)) as mta:
            mta.negotiate()
        os.killpg(process.pid, signal.SIGTERM)
        until(lambda: not path.exists())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------- signals


@OURS
def test_a_handler_that_raises_while_a_line_is_logged(start: Start) -> None:
    program = start(
        """
        import logging, signal
        class Raised(Exception):
            pass
        def handler(number, frame):
            raise Raised
        signal.signal(signal.SIGUSR1, handler)
        class Handler(logging.Handler):
            def emit(self, line):
                os.kill(os.getpid(), signal.SIGUSR1)
        logging.getLogger("Milter").addHandler(Handler())
        Milter.factory = Milter.Base
        server = Milter.Server(Milter.Base, os.environ["SOCKET"], max_connections=1)
        try:
            server.serve_forever()
        except Raised:
            record("raised")
        """
    )
    program.connect().negotiate()
    program.connect()  # refused, which is logged
    assert program.wait() == 0
    assert program.steps() == ["raised"]


# ------------------------------------------------------------------------------------ the end


def test_exit_right_after_the_start() -> None:
    source = """
        import sys, Milter
        server = Milter.Server(Milter.Base, "inet:0@127.0.0.1").start()
        sys.exit()
        """
    for _ in range(5):
        assert run_python(source).stderr == ""


def test_few_descriptors(tmp_path: Path) -> None:
    """Without any left it logs now and then, not each time; it goes on when some are free."""
    done = run_python(
        f"""
        import logging, os, resource, socket, sys, time
        sys.path.insert(0, {TESTS!r})
        import Milter
        from api.mta import Mta
        lines = []
        class Handler(logging.Handler):
            def emit(self, line):
                lines.append(line.getMessage())
        logging.getLogger("Milter").addHandler(Handler())
        path = sys.argv[1]
        with Milter.Server(Milter.Base, "unix:" + path) as server:
            first = Mta.unix(path)
            first.negotiate()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            held = []
            try:
                while True:
                    held.append(socket.socket(socket.AF_UNIX))
            except OSError:
                pass
            for each in held:
                each.connect(path)
            while len(lines) < 3:
                time.sleep(0.01)
            assert all("too many open files" in text.lower() for text in lines), lines
            # One line stands for several attempts.
            assert any(" times since the last such line)" in text for text in lines), lines
            for each in held:
                each.close()
            with Mta.unix(path) as mta:
                mta.negotiate()
            first.close()
        """,
        str(tmp_path / "socket"),
    )
    assert done.stderr == ""
