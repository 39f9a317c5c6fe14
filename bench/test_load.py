"""Tests of the load generator: a filter that plays a role, and what the generator says of it.

Run by meson (`meson test load`), or as: test_load.py PATH-OF-LOAD
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from typing import Any

LOAD = [""]  # with what runs it, where it is for another machine
NO_REPLY_BITS = 0xFF080
SKIP_BIT = 0x400


def packet(command: bytes, data: bytes = b"") -> bytes:
    """A packet's bytes."""
    return struct.pack(">I", len(data) + 1) + command + data


def negotiated(version: int = 6, actions: int = 0x1FF, protocol: int = 0) -> bytes:
    """The filter's answer to OPTNEG."""
    return packet(b"O", struct.pack(">III", version, actions, protocol))


CONTINUE = packet(b"c")
HEADER = packet(b"h", b"X-A\0v\0")


def packets(connection: socket.socket) -> Iterator[bytes]:
    """What comes, packet by packet, without the lengths."""
    with connection.makefile("rb") as stream:
        while len(length := stream.read(4)) == 4:
            yield stream.read(struct.unpack(">I", length)[0])


class Role:
    """A filter on a unix socket: answers each command by a table, else by `default`; None
    closes. Notes the commands that it got."""

    def __init__(
        self, answers: dict[str, bytes | None], options: bytes, default: bytes | None = CONTINUE
    ) -> None:
        self.answers: dict[str, bytes | None] = {"O": options, "D": b"", "A": b"", "Q": None}
        self.answers.update(answers)
        self.default = default
        self.seen: list[str] = []

    def serve(self, listener: socket.socket) -> None:
        """Serves one connection after the other, until the listener is shut down."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                self.serve_one(connection)

    def serve_one(self, connection: socket.socket) -> None:
        """Serves a connection until its end, ours or theirs."""
        for data in packets(connection):
            command = chr(data[0])
            self.seen.append(command)
            answer = self.answers.get(command, self.default)
            if answer is None:
                return
            try:
                connection.sendall(answer)
            except OSError:
                return


def load(role: Role, *options: str) -> tuple[int, dict[str, Any], str]:
    """Runs the load generator against a role: its status, its report, its errors."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/socket"
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=role.serve, args=(listener,))
        server.start()
        usual = ("--connections=1", "--messages=2", "--timeout=2")
        try:
            done = subprocess.run(
                (*LOAD, *usual, *options, path), capture_output=True, text=True, check=False
            )
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
    return done.returncode, json.loads(done.stdout), done.stderr


class Honest(unittest.TestCase):
    """Filters that keep to the protocol."""

    def check(self, role: Role, verdicts: dict[str, int], *options: str) -> dict[str, Any]:
        """Runs a load that must pass with these verdicts."""
        status, report, errors = load(role, *options)
        assert (status, errors) == (0, "")
        assert (report["verdicts"], report["lost"]) == (verdicts, 0)
        return report

    def test_order_of_commands(self) -> None:
        role = Role({}, negotiated())
        self.check(role, {"c": 1}, "--messages=1", "--headers=2", "--recipients=2", "--body=65536")
        assert "".join(role.seen) == "ODCHDMDRDRTLLNBBDEQ"

    def test_steps_left_out(self) -> None:
        role = Role({}, negotiated(protocol=0x37F))
        self.check(role, {"c": 1}, "--messages=1")
        assert "".join(role.seen) == "ODDDDEQ"  # macros come all the same

    def test_old_version_has_no_data(self) -> None:
        role = Role({}, negotiated(version=2))
        self.check(role, {"c": 2}, "--version=2", "--protocol=0x7f")
        assert "T" not in role.seen

    def test_no_replies(self) -> None:
        role = Role({"E": CONTINUE}, negotiated(protocol=NO_REPLY_BITS), b"")
        report = self.check(role, {"c": 2})
        assert report["packets_received"] == 3

    def test_skip(self) -> None:
        role = Role({"L": packet(b"s")}, negotiated(protocol=SKIP_BIT))
        self.check(role, {"c": 2})
        assert role.seen.count("L") == 2

    def test_changes_and_progress(self) -> None:
        changes = HEADER + packet(b"p") + packet(b"b", b"new") + packet(b"b")
        report = self.check(Role({"E": changes + CONTINUE}, negotiated()), {"c": 2})
        assert report["changes"] == 6

    def test_aborts_after_each_message(self) -> None:
        role = Role({}, negotiated())
        self.check(role, {"c": 2}, "--headers=0", "--aborts=1")
        assert "".join(role.seen) == "ODCHDMDRTNBDEADMDRTNBDEAQ"

    def test_filter_that_leaves_the_end_to_the_mta(self) -> None:
        self.check(Role({"Q": b""}, negotiated()), {"c": 2})

    def test_verdict_ends_the_message(self) -> None:
        role = Role({"T": packet(b"y", b"550 5.7.1 no\0")}, negotiated())
        self.check(role, {"y": 2})
        assert "E" not in role.seen

    def test_one_recipient_refused(self) -> None:
        role = Role({"R": packet(b"t")}, negotiated())
        self.check(role, {"t": 2}, "--recipients=3")
        assert (role.seen.count("R"), role.seen.count("A")) == (6, 2)

    def test_connection_refused(self) -> None:
        role = Role({"C": packet(b"r")}, negotiated())
        self.check(role, {"r": 2})
        assert "M" not in role.seen

    def test_total(self) -> None:
        report = self.check(Role({}, negotiated()), {"c": 7}, "--messages-total=7")
        assert report["connections"] == 4

    def test_ends_by_time(self) -> None:
        role = Role({}, negotiated())
        status, report, errors = load(role, "--messages=4000000000", "--duration=1000")
        assert (status, errors, report["lost"]) == (0, "", 0)
        assert report["verdicts"] == {"c": report["messages"]}
        assert role.seen[-1] == "Q"

    def test_time_that_is_over_opens_no_connection(self) -> None:
        role = Role({}, negotiated())
        more = ("--messages=1", "--messages-total=4000000000", "--duration=1")
        status, report, errors = load(role, *more)
        assert (status, errors, report["lost"]) == (0, "", 0)
        assert report["connections"] == role.seen.count("O")

    def test_warm_up(self) -> None:
        more = ("--messages=4000000000", "--duration=200", "--warm-up=100")
        status, report, errors = load(Role({}, negotiated()), *more)
        assert (status, errors) == (0, "")
        measured = report["messages_per_second"] * report["seconds"]
        assert measured < report["messages"] - 0.5
        assert report["verdicts"] == {"c": report["messages"]}

    def test_connections_that_were_served(self) -> None:
        report = self.check(Role({}, negotiated()), {"c": 4}, "--messages-total=4")
        assert (report["served"], report["connections"]) == (2, 2)

    def test_longest_times(self) -> None:
        report = self.check(Role({}, negotiated()), {"c": 2})
        times = report["message_us"]
        assert 0 < times["p50"] <= times["second"] <= times["max"]
        assert 0 < report["gap_us"] <= report["seconds"] * 1e6
        assert report["cpu_seconds"] > 0

    def test_body_in_chunks(self) -> None:
        role = Role({}, negotiated())
        report = self.check(role, {"c": 1}, "--messages=1", "--headers=0", "--body=25000000")
        assert role.seen.count("B") == 382
        assert report["octets"] == 25_000_000
        assert report["at_once"] == 1


