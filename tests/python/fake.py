"""A filter that answers each command by bytes of a table, and bytes to answer with."""

import socket
import threading
from contextlib import suppress

from Milter import _wire


def packet(command, *fields):
    return _wire.encode(_wire.TO_FILTER, command, *fields)


def answer(*packets):
    return b"".join(len(each).to_bytes(4, "big") + each for each in packets)


def options(actions=0x1FF, protocol=0, version=6, lists=b""):
    words = b"".join(number.to_bytes(4, "big") for number in (version, actions, protocol))
    return answer(b"O" + words + lists)


GO_ON = answer(b"c")


class FakeFilter(threading.Thread):
    """A filter that answers each command by bytes of a table; None closes the connection."""

    def __init__(self, path, answers=None, default=GO_ON):
        super().__init__(daemon=True)
        self.spec = f"unix:{path}"
        self.answers = {b"O": options(), b"D": b"", b"A": b"", b"Q": None, **(answers or {})}
        self.default = default
        self.seen = []
        self.error = None
        self._stopping = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(30)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._stopping = True
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.spec.removeprefix("unix:"))
        self.join(30)
        self._listener.close()
        assert not self.is_alive()
        assert self.error is None

    def run(self):
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(ConnectionError):  # the MTA may be gone
                    if self._stopping:
                        return
                    connection.settimeout(30)
                    self.serve(connection)
        except Exception as error:
            self.error = error

    def serve(self, connection):
        decoder = _wire.Decoder(_wire.TO_FILTER)
        while data := connection.recv(65536):
            decoder.feed(data)
            while got := decoder.next():
                self.seen.append(got[0])
                reply = self.answers.get(got[0], self.default)
                if reply is None:
                    return
                if reply:
                    connection.sendall(reply)
        self.seen.append(b"EOF")
