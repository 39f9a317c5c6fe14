"""How a filter in C begins and ends: sockets, signals, threads, and what is logged."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from native import HERE, LIBRARIES, Told, compile_c, packet, told_to, wait_until

OPTNEG = packet("O", bytes.fromhex("00000006000001ff001fffff"))
CONNECT = packet("C", b"localhost\x00U")
HELO, MAIL, RCPT = packet("H", b"me\x00"), packet("M", b"<a@b>\x00"), packet("R", b"<c@d>\x00")
EOM, QUIT = packet("E"), packet("Q")
CONTINUE = packet("c")
WORDS = ("0x01000001", "0x1ff", "-")
ANSWER = packet("O", bytes.fromhex("00000006000001ff00000000"))
OUR_ENV = {**os.environ, **LIBRARIES["ours"]}


def receive(peer: socket.socket, expected: bytes) -> None:
    """Reads what must come, and no more."""
    got = b""
    while len(got) < len(expected):
        part = peer.recv(len(expected) - len(got))
        assert part, f"the connection ended after {got!r}"
        got += part
    assert got == expected


def signals(pid: int) -> dict[str, set[signal.Signals]]:
    """What the main thread blocks, and what the process ignores."""
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text()
    masks = {
        name: int(re.findall(rf"^{name}:\s+(\w+)$", status, re.MULTILINE)[0], 16)
        for name in ("SigBlk", "SigIgn")
    }
    known = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1)
    return {name: {s for s in known if mask >> (s - 1) & 1} for name, mask in masks.items()}


@pytest.mark.parametrize("library", LIBRARIES)
def test_signals_that_are_taken(told: Told, library: str) -> None:
    with told.running(library, *WORDS) as filter_:
        assert signals(filter_.process.pid) == {
            "SigBlk": {signal.SIGHUP, signal.SIGINT, signal.SIGTERM},
            "SigIgn": {signal.SIGPIPE},
        }


@pytest.mark.parametrize(
    ("library", "name"),
    [("theirs", "SIGTERM"), ("ours", "SIGTERM"), ("ours", "SIGHUP"), ("ours", "SIGINT")],
)
def test_a_signal_ends_main(told: Told, library: str, name: str) -> None:
    with told.running(library, *WORDS) as filter_:
        filter_.process.send_signal(signal.Signals[name])
        assert filter_.process.wait(20) == 0
        assert filter_.log() == "main: 0\n"


def test_stop_from_a_callback(told: Told) -> None:
    """That callback's verdict still goes out."""
    with told.running("ours", *WORDS) as filter_, filter_.connect() as peer:
        peer.sendall(OPTNEG + told_to(helo="stop") + CONNECT + HELO)
        receive(peer, ANSWER + CONTINUE * 2)
        assert filter_.process.wait(20) == 0
        assert filter_.log().startswith("connect localhost NULL\nhelo me\n  stop: 0\n")


def test_an_open_message_is_finished_first(told: Told) -> None:
    """SIGTERM while a message is open: it goes on to its end; then the connection is closed."""
    with told.running("ours", *WORDS) as filter_, filter_.connect() as peer:
        peer.sendall(OPTNEG + CONNECT + HELO + MAIL + RCPT)
        receive(peer, ANSWER + CONTINUE * 4)
        filter_.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not Path(filter_.path).exists(), "the stop")
        peer.sendall(EOM)
        receive(peer, CONTINUE)
        assert peer.recv(1) == b""
        assert filter_.process.wait(20) == 0
        assert filter_.log().endswith("eom\nclose\nmain: 0\n")


def test_abort_ends_an_open_message(told: Told) -> None:
    """SIGINT: abort and close are called, main still succeeds."""
    with told.running("ours", *WORDS) as filter_, filter_.connect() as peer:
        peer.sendall(OPTNEG + CONNECT + HELO + MAIL)
        receive(peer, ANSWER + CONTINUE * 3)
        filter_.process.send_signal(signal.SIGINT)
        assert peer.recv(1) == b""
        assert filter_.process.wait(20) == 0
        assert filter_.log().endswith("envfrom <<a@b>>\nabort\nclose\nmain: 0\n")