class Wrong(unittest.TestCase):
    """Filters that break the protocol: the status is 1 and the text says how."""

    def check(self, role: Role, text: str) -> None:
        """Runs a load that must fail with this text."""
        status, report, errors = load(role, "--messages=1")
        assert (status, report["errors"], report["messages"]) == (1, 1, 0)
        assert text in errors

    def check_answer(
        self, command: str, answer: bytes | None, text: str, protocol: int = 0
    ) -> None:
        """One answer is wrong."""
        self.check(Role({command: answer}, negotiated(protocol=protocol)), text)

    def test_two_replies(self) -> None:
        self.check_answer("L", CONTINUE + CONTINUE, "before it was asked for")

    def test_missing_reply(self) -> None:
        self.check_answer("T", b"", "no answer for 2 seconds, waiting for the reply to DATA (T)")

    def test_reply_where_none_was_negotiated(self) -> None:
        # It passes for the reply to the end of message, so the real one is then one too many.
        role = Role({"C": CONTINUE, "E": CONTINUE}, negotiated(protocol=NO_REPLY_BITS), b"")
        status, report, errors = load(role, "--messages=1")
        assert (status, report["errors"]) == (1, 1)
        assert "before it was asked for" in errors

    def test_closed(self) -> None:
        self.check_answer("N", None, "closed by the filter, waiting for the reply to EOH (N)")

    def test_closed_while_idle(self) -> None:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/socket")
            listener.listen()
            command = (*LOAD, "--connections=0", "--idle=1", "--pause", f"{folder}/socket")
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as run:
                assert run.stdout
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(negotiated(protocol=0xFF080))
                    assert run.stdout.readline() == "ready\n"
                try:
                    _, errors = run.communicate(timeout=20)
                finally:
                    run.kill()
        assert run.returncode == 1
        assert "cannot write" in errors

    def test_unknown_reply(self) -> None:
        self.check_answer("T", packet(b"Z"), "there is no such packet")

    def test_skip_not_negotiated(self) -> None:
        self.check_answer("B", packet(b"s"), "SKIP was not negotiated")

    def test_skip_at_a_step_that_does_not_repeat(self) -> None:
        self.check_answer("N", packet(b"s"), "does not repeat", protocol=SKIP_BIT)

    def test_change_before_the_end(self) -> None:
        self.check_answer("T", HEADER + CONTINUE, "changes belong to the end of message")

    def test_change_not_negotiated(self) -> None:
        self.check(Role({"E": HEADER + CONTINUE}, negotiated(actions=2)), "not negotiated")

    def test_new_body_in_two_runs(self) -> None:
        body = packet(b"b", b"x")
        self.check_answer("E", body + packet(b"p") + body + CONTINUE, "ended by another packet")

    def test_malformed_code(self) -> None:
        self.check_answer("M", packet(b"y", b"5x0 no\0"), "the code is malformed")

    def test_discard_before_a_message(self) -> None:
        self.check_answer("H", packet(b"d"), "nothing to discard")

    def test_data_left_over(self) -> None:
        self.check_answer("M", packet(b"c", b"x"), "left over")

    def test_impossible_length(self) -> None:
        self.check_answer("M", b"HTTP/1.1 400", "impossible length")

    def test_options_not_offered(self) -> None:
        self.check(Role({}, negotiated(version=7)), "version that was not offered")
        self.check(Role({}, negotiated(actions=0x3FF)), "actions that were not offered")
        self.check(Role({}, negotiated(protocol=1 << 28)), "options that were not offered")


if __name__ == "__main__":
    LOAD = [*shlex.split(os.environ.get("MESON_EXE_WRAPPER", "")), sys.argv.pop(1)]
    unittest.main()
