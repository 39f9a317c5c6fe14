"""Callbacks in C that do not return when a filter ends: smfi_main goes on without them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from native import DEADLINE, HERE, Running, Told, compile_c, packet, told_to, wait_until
from test_life import CONNECT, CONTINUE, HELO, MAIL, OPTNEG, OUR_ENV, WORDS, pending, receive

ANSWER = packet("O", bytes.fromhex("00000006000001ff00000000"))
NEVER = "/nonexistent"  # told.c waits for this file


def hang(filter_: Running, peer: socket.socket) -> None:
    """Lets a helo callback begin that does not return."""
    peer.sendall(OPTNEG + told_to(helo=f"await,{NEVER}") + CONNECT)
    receive(peer, ANSWER + CONTINUE)
    peer.sendall(HELO)
    wait_until(lambda: "helo me\n" in filter_.logfile.read_text(), "the callback")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_what_hangs(told: Told, name: str) -> None:
    """What stands behind smfi_main runs, and its status is that of any end."""
    with told.running("ours", *WORDS) as filter_, filter_.connect() as peer:
        hang(filter_, peer)
        filter_.process.send_signal(signal.Signals[name])
        assert filter_.process.wait(DEADLINE) == 0
        assert filter_.log().endswith("helo me\nmain: 0\n")
        assert peer.recv(1) == b""


def test_further_signals(told: Told) -> None:
    """Each goes one step further: the second ends what is in a message, the third leaves what
    hangs."""
    with (
        told.running("ours", *WORDS) as filter_,
        filter_.connect() as inside,
        filter_.connect() as peer,
    ):
        inside.sendall(OPTNEG + CONNECT + HELO + MAIL)
        receive(inside, ANSWER + CONTINUE * 3)
        hang(filter_, peer)
        pid = filter_.process.pid
        filter_.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not Path(filter_.path).exists(), "the stop")
        filter_.process.send_signal(signal.SIGTERM)
        assert inside.recv(1) == b""
        wait_until(lambda: not pending(pid), "that it is taken")
        filter_.process.send_signal(signal.SIGINT)
        assert filter_.process.wait(DEADLINE) == 0
        assert filter_.log().endswith("abort\nclose\nmain: 0\n")


def test_what_returns_after_main(tmp_path: Path) -> None:
    """The line says which callback; abort and close follow when it returns."""
    program = compile_c(tmp_path / "left", HERE / "left.c", "-lmilter", "-pthread")
    log = compile_c(tmp_path / "log.so", "-shared", "-fPIC", HERE / "log.c")
    path = tmp_path / "socket"
    with subprocess.Popen(
        (program, path),
        env={**OUR_ENV, "LD_PRELOAD": str(log)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "open\n"
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(DEADLINE)
                peer.connect(str(path))
                peer.sendall(OPTNEG + MAIL)
                assert process.stdout.readline() == "envfrom\n"
                for _ in range(2):
                    process.send_signal(signal.SIGINT)
                    wait_until(lambda: not pending(process.pid), "that it is taken")
                output, errors = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert process.returncode == 0
    assert output.splitlines() == ["main 0", "envfrom returns", "abort", "close"]
    [line] = [line for line in errors.splitlines() if "left behind" in line]
    assert re.search(
        r"left: envfrom: it has not returned for \d+ s: its thread is left behind, "
        r"its connection closed$",
        line,
    )
