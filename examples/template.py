"""A start for a filter of your own: a configuration, a log with the queue id in each line, and
heavy work in processes, so that it uses several cores and a crash costs no more than one message.

The work is an example: messages that have one of the words of template.conf are refused.
"""

import io
import logging
import multiprocessing
import queue
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import Milter
import mime
from Milter.config import MilterConfigParser

logger = logging.getLogger("template")


# ---------------------------------------------------------------------------------- configuration


class Config(NamedTuple):
    socket: str
    log_level: str
    words: list[bytes]
    max_bytes: int
    workers: int
    seconds: int


def read_config(path):
    parser = MilterConfigParser()
    with path.open(encoding="utf-8") as file:  # parser.read() would not mind a missing file
        parser.read_file(file)
    return Config(
        socket=parser.getdefault("milter", "socket", "inet:8894@127.0.0.1"),
        log_level=parser.getdefault("milter", "log_level", "INFO"),
        words=[word.lower().encode() for word in parser.getlist("scan", "words")],
        max_bytes=parser.getintdefault("scan", "max_bytes", 20_000_000),
        workers=parser.getintdefault("scan", "workers", 2),
        seconds=parser.getintdefault("scan", "seconds", 60),
    )


# ---------------------------------------------------------------------- what runs in the processes


def scan(message, words):
    """The heavy work. Returns a word that the text of a message has, or b""."""
    for part in mime.message_from_file(io.BytesIO(message)).walk():
        if part.get_content_maintype() == "text":
            text = part.get_payload_decoded().lower()
            for word in words:
                if word in text:
                    return word
    return b""


def work(pipe, words):
    """Scans what comes through the pipe, until it ends: then the filter has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the filter, which ends us
    with suppress(EOFError):
        while True:
            pipe.send_bytes(scan(pipe.recv_bytes(), words))


# ------------------------------------------------------------------------------- and who uses them


class ScanError(Exception):
    """A message could not be scanned; says why."""


class Worker:
    # "spawn" gives a process nothing of ours but its arguments. A fork of a filter that serves
    # would have its threads' locks, and would keep its sockets.
    processes = multiprocessing.get_context("spawn")

    def __init__(self, words):
        self.pipe, theirs = self.processes.Pipe()
        # A daemon is ended together with the filter.
        self.process = self.processes.Process(target=work, args=(theirs, words), daemon=True)
        self.process.start()
        theirs.close()  # so that our end tells when the process has died
        logger.info("worker %d started", self.process.pid)

    def ask(self, message, seconds):
        """Returns the answer. Raises ScanError, and has then ended."""
        try:
            self.pipe.send_bytes(message)
            if self.pipe.poll(seconds):
                # Bytes, not objects: the process has read hostile mail, and objects would be
                # unpickled here.
                return self.pipe.recv_bytes()
            why = f"no answer within {seconds} seconds"
        except Exception as error:  # whatever it is, the next message must not get this answer
            why = f"worker {self.process.pid} has died: {error!r}"
        self.end()
        raise ScanError(why)

    def end(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Workers:
    """As many processes as are configured, for all connections."""

    def __init__(self, config):
        self.config = config
        # The free ones; None is one that has to be started. What was used last is used first.
        self.free = queue.LifoQueue()
        for _ in range(config.workers):
            self.free.put(None)

    def start(self):
        """Starts them before the first message needs one."""
        for _ in [self.free.get() for _ in range(self.config.workers)]:
            self.free.put(Worker(self.config.words))

    def scan(self, message):
        """Waits for a free worker and for its answer; the server goes on with other connections.
        Raises ScanError, and OSError if a process cannot be started."""
        worker = self.free.get()
        try:
            if worker is None or not worker.process.is_alive():
                worker = Worker(self.config.words)
            return worker.ask(message, self.config.seconds)
        finally:
            self.free.put(worker)


# ------------------------------------------------------------------------------------- the filter


class Template(Milter.Base):
    config = read_config(Path(__file__).with_suffix(".conf"))
    workers = Workers(config)
    label = client = "?"

    def log(self, text, *args, level=logging.INFO):
        """Logs a line that begins with the queue id; with the client while there is none."""
        logger.log(level, "%s: " + text, self.label, *args)

    @Milter.noreply  # the MTA does not wait for the answer, which is always CONTINUE
    def connect(self, hostname, family, hostaddr):
        self.label = self.client = hostname
        return Milter.CONTINUE

    @Milter.noreply
    def envfrom(self, sender, *params):
        # One object serves all messages of a connection: what belongs to one begins here.
        self.label = self.client
        self.sender, self.recipients = sender, 0
        self.parts, self.size = [], 0
        return Milter.CONTINUE

    @Milter.noreply
    def envrcpt(self, recipient, *params):
        self.recipients += 1
        return Milter.CONTINUE

    @Milter.noreply
    def header_bytes(self, name, value):
        self.parts.append(name.encode("utf-8", "surrogateescape") + b": " + value + b"\r\n")
        return Milter.CONTINUE

    @Milter.noreply
    def eoh(self):
        # Sendmail has the queue id from the sender on, Postfix from the first recipient on.
        self.label = self.getsymval("i") or self.client
        # What clients choose is logged by %r: it cannot end the line, or reach a terminal.
        self.log("from %r, recipients: %d", self.sender, self.recipients)
        self.parts.append(b"\r\n")
        return Milter.CONTINUE

    def body(self, chunk):
        self.size += len(chunk)
        if self.size > self.config.max_bytes:
            self.setreply("552", "5.3.4", "The message is too large")
            return Milter.REJECT
        self.parts.append(chunk)
        return Milter.CONTINUE

    def eom(self):
        try:
            found = self.workers.scan(b"".join(self.parts))
        except (ScanError, OSError) as error:
            self.log("not scanned: %s", error, level=logging.ERROR)
            self.setreply("451", "4.7.1", "The message cannot be scanned now")
            return Milter.TEMPFAIL
        if found:
            self.log("refused: it has %r", found)
            self.setreply("550", "5.7.1", "The message looks like fraud")
            return Milter.REJECT
        self.log("clean")
        self.addheader("X-Scanned", "yes")
        return Milter.CONTINUE

    def abort(self):
        self.log("given up")
        return Milter.CONTINUE


if __name__ == "__main__":
    logging.basicConfig(
        level=Template.config.log_level, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    Template.workers.start()
    Milter.factory = Template
    Milter.runmilter("template", Template.config.socket)