def pending(pid: int) -> set[signal.Signals]:
    """Signals that the process has not taken yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(re.findall(r"^ShdPnd:\s+(\w+)$", status, re.MULTILINE)[0], 16)
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


def test_abort_after_a_stop(told: Told, tmp_path: Path) -> None:
    """SIGINT is taken also while a message is finished after SIGTERM."""
    go = tmp_path / "go"
    with (
        told.running("ours", *WORDS) as filter_,
        filter_.connect() as waiting,
        filter_.connect() as inside,
    ):
        inside.sendall(OPTNEG + CONNECT + HELO + MAIL)
        receive(inside, ANSWER + CONTINUE * 3)
        waiting.sendall(OPTNEG + told_to(envfrom=f"await,{go}") + CONNECT + HELO)
        receive(waiting, ANSWER + CONTINUE * 2)
        waiting.sendall(MAIL)
        wait_until(lambda: filter_.logfile.read_text().count("envfrom") == 2, "both messages")
        filter_.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not Path(filter_.path).exists(), "the stop")
        filter_.process.send_signal(signal.SIGINT)
        wait_until(lambda: not pending(filter_.process.pid), "that SIGINT is taken")
        assert inside.recv(1) == b""
        go.touch()
        assert filter_.process.wait(20) == 0


@pytest.mark.parametrize("moment", ["bind", "listen"])
def test_a_signal_while_the_socket_is_opened(tmp_path: Path, moment: str) -> None:
    """The file does not stay, and main succeeds. (Debian's library crashes before: it does not look
    whether there is a filter.)"""
    program = compile_c(tmp_path / "early", "-D_GNU_SOURCE", HERE / "early.c", "-lmilter")
    path = tmp_path / "socket"
    command = (program, path, moment)
    done = subprocess.run(command, env=OUR_ENV, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "main 0\n")
    assert not path.exists()


def test_callbacks_run_at_the_same_time(told: Told, tmp_path: Path) -> None:
    """Of as many connections as there are, also when each of them waits. Debian's library now and
    then stays at two."""
    go = tmp_path / "go"
    with told.running("ours", *WORDS) as filter_, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(filter_.connect()) for _ in range(12)]
        for peer in peers:
            peer.sendall(OPTNEG + told_to(helo=f"await,{go}") + CONNECT + HELO)
        wait_until(
            lambda: filter_.logfile.read_text().count("helo me\n") == len(peers), "all callbacks"
        )
        go.touch()
        for peer in peers:
            receive(peer, ANSWER + CONTINUE * 2)


def test_a_silent_mta(told: Told) -> None:
    """After the timeout abort and close are called, also between packets."""
    with told.running("ours", *WORDS, timeout=1) as filter_, filter_.connect() as peer:
        peer.sendall(OPTNEG + CONNECT + HELO + MAIL)
        receive(peer, ANSWER + CONTINUE * 3)
        assert peer.recv(1) == b""
        assert filter_.log().endswith("envfrom <<a@b>>\nabort\nclose\n")


def test_the_socket_is_removed(told: Told) -> None:
    """So that the next start finds its place free."""
    with told.running("ours", *WORDS) as filter_:
        filter_.process.terminate()
        assert filter_.process.wait(20) == 0
        assert not Path(filter_.path).exists()


def test_main_again(tmp_path: Path) -> None:
    """A stop ends the main that runs, or the next one; after that it serves again."""
    program = compile_c(tmp_path / "again", HERE / "again.c", "-lmilter")
    path = tmp_path / "socket"
    command = (program, path)
    with subprocess.Popen(command, env=OUR_ENV, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(2)]
            for _ in range(2):
                lines.append(process.stdout.readline())
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.settimeout(20)
                    peer.connect(str(path))
                    peer.sendall(OPTNEG + CONNECT)
                    lines += [process.stdout.readline() for _ in range(2)]
            assert process.wait(20) == 0
        finally:
            process.kill()
    once = ["open 0\n", "connect localhost\n", "main 0\n"]
    assert lines == ["stop 0\n", "main 0\n", *once, *once]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_large_body_does_not_wait_in_memory(told: Told, library: str) -> None:
    """One call with 50 MB; its MTA reads nothing until another connection was served."""
    size, most = 50 << 20, 66 << 20  # the filter's own copy, and not a second one
    chunks = -(-size // 65535)
    with (
        told.running(library, *WORDS) as filter_,
        filter_.connect() as peer,
        filter_.connect() as other,
    ):
        for each, plan in ((peer, f"replacebody,x*{size},{size}"), (other, "progress")):
            each.sendall(OPTNEG)
            receive(each, ANSWER)
            for command in (told_to(eom=plan) + CONNECT, HELO, MAIL, RCPT):
                each.sendall(command)
                receive(each, CONTINUE)
        peer.sendall(EOM)
        receive(peer, packet("b", b"x" * 65535))
        other.sendall(EOM)
        receive(other, packet("p") + CONTINUE)
        rest = size + 5 * chunks - 65540
        while rest:
            part = peer.recv(min(rest, 1 << 20))
            assert part
            rest -= len(part)
        receive(peer, CONTINUE)
        status = Path(f"/proc/{filter_.process.pid}/status").read_text()
        [peak] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert size < int(peak) * 1024 < most
