"""Where a filter begins and ends: stops and signals that come early, sockets that are open already,
child processes, and what a callback may not wait for."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import Milter
import milter
import pytest

from .conftest import Program, Start
from .differences import expected
from .mta import DEADLINE, Mta, packet
from .test_server import connect_to
from .test_server_life import LOOPBACK, OURS, TESTS, run_python

# The older package, and Milter.runmilter of ours; the low-level functions have main() instead.
BOTH = pytest.mark.parametrize("implementation", ["oracle", "ours-fast"], indirect=True)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Those that are put here are killed after the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


# ------------------------------------------------------------------------- stops that come early


def test_a_stop_before_main(start: Start) -> None:
    """As a thread that stops a filter may be quicker than the one that starts it."""
    program = start("milter.stop()\nrun(Seen)\nos._exit(0)")
    assert program.wait() == 0
    assert program.steps() == ["ended"]


def test_a_stop_counts_once(tmp_path: Path) -> None:
    done = run_python(
        f"""
        import os, sys, threading, Milter
        sys.path.insert(0, {TESTS!r})
        from api.mta import Mta
        path = sys.argv[1]
        Milter.factory = Milter.Base
        Milter.stop()
        Milter.runmilter("test", "unix:" + path)
        assert not os.path.exists(path)
        class Stopping(Milter.Base):
            def hello(self, name):
                Milter.stop()
                return Milter.CONTINUE
        Milter.factory = Stopping
        def peer():
            while not os.path.exists(path):
                pass
            mta = Mta.unix(path)
            mta.negotiate()
            print(mta.helo())
        threading.Thread(target=peer).start()
        Milter.runmilter("test", "unix:" + path)
        """,
        str(tmp_path / "socket"),
    )
    assert done.stdout == "c\n"


def test_stops_at_odd_moments(tmp_path: Path) -> None:
    run_python(
        """
        import random, sys, threading, time, Milter
        Milter.factory = Milter.Base
        def stop():
            time.sleep(random.random() * 0.0006)
            Milter.stop()
        for _ in range(200):
            thread = threading.Thread(target=stop)
            thread.start()
            Milter.runmilter("test", "unix:" + sys.argv[1])
            thread.join()
        """,
        str(tmp_path / "socket"),
    )


@pytest.mark.parametrize("way", ["stop", "abort"])
def test_a_stop_before_serve_forever(way: str) -> None:
    server = Milter.Server(Milter.Base, LOOPBACK)
    getattr(server, way)()
    server.serve_forever()
    assert server.address is None


# ------------------------------------------------------------------- sockets that are open already


@BOTH
@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_opensocket_then_runmilter(start: Start, free_port: int, kind: str) -> None:
    """Programs open it as root, or set its mode, and then serve it."""
    program = start(
        """
        milter.register("test")
        milter.setconn(os.environ["AT"])
        milter.opensocket(True)
        if os.environ["AT"].startswith("unix"):
            os.chmod(os.environ["AT"][5:], 0o640)
        Milter.factory = Seen
        Milter.runmilter("test", os.environ["AT"], 10)
        """,
        AT="unix:./socket" if kind == "unix" else f"inet:{free_port}@127.0.0.1",
    )
    mta = (
        program.connect()
        if kind == "unix"
        else program.keep(program.until(lambda: Mta.inet("127.0.0.1", free_port), OSError))
    )
    mta.negotiate()
    assert mta.helo() == "c"
    if kind == "unix":
        assert os.stat(program.socket).st_mode & 0o777 == 0o640


@BOTH
def test_opensocket_then_runmilter_elsewhere(start: Start, implementation: str) -> None:
    program = start(
        """
        class Ending(Milter.Base):
            def hello(self, name):
                record("the first serves")
                return Milter.CONTINUE
        Milter.factory = Ending
        milter.register("test")
        milter.setconn(os.environ["SOCKET"])
        milter.opensocket(True)
        record(*attempt(Milter.runmilter, "test", os.environ["SOCKET"] + "2", 10)[:1])
        """
    )
    if implementation == "oracle":
        mta = program.connect()
        mta.negotiate()
        mta.helo()
    program.await_lines(1)
    assert program.steps()[0] == expected(implementation, "opensocket, then runmilter elsewhere")


def test_opensocket_then_runmilter_in_other_words(tmp_path: Path) -> None:
    run_python(
        """
        import os, sys, Milter, milter
        Milter.factory = Milter.Base
        folder = sys.argv[1]
        milter.setconn(f"unix:{folder}/a")
        milter.opensocket(True)
        try:
            Milter.runmilter("test", f"unix:{folder}/b")
        except milter.error as error:
            assert f"opensocket has opened unix:{folder}/a" in str(error), error
        else:
            raise AssertionError
        assert os.listdir(folder) == ["a"]
        milter.stop()
        Milter.runmilter("test", f"local:{folder}/a")  # the same in other words
        assert os.listdir(folder) == []
        """,
        str(tmp_path),
    )


# ------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("way", ["runmilter", "serve_forever"])
def test_a_signal_while_the_socket_is_opened(
    tmp_path: Path, way: str, moment: str, name: str
) -> None:
    """Right before it is there, and right after."""
    run_python(
        """
        import os, signal, sys, Milter
        path, way, moment, name = sys.argv[1:]
        Milter.factory = Milter.Base
        opened = Milter.Server.open
        def open(server):
            if moment == "after":
                opened(server)
                assert os.path.exists(path)
            os.kill(os.getpid(), signal.Signals[name])
            if moment == "before":
                opened(server)
        Milter.Server.open = open
        if way == "runmilter":
            Milter.runmilter("test", "unix:" + path)
        else:
            Milter.Server(Milter.Base, "unix:" + path).serve_forever()
        assert not os.path.exists(path)
        """,
        str(tmp_path / "socket"),
        way,
        moment,
        name,
    )


@pytest.mark.parametrize("way", ["runmilter", "main", "run"])
def test_sigterm_at_any_moment(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]], way: str
) -> None:
    """No socket is left behind. Once there is one, the status is 0; before, the signal may have its
    default action."""
    path = tmp_path / "socket"
    script = tmp_path / "program.py"
    start = {
        "runmilter": f"Milter.factory = Milter.Base; Milter.runmilter('test', 'unix:{path}')",
        "main": f"milter.register('test'); milter.setconn('unix:{path}'); milter.main()",
        "run": "class Filter(Milter.Base): pass",
    }
    script.write_text(f"import Milter, milter\n{start[way]}\n")
    command = [sys.executable, script]
    if way == "run":
        command = [sys.executable, "-m", "Milter", "run", script, "--socket", f"unix:{path}"]
    chance = random.Random(1)
    for round_ in range(12):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        processes.append(process)
        end = time.monotonic() + (DEADLINE if round_ % 2 else chance.random() * 0.15)
        while not (there := path.exists()) and time.monotonic() < end:
            pass
        process.send_signal(signal.SIGTERM)
        status = process.wait(DEADLINE)
        assert not path.exists()
        assert status in ((0,) if there else (0, -signal.SIGTERM))


def test_sigterm_while_the_filter_is_loaded(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    """`milterkit run` has nothing to finish then."""
    script = tmp_path / "slow.py"
    script.write_text("import sys\nprint('loading', flush=True)\nsys.stdin.read()\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "Milter", "run", script, "--socket", f"unix:{tmp_path}/socket"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    processes.append(process)
    assert process.stdout
    assert process.stdout.readline() == b"loading\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, errors) == (0, b"")


@BOTH
def test_one_sigint_in_an_event_loop(start: Start) -> None:
    """asyncio.run has a handler for it that only cancels the task that serves."""
    program = start(
        """
        import asyncio
        Milter.factory = Seen
        async def serve():
            Milter.runmilter("test", os.environ["SOCKET"], 10)
            record("ended")
        asyncio.run(serve())
        """
    )
    program.connect().negotiate()
    program.signal(signal.SIGINT)
    assert program.wait() == 0
    assert program.await_step("ended")


# ------------------------------------------------------------------------------ child processes


def test_a_pool_that_a_callback_makes() -> None:
    """Its processes keep no connection and no socket open, and end by the signals that end any."""
    done = run_python(
        f"""
        import multiprocessing, os, signal, socket, sys, threading
        sys.path.insert(0, {TESTS!r})
        import Milter
        from api.mta import Mta
        children = []
        class Filter(Milter.Base):
            def hello(self, name):
                child = multiprocessing.get_context("fork").Process(target=signal.pause)
                child.start()
                children.append(child)
                return Milter.CONTINUE
        def held(pid):
            folder = f"/proc/{{pid}}/fd"
            found = set()
            for each in os.listdir(folder):
                try:
                    found.add(os.readlink(f"{{folder}}/{{each}}"))
                except FileNotFoundError:  # it was closed meanwhile
                    pass
            return {{each for each in found if each.startswith(("socket:", "anon_inode:"))}}
        def peer():
            while server.address is None:
                pass
            port = int(server.address.partition("@")[0].partition(":")[2])
            mta = Mta.inet("127.0.0.1", port)
            mta.negotiate()
            assert mta.helo() == "c"
            mine = os.readlink(f"/proc/self/fd/{{mta.sock.fileno()}}")
            while held(children[0].pid) - {{mine}}:
                pass
            mta.send("Q")
            assert mta.is_closed()
            server.stop()
            ended.wait()
            try:
                Mta.inet("127.0.0.1", port)
            except ConnectionRefusedError:
                print("refused")
            again = Milter.Server(Milter.Base, f"inet:{{port}}@127.0.0.1").start()
            again.stop(timeout=10)
            children[0].terminate()
            children[0].join()
            print(children[0].exitcode)
        server = Milter.Server(Filter, {LOOPBACK!r})
        ended = threading.Event()
        thread = threading.Thread(target=peer)
        thread.start()
        server.serve_forever()
        ended.set()
        thread.join()
        """
    )
    assert done.stdout.split() == ["refused", str(-signal.SIGTERM)]


FORKING = {
    "a log handler": """
        class Handler(logging.Handler):
            def emit(self, line):
                fork()
        logging.getLogger("Milter").addHandler(Handler())
        class Filter(Counting):
            def hello(self, name):
                raise ValueError
        """,
    "a log handler, of a line of the engine": """
        class Handler(logging.Handler):
            def emit(self, line):
                fork()
        logging.getLogger("Milter").addHandler(Handler())
        class Filter(Counting):
            def hello(self, name):
                self.setreply("450", "4.7.1", "later")
                return Milter.REJECT
        """,
    "sys.unraisablehook": """
        sys.unraisablehook = lambda _: fork()
        class Filter(Counting):
            def hello(self, name):
                raise ValueError
        """,
    "__del__ of an argument's owner": """
        class Dying:
            def __del__(self):
                fork()
        class Filter(Counting):
            def hello(self, name):
                self.dying = Dying()
                self.dying = None
                return Milter.TEMPFAIL
        """,
    "__del__ of the object": """
        class Filter(Counting):
            def hello(self, name):
                return Milter.TEMPFAIL
            def __del__(self):
                fork()
        """,
}


@OURS
@pytest.mark.parametrize("where", FORKING)
def test_forks_beside_callbacks(start: Start, where: str) -> None:
    """The child ends there: it calls nothing more, and only one process answers the MTA."""
    program: Program = start(
        """
        import logging, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def fork():
            child = os.fork()
            if child:
                record("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        class Counting(Milter.Base):
            def envfrom(self, sender, *params):
                record("envfrom")
                return Milter.CONTINUE
        """
        + textwrap.dedent(FORKING[where]).replace("\n", "\n        ")
        + "\n        run(Filter)\n",
        tracebacks=True,
    )
    mta = program.connect()
    mta.negotiate()
    mta.raw(packet("H", b"me\0") + packet("M", b"<a@b>\0"))
    assert mta.receive()[0] in "try"
    assert mta.receive()[0] == "c"
    mta.send("Q")
    assert mta.is_closed()
    assert program.await_step("ended")[0] == ("ended", 1)
    assert program.steps().count("envfrom") == 1


# -------------------------------------------------------------- what a callback may not wait for


@pytest.mark.parametrize("call", ["stop(timeout=1)", "join()", "join(1)"])
def test_waiting_for_itself(call: str) -> None:
    raised: list[str] = []

    class Waiting(Milter.Base):
        def hello(self, name: str) -> int:
            try:
                eval(f"server.{call}", {"server": server})
            except milter.error as error:
                raised.append(str(error))
            return Milter.CONTINUE

    with Milter.Server(Waiting, LOOPBACK) as server, connect_to(server) as mta:
        mta.negotiate()
        assert mta.helo() == "c"
        assert mta.mail() == "c"  # nothing was stopped
    assert len(raised) == 1
    assert "would wait for itself" in raised[0]


def test_waiting_for_another_server() -> None:
    other = Milter.Server(Milter.Base, LOOPBACK).start()

    class Waiting(Milter.Base):
        def hello(self, name: str) -> int:
            other.stop(timeout=DEADLINE)
            return Milter.CONTINUE

    with Milter.Server(Waiting, LOOPBACK) as server, connect_to(server) as mta:
        mta.negotiate()
        assert mta.helo() == "c"
    assert other.address is None
