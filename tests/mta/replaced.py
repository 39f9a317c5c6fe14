"""A filter that is replaced again and again while SMTP sessions are open: each new server takes the
place over, the one before retires. Run as a program: the long form of test_retire.py.

    python tests/mta/replaced.py [REPLACEMENTS [SENDMAIL'S]]
"""

import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import ClassVar

import Milter
import milter
from mta import Client, Mta, Reply, wait_for
from postfix import Postfix
from sendmail import Sendmail

CLIENTS = 6  # that send without pause
MESSAGES = 5  # of each of their sessions
KINDS = ("unix", "inet")


class Filter(Milter.Base):
    """Counts messages; `number` is the server's."""

    number = 0
    messages: ClassVar[Counter[int]] = Counter()

    def eom(self) -> int:
        self.messages[self.number] += 1
        self.addheader("X-Server", str(self.number))
        return milter.CONTINUE


class Place:
    """Where the filter is found, and who serves there now."""

    def __init__(self, mta: Mta, kind: str) -> None:
        self.mta = mta
        self.kind = kind
        self.listener: socket.socket | None = None
        if kind == "inet":  # a port cannot be bound twice: the servers share the open socket
            self.listener = socket.create_server(("127.0.0.1", mta.inet), backlog=128)
        self.servers: list[Milter.Server] = []

    def replace(self) -> None:
        """Starts another server in the place of the last one, which retires."""
        number = len(self.servers)
        made = type("Numbered", (Filter,), {"number": number})
        if self.listener:
            server = Milter.Server(made, f"fd:{self.listener.fileno()}")
        else:
            server = Milter.Server(made, f"unix:{self.mta.one}", replace=True, mode=0o666)
        self.servers.append(server.start())
        if number:
            self.servers[number - 1].retire()

    def alive(self) -> int:
        """How many servers have not ended."""
        return sum(not server.join(0) for server in self.servers)

    def close(self) -> None:
        for server in self.servers:
            server.stop(timeout=5)
        if self.listener:
            self.listener.close()


@contextmanager
def place(mta: Mta, kind: str) -> Iterator[Place]:
    """A place with its first server."""
    with closing(Place(mta, kind)) as made:
        made.replace()
        yield made


def begin(mta: Mta, kind: str) -> Client:
    """An SMTP session before its first message."""
    client = mta.client(kind)
    assert client.greeting.code == 220, str(client.greeting)
    assert client.command("EHLO client.test").code == 250
    return client


class Load:
    """SMTP clients that send several messages in each session, over and over."""

    def __init__(self, mta: Mta, kind: str) -> None:
        self.mta, self.kind = mta, kind
        self.enough = threading.Event()
        self.sessions = 0
        self.bad: list[str] = []
        self.taken = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        for thread in self.threads:
            thread.join()

    def _run(self) -> None:
        while not self.enough.is_set():
            try:
                self._session()
            except Exception as error:
                self.note(False, f"{type(error).__name__}: {error}")

    def _session(self) -> None:
        with closing(begin(self.mta, self.kind)) as client:
            for _ in range(MESSAGES):
                replies = client.run()
                good = replies.get(".", Reply(0, "")).code == 250
                self.note(good, str([*replies.values()][-1]))
            client.command("QUIT")
        with self.lock:
            self.sessions += 1

    def note(self, good: bool, text: str) -> None:
        with self.lock:
            self.taken += good
            if not good:
                self.bad.append(text)


def replace_under_load(mta: Mta, kind: str, times: int) -> str:
    """Replaces the filter so often, after at least one message through each server. Raises
    AssertionError if any client got another reply than 250. Returns what was done, as a line."""
    Filter.messages.clear()
    with place(mta, kind) as at, Load(mta, kind) as load:
        most = 0
        for number in range(times + 1):
            if number:
                at.replace()
            wait_for(
                f"a message through server {number}",
                lambda: load.bad or Filter.messages[number],  # noqa: B023
            )
            assert not load.bad, load.bad[0]
            most = max(most, at.alive())
        load.__exit__()
        wait_for("the old servers to end", lambda: at.alive() == 1)
    assert not load.bad, load.bad[0]
    assert Filter.messages.total() == load.taken
    return (
        f"{mta.name} {kind}: {times} replacements, {load.sessions} sessions, "
        f"{load.taken} messages, 0 refused; {most} servers at most at a time"
    )


def main(postfix: int = 200, sendmail: int = 20) -> None:
    """Each MTA with each kind of socket."""
    with ExitStack() as stack:
        for kind_of_mta, times in ((Postfix, postfix), (Sendmail, sendmail)):
            if why := kind_of_mta.missing():
                sys.exit(why)
            mta = stack.enter_context(kind_of_mta())
            for kind in KINDS:
                print(replace_under_load(mta, kind, times), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
