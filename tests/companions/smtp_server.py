"""A mail server for tests: answers each command as a table says, and writes down what it gets."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

#: What is said unless a test says otherwise. CONNECT is the greeting, END the message's end; a verb
#: may hold the first of its arguments, as in "EHLO" or "MAIL FROM:<>".
USUAL = {
    "CONNECT": "220 here",
    "EHLO": "250-here\n250-8BITMIME\n250 SMTPUTF8",
    "DATA": "354 go on",
    "QUIT": "221 bye",
}
SILENT = "silent"
HANG_UP = "hang up"
DRIP = "drip"  # an answer that never ends, piece by piece
_PIECES = 400
#: What a command begins with, in any case: smtplib writes it as it likes.
_KEYWORDS = re.compile(r"\A(?:MAIL FROM|RCPT TO|\S+)", re.IGNORECASE)


class Server:
    """One address and port. `got` has all lines, those of messages with a leading "|"."""

    def __init__(self, host: str, port: int, answers: dict[str, str]) -> None:
        self.answers = {**USUAL, **answers}
        self.got: list[str] = []
        self._over = threading.Event()
        self._socket = socket.create_server((host, port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._socket, contextlib.suppress(OSError):
            while not self._over.is_set():
                connection, _ = self._socket.accept()
                with connection, contextlib.suppress(OSError):
                    self._talk(connection)

    def _answer(self, connection: socket.socket, *names: str) -> bool:
        """Says what the table has for the first of some names; whether to go on."""
        answer = next((self.answers[each] for each in names if each in self.answers), "250 fine")
        if answer == SILENT:
            return bool(connection.recv(1))  # until the client gives up
        if answer == DRIP:
            for _ in range(_PIECES):
                connection.sendall(b"220-a\r\n")
                if self._over.wait(0.02):
                    return False
            answer = "220 at last"
        if answer != HANG_UP:
            connection.sendall(answer.replace("\n", "\r\n").encode() + b"\r\n")
        return answer not in (HANG_UP, USUAL["QUIT"]) and not answer.startswith("421")

    def _talk(self, connection: socket.socket) -> None:
        if self._over.is_set():
            return
        self.got.append("CONNECT")
        lines = connection.makefile("rb")
        go_on = self._answer(connection, "CONNECT")
        while go_on and (line := lines.readline()):
            text = line.decode("utf-8", "surrogateescape").removesuffix("\r\n")
            self.got.append(_KEYWORDS.sub(lambda found: found[0].upper(), text).strip())
            verb = self.got[-1].partition(" ")[0]
            go_on = self._answer(connection, self.got[-1], verb)
            if verb == "DATA" and self.answers["DATA"].startswith("354"):
                while (line := lines.readline()) not in (b".\r\n", b""):
                    # A bare LF or CR stays to be seen.
                    self.got.append("|" + line[:-2].decode("utf-8", "surrogateescape"))
                go_on = self._answer(connection, "END")

    def stop(self) -> None:
        """Ends it; connections are taken no more."""
        self._over.set()
        with contextlib.suppress(OSError), socket.create_connection(self._socket.getsockname()):
            pass
        self._thread.join()


@contextlib.contextmanager
def servers(**answers: dict[str, str]) -> Iterator[tuple[int, dict[str, Server]]]:
    """The port, and servers by name: "one" listens on 127.0.0.1, "two" on 127.0.0.2 ..."""
    made: dict[str, Server] = {}
    port = 0
    try:
        while len(made) < len(answers):
            name, table = list(answers.items())[len(made)]
            try:
                made[name] = Server(f"127.0.0.{len(made) + 1}", port, table)
                port = made[name].port
            except OSError:  # somebody has the port there: all anew
                for server in made.values():
                    server.stop()
                made.clear()
                port = 0
        yield port, made
    finally:
        for server in made.values():
            server.stop()
