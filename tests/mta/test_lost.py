"""Nothing is lost: what the MTA took, the filter saw whole; all else was refused for a while."""

import hashlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from mta import Mta, Reply, wait_for
from running import Filter

CLIENTS, LIVES, EACH = 6, 3, 3
SENDER, RCPT = "<sender@example.test>", "<one@local.test>"


def letter(number: int) -> tuple[bytes, str]:
    """A message like no other, of one to some chunks, and its digest."""
    subject, body = f"number {number}", b"%d\r\n" % number * (1 + number * 997 % 20000)
    message = b"Subject: %s\r\n\r\n%s" % (subject.encode(), body)
    return message, hashlib.sha256((SENDER + RCPT + subject).encode() + body).hexdigest()


def test_killed_and_crowded(mta: Mta, folder: Path) -> None:
    """Six clients at a filter that takes four connections at once and is killed again and again."""
    numbers = count()
    done = threading.Event()

    def seen() -> list[str]:
        return (folder / "seen").read_text().splitlines() if (folder / "seen").exists() else []

    def send() -> list[tuple[str, Reply]]:
        """Messages until it is enough, each with the reply that refused it or the last one."""
        sent = []
        while not done.is_set():
            message, digest = letter(next(numbers))
            replies = mta.session("unix", message, SENDER, [RCPT])
            refused = [reply for reply in replies.values() if reply.code not in (220, 250, 354)]
            sent.append((digest, [*refused, *replies.values()][0 if refused else -1]))
        return sent

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(send) for _ in range(CLIENTS)]
        try:
            for _ in range(LIVES):
                with Filter("digests.py", f"unix:{mta.one}", folder) as it:
                    enough = len(seen()) + EACH
                    wait_for("some messages", lambda: len(seen()) >= enough)  # noqa: B023
                    it.stop(signal.SIGKILL)
        finally:
            done.set()
    results = [result for client in clients for result in client.result()]
    taken = {digest for digest, reply in results if reply.code == 250}
    refused = [reply for _, reply in results if reply.code != 250]
    assert taken <= set(seen())
    assert taken
    assert refused
    assert {reply.code // 100 for reply in refused} == {4}
