"""What programs that exist rely on: each of these was seen in some of them."""

from __future__ import annotations

import os
import signal
import stat

import pytest

from .conftest import Start
from .differences import DIFFERENCES, expected
from .mta import Mta

OURS = pytest.mark.parametrize(
    "implementation", ["ours-lowlevel", "ours-fast"], indirect=True
)  # where the older package does something else, or takes seconds to end


def a_message(mta: Mta) -> list[tuple[str, bytes]]:
    """Sends a message; returns what came at its end, the verdict included."""
    mta.negotiate()
    for reply in (
        mta.connect(),
        mta.helo(),
        mta.mail(),
        mta.rcpt(),
        mta.data(),
        mta.header("Subject", "text"),
        mta.eoh(),
        mta.body(),
    ):
        assert reply == "c"
    return mta.eom()


@pytest.mark.parametrize(
    "init",
    [
        "pass",
        "self.count = 0",
        "Milter.Base.__init__(self)",
        "super().__init__()",
        "self.__dict__.clear()",
    ],
)
def test_constructors(start: Start, init: str) -> None:
    """Most never call super().__init__()."""
    program = start(
        f"""
        class Filter(Milter.Base):
            def __init__(self):
                {init}
            def eom(self):
                self.addheader("X", "v")
                return Milter.CONTINUE
            def header(self, field, value): return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    assert mta.eom() == [("h", b"X\0v\0"), ("c", b"")]


def test_init_in_mid_session(start: Start) -> None:
    """Some start each message by calling their constructor again."""
    program = start(
        """
        class Filter(Milter.Base):
            def __init__(self):
                self.recipients = []
            def envfrom(self, f, *params):
                self.__init__()
                return Milter.CONTINUE
            def envrcpt(self, to, *params):
                self.recipients.append(to)
                return Milter.CONTINUE
            def eom(self):
                self.addheader("X-To", " ".join(self.recipients))
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    for recipient in (b"<one>", b"<two>"):
        mta.mail()
        mta.rcpt(recipient)
        assert mta.eom() == [("h", b"X-To\0" + recipient + b"\0"), ("c", b"")]


def test_attributes_named_like_callbacks(start: Start) -> None:
    """`self.data = []`: the callback of that name, which the class does not override, is hidden;
    others work."""
    program = start(
        """
        class Filter(Milter.Base):
            def __init__(self):
                self.data = []
                self.unknown = None
                self.abort_count = 0
            def header(self, field, value):
                self.data.append((field, value))
                return Milter.CONTINUE
            def eom(self):
                record(self.data)
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    _, _, protocol = mta.negotiate()
    assert protocol & 0x300 == 0x300  # neither DATA nor UNKNOWN is asked for
    mta.mail()
    mta.rcpt()
    mta.header("X", "v")
    assert mta.eom() == [("c", b"")]
    assert program.seen() == [([("X", "v")],)]


def test_another_object_kept_by_the_context(start: Start, implementation: str) -> None:
    """(With the low-level functions it is the program that asks for the object.)"""
    program = start(
        """
        class First(Milter.Base):
            name = "first"
            def hello(self, name):
                record(self.name)
                self._ctx.setpriv(Second())
                return Milter.CONTINUE
            def envfrom(self, f, *params):
                record(self.name)
                return Milter.CONTINUE
        class Second(First):
            name = "second"
        run(First)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.helo()
    assert mta.mail() == "c"
    difference = DIFFERENCES["an object given to ctx.setpriv"]
    then = difference.ours if implementation == "ours-fast" else difference.theirs
    assert program.seen() == [("first",), (then,)]


def test_an_attribute_that_is_read_raises(start: Start) -> None:
    """Callbacks are found on the class: a property or __getattr__ of the instance is not asked."""
    program = start(
        """
        class Filter(Milter.Base):
            def __getattr__(self, name):
                record("asked for", name)
                raise AttributeError(name)
            def eom(self): return Milter.ACCEPT
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    assert mta.eom() == [("a", b"")]
    assert program.seen() == []


def test_actions_with_another_signature(start: Start) -> None:
    program = start(
        """
        class Filter(Milter.Base):
            def addheader(self, name, value, fold=True):
                super().addheader(name, value.upper())
            def chgheader(self, name, value):
                super().chgheader(name, 1, value)
            def delrcpt(self, *rcpts):
                for rcpt in rcpts:
                    super().delrcpt(rcpt)
            def setreply(self, text):
                super().setreply("550", "5.7.1", text)
            def getsymval(self, *names):
                return [super(Filter, self).getsymval(name) for name in names]
            def log(self, *msg):
                raise RuntimeError("nobody else calls it")
            def envfrom(self, f, *params):
                record(self.getsymval("i", "j"))
                return Milter.CONTINUE
            def eom(self):
                self.addheader("X", "v")
                self.chgheader("Y", "w")
                self.delrcpt("<a>", "<b>")
                self.setreply("no")
                return Milter.REJECT
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.macros("M", "i", "QUEUE")
    mta.mail()
    mta.rcpt()
    assert mta.eom() == [
        ("h", b"X\0V\0"),
        ("m", b"\0\0\0\1Y\0w\0"),
        ("-", b"<a>\0"),
        ("-", b"<b>\0"),
        ("y", b"550 5.7.1 no\0"),
    ]
    assert program.seen() == [(["QUEUE", None],)]


@pytest.mark.parametrize(
    "factory",
    [
        "Filter",
        "lambda: Filter()",
        "make",
        "functools.partial(Filter)",
        "functools.partial(Filter, 5)",
        "Made()",
    ],
)
def test_factories(start: Start, factory: str) -> None:
    program = start(
        f"""
        import functools
        class Filter(Seen):
            def __init__(self, number=0):
                record("made", number)
        def make(): return Filter()
        class Made:
            def __call__(self): return Filter()
        run({factory})
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.helo()
    assert program.seen() == [("made", 5 if "5" in factory else 0), ("hello", "me")]


def test_the_factory_is_read_anew(start: Start) -> None:
    program = start(
        """
        class First(Seen):
            def hello(self, name):
                Milter.factory = Second
                return self._see("first")
        class Second(Milter.Base):
            def hello(self, name):
                record("second", type(self) is Second, Milter.factory is Second)
                return Milter.CONTINUE
            body = Seen.body
            _see = Seen._see
        Milter.factory = First
        First.attribute = 5
        record(Milter.factory is First, Milter.factory.attribute)
        run(First)
        """
    )
    first = program.connect()
    first.negotiate()
    first.helo()
    second = program.connect()
    assert second.negotiate() == (6, 0x1FF, 0x76D)
    second.helo()
    first.helo()
    assert program.seen() == [
        (True, 5),
        ("first",),
        ("second", True, True),
        ("first",),
    ]


def test_a_factory_that_raises(start: Start) -> None:
    """That connection ends; the next one is served."""
    program = start(
        """
        calls = []
        def make():
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("no database")
            return Seen()
        run(make)
        """,
        tracebacks=True,
    )
    mta = program.connect()
    mta.send("O", b"\0\0\0\6\0\0\1\xff\0\x1f\xff\xff")
    assert mta.is_closed()
    program.until(lambda: "no database" in program.output())
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"


def test_each_connection_has_its_object(start: Start) -> None:
    program = start(
        """
        class Filter(Milter.Base):
            def __init__(self): self.id = Milter.uniqueID()
            def hello(self, name):
                record(name, self.id)
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mtas = [program.connect() for _ in range(5)]
    for mta in mtas:
        mta.negotiate()
    for _ in range(2):
        for number, mta in enumerate(mtas):
            mta.helo(f"{number}")
    found: dict[str, set[int]] = {}
    for name, number in program.seen():
        found.setdefault(name, set()).add(number)
    assert [len(numbers) for numbers in found.values()] == [1] * 5
    assert len(set.union(*found.values())) == 5


def test_positional_arguments_of_runmilter(start: Start) -> None:
    program = start(
        """
        Milter.factory = Seen
        Milter.runmilter("name", os.environ["SOCKET"], 300, True)
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o007, 0o000])
def test_the_umask_decides_the_mode(start: Start, umask: int) -> None:
    program = start(f"os.umask({umask})\nrun(Seen)")
    program.connect().negotiate()
    mode = stat.S_IMODE(os.stat(program.socket).st_mode)
    assert oct(mode) == oct(0o777 & ~umask)


def test_opensocket_then_chmod(start: Start) -> None:
    """The socket is there before main: programs change its mode and drop their privileges."""
    program = start(
        """
        milter.register("program")
        milter.set_helo_callback(lambda ctx, name: milter.REJECT)
        path = os.environ["SOCKET"][5:]
        milter.setconn(os.environ["SOCKET"])
        milter.opensocket(True)
        os.chmod(path, 0o660)
        record("opened", oct(os.stat(path).st_mode & 0o777))
        milter.main()
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "r"
    assert program.seen() == [("opened", "0o660")]


def test_a_stale_socket_is_removed(start: Start) -> None:
    program = start(
        """
        import socket
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(os.environ["SOCKET"][5:])
        stale.close()
        record("stale", os.path.exists(os.environ["SOCKET"][5:]))
        run(Seen)
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"
    assert program.seen()[0] == ("stale", True)


def test_a_stale_socket_is_kept(start: Start) -> None:
    program = start(
        """
        import socket
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(os.environ["SOCKET"][5:])
        stale.close()
        Milter.factory = Seen
        record(attempt(serve, name="x", socketname=os.environ["SOCKET"], rmsock=False)[0])
        """
    )
    program.until(program.seen)
    assert program.seen() == [("error",)]


def test_a_file_in_the_way_is_kept(start: Start) -> None:
    program = start(
        """
        path = os.environ["SOCKET"][5:]
        open(path, "w").close()
        Milter.factory = Seen
        record(attempt(serve, name="x", socketname=os.environ["SOCKET"])[0], os.path.isfile(path))
        """
    )
    program.until(program.seen)
    assert program.seen() == [("error", True)]


@pytest.mark.parametrize("prefix", ["", "unix:", "local:"])
def test_unix_sockets(start: Start, prefix: str) -> None:
    program = start(
        f"""
        Milter.factory = Seen
        serve(name="x", socketname={prefix!r} + os.environ["SOCKET"][5:])
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"


INET = ["inet:{port}@127.0.0.1", "inet:{port}", "inet:{port}@[127.0.0.1]", "inet:{port}@localhost",
        "inet6:{port}@[::1]", "inet6:{port}"]  # fmt: skip


@pytest.mark.parametrize("spec", INET)
def test_inet_sockets(start: Start, free_port: int, spec: str) -> None:
    program = start(
        f"""
        Milter.factory = Seen
        serve(name="x", socketname={spec.format(port=free_port)!r})
        """
    )
    host = "::1" if "inet6" in spec else "127.0.0.1"
    mta = program.keep(program.until(lambda: Mta.inet(host, free_port), OSError))
    mta.negotiate()
    assert mta.helo() == "c"


def test_a_colon_before_the_host(start: Start, free_port: int) -> None:
    program = start(
        f"""
        Milter.factory = Seen
        record(attempt(serve, name="x", socketname="inet:{free_port}:127.0.0.1")[0])
        """
    )
    mta = program.keep(program.until(lambda: Mta.inet("127.0.0.1", free_port), OSError))
    mta.negotiate()
    assert mta.helo() == "c"


def test_a_descriptor(start: Start) -> None:
    program = start(
        """
        import socket
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.environ["SOCKET"][5:])
        listening.listen()
        Milter.factory = Seen
        serve(name="x", socketname=f"fd:{listening.detach()}")
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"


def test_a_fork_before(start: Start) -> None:
    """A daemon: the parent ends, the child serves."""
    program = start(
        """
        if os.fork():
            os._exit(0)
        run(Seen)
        """,
        forks=True,
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"
    assert program.wait() == 0


def test_worker_processes_before(start: Start) -> None:
    """A pool of multiprocessing that callbacks use."""
    program = start(
        """
        import multiprocessing
        def double(number): return 2 * number
        class Filter(Milter.Base):
            def hello(self, name):
                record(pool.apply(double, (21,)))
                return Milter.CONTINUE
        if __name__ == "__main__":
            pool = multiprocessing.get_context("fork").Pool(2)
            try:
                run(Filter)
            finally:
                pool.terminate()
                pool.join()
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"
    assert program.seen() == [(42,)]


def test_nothing_can_be_imported(start: Start) -> None:
    """After a chroot, or as a user who cannot read the interpreter's files: what the package uses
    was imported with it, dkimpy-milter's parseaddr for one."""
    program = start(
        """
        import Milter.utils
        class Filter(Milter.Base):
            @Milter.decode("ignore")
            def header(self, field, value):
                record(Milter.utils.parseaddr(value), Milter.utils.parse_addr("<a@b>"))
                record(Milter.utils.parse_header("=?utf-8?q?=C3=A9?="))
                record(Milter.utils.iniplist("2001:db8::9", ["2001:db8::/32"]))
                return Milter.CONTINUE
            def eom(self):
                raise ValueError("no such thing")
        sys.path.clear()
        sys.path_importer_cache.clear()
        run(Filter)
        """,
        tracebacks=True,
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    assert mta.header("From", b"A <a@b>") == "c"
    assert mta.eom()[-1][0] == "y"
    assert mta.helo() == "c"
    assert program.seen() == [(("A", "a@b"), ["a", "b"]), ("é",), (True,)]
    program.until(lambda: "ValueError: no such thing" in program.output())


def test_subprocesses_in_callbacks(start: Start) -> None:
    program = start(
        """
        import subprocess
        class Filter(Milter.Base):
            def hello(self, name):
                done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True)
                record(done.returncode, done.stdout)
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo() == "c"
    assert program.seen() == [(0, b"42\n")]


def test_threads_in_programs(start: Start) -> None:
    """A queue to a thread of the program's own, which runs while callbacks do."""
    program = start(
        """
        import queue, threading
        questions, answers = queue.Queue(), queue.Queue()
        def work():
            while True:
                answers.put(questions.get().upper())
        threading.Thread(target=work, daemon=True).start()
        class Filter(Milter.Base):
            def hello(self, name):
                questions.put(name)
                record(answers.get())
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.helo("name") == "c"
    assert program.seen() == [("NAME",)]


@OURS
def test_a_slow_callback_holds_up_nobody(start: Start) -> None:
    """(With the older package it is a matter of luck.)"""
    program = start(
        """
        import threading
        free = threading.Event()
        class Filter(Milter.Base):
            def hello(self, name):
                if name == "wait":
                    free.wait()
                elif name == "go":
                    free.set()
                return Milter.CONTINUE
        run(Filter)
        """
    )
    waiting = [program.connect() for _ in range(8)]
    for mta in waiting:
        mta.negotiate()
        mta.send("H", b"wait\0")
    other = program.connect()
    other.negotiate()
    assert other.helo("quick") == "c"
    assert other.helo("go") == "c"
    assert [mta.receive() for mta in waiting] == [("c", b"")] * 8


def test_a_context_in_another_thread(start: Start, implementation: str) -> None:
    program = start(
        """
        import threading
        class Filter(Milter.Base):
            def hello(self, name):
                def look(): record(attempt(self.getsymval, "j")[0])
                thread = threading.Thread(target=look)
                thread.start()
                thread.join()
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.macros("H", "j", "host")
    assert mta.helo() == "c"
    assert program.seen() == [(expected(implementation, "a context in another thread"),)]


def test_stop_from_a_thread(start: Start) -> None:
    program = start(
        """
        import threading
        class Filter(Milter.Base):
            def close(self):
                threading.Thread(target=Milter.stop).start()
                return Milter.CONTINUE
        run(Filter)
        record("on")
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.quit()
    assert program.wait() == 0
    assert program.seen() == [("ended", None), ("on",)]


@OURS
def test_runmilter_again(start: Start) -> None:
    turns = 3
    program = start(
        f"""
        class Filter(Seen):
            def close(self):
                Milter.stop()
                return Milter.CONTINUE
        for turn in range({turns}):
            run(Filter)
        """
    )
    for turn in range(turns):
        mta = program.connect()
        mta.negotiate()
        assert mta.helo() == "c"
        mta.close()
        program.await_step("ended", turn + 1)
    assert program.wait() == 0


def test_runmilter_in_a_thread(start: Start) -> None:
    """Signals stay the main thread's; Milter.stop() ends the service."""
    program = start(
        """
        import signal, threading
        got = threading.Event()
        def handler(number, frame):
            record("signal", number)
            got.set()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, handler)
        thread = threading.Thread(target=run, args=(Seen,))
        thread.start()
        for _ in range(4):
            while not got.wait(0.05): pass
            got.clear()
        Milter.stop()
        thread.join()
        record("joined")
        """
    )
    mta = program.connect()
    mta.negotiate()
    numbers = [signal.SIGUSR1]
    if program.ours:  # the older package takes these
        numbers += [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    for count, number in enumerate(numbers, 1):
        assert mta.helo() == "c"
        program.signal(number)
        program.await_step("signal", count)
    if program.ours:
        mta.close()
        assert program.wait() == 0
        assert program.steps()[-2:] == ["ended", "joined"]


def test_bytes_per_value_and_line_ends(start: Start) -> None:
    """What programs that sign or archive rebuild: names, values with their folds, body chunks."""
    program = start(
        """
        class Filter(Milter.Base):
            def envfrom(self, f, *params):
                self.text = b""
                return Milter.CONTINUE
            def header(self, field, value):
                self.text += (field + ": " + value + "\\n").encode("ascii", "surrogateescape")
                return Milter.CONTINUE
            def eoh(self):
                self.text += b"\\n"
                return Milter.CONTINUE
            def body(self, chunk):
                self.text += chunk
                return Milter.CONTINUE
            def eom(self):
                record(self.text)
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    mta.header("Subject", b"caf\xe9\n next")
    mta.eoh()
    mta.body(b"\xff\r\n")
    mta.body(b"end\r\n")
    mta.eom()
    assert program.seen() == [(b"Subject: caf\xe9\n next\n\n\xff\r\nend\r\n",)]


def test_a_message_with_the_class_that_logs(start: Start) -> None:
    program = start(
        """
        class Filter(Milter.Milter):
            def log(self, *msg): record("log", *msg)
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate(protocol=0x37F)
    assert mta.connect() == "c"
    assert mta.helo() == "c"
    mta.mail("<a@b>", "SIZE=1")
    mta.rcpt("<c@d>")
    mta.header("Subject", "text")
    mta.eoh()
    assert mta.eom() == [("c", b"")]
    mta.quit()
    program.until(lambda: ("log", "close") in program.seen())
    assert program.seen() == [
        ("log", "connect from localhost at ('127.0.0.1', 1234)"),
        ("log", "hello from me"),
        ("log", "mail from", "<a@b>", ("SIZE=1",)),
        ("log", "rcpt to", "<c@d>", ()),
        ("log", "Subject: text"),
        ("log", "eoh"),
        ("log", "eom"),
        ("log", "close"),
    ]


@pytest.mark.parametrize(
    ("implementation", "number"),
    [
        ("oracle", signal.SIGTERM),  # it takes seconds
        *(
            (way, number)
            for way in ("ours-lowlevel", "ours-fast")
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        ),
    ],
    indirect=["implementation"],
)
def test_signals_end_runmilter(start: Start, number: signal.Signals) -> None:
    program = start(
        """
        run(Seen)
        record("on")
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.quit()
    program.await_step("close")
    program.signal(number)
    assert program.wait() == 0
    assert program.seen()[-2:] == [("ended", None), ("on",)]


@OURS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_handlers_of_the_program(start: Start, number: signal.Signals) -> None:
    """They are kept, and run promptly while main serves. (The older package takes the signals.)"""
    program = start(
        f"""
        import signal
        def handler(number, frame):
            record("signal", number)
            if len(calls) == 2: Milter.stop()
            calls.append(number)
        calls = []
        signal.signal({int(number)}, handler)
        run(Seen)
        record(signal.getsignal({int(number)}) is handler)
        """
    )
    mta = program.connect()
    mta.negotiate()
    for count in (1, 2, 3):
        assert mta.helo() == "c"
        program.signal(number)
        program.await_step("signal", count)
    mta.close()
    assert program.wait() == 0
    assert program.seen()[-1] == (True,)


@OURS
def test_a_handler_that_raises(start: Start) -> None:
    """KeyboardInterrupt of a handler comes out of runmilter, as out of any other call."""
    program = start(
        """
        import signal
        class Enough(Exception): pass
        def handler(number, frame): raise Enough
        signal.signal(signal.SIGUSR1, handler)
        try:
            run(Seen)
        except Enough:
            record("raised")
        """
    )
    mta = program.connect()
    mta.negotiate()
    program.signal(signal.SIGUSR1)
    assert program.wait() == 0
    assert program.seen()[-1] == ("raised",)


@OURS
def test_handlers_are_put_back(start: Start) -> None:
    program = start(
        """
        import signal
        numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        before = [signal.getsignal(number) for number in numbers]
        class Filter(Milter.Base):
            def close(self):
                Milter.stop()
                return Milter.CONTINUE
        run(Filter)
        record([signal.getsignal(number) for number in numbers] == before)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.quit()
    assert program.wait() == 0
    assert program.seen()[-1] == (True,)
