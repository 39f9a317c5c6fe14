"""A filter that has the end of message only, and there waits or computes. waiting.c does the same.

Runs on ours and on the older package. Usage: waiting.py SOCKET DEED, where DEED is one of
sleep:US (sleeps so many microseconds), lookup:PORT (asks the DNS server at this port of 127.0.0.1
twice, by a plain UDP socket), spin:US (uses so much CPU time), long-sleep:US and long-spin:US (as
spin, but the 1000th message sleeps or spins for a second).
"""

import itertools
import socket
import struct
import sys
import time

import Milter
import milter

LOOKUPS = 2
LONG_US = 1_000_000
LONG_MESSAGE = 1000
# A question for the address of mail.example.com; its id goes before it.
QUESTION = bytes.fromhex("0100 0001 0000 0000 0000") + b"\4mail\7example\3com\0\0\1\0\1"
PATIENCE = struct.pack("ll", 5, 0)  # seconds and microseconds that an answer may take

messages = itertools.count(1)


def sleep(us):
    time.sleep(us / 1e6)


def spin(us):
    end = time.thread_time_ns() + us * 1000
    while time.thread_time_ns() < end:
        pass


def look_up(port):
    for number in range(LOOKUPS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
            resolver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
            resolver.connect(("127.0.0.1", port))
            begin = struct.pack(">H", number)
            resolver.send(begin + QUESTION)
            answer = resolver.recv(512)
        if answer[:2] != begin or answer[6:8] != b"\0\1":
            raise RuntimeError("a wrong answer from the DNS server")


def with_a_long_one(long):
    def deed(us):
        if next(messages) == LONG_MESSAGE:
            long(LONG_US)
        else:
            spin(us)

    return deed


DEEDS = {
    "sleep": sleep,
    "lookup": look_up,
    "spin": spin,
    "long-sleep": with_a_long_one(sleep),
    "long-spin": with_a_long_one(spin),
}


class Waiting(Milter.Base):
    """Does its deed at the end of each message."""

    def eom(self):
        deed(number)
        return Milter.CONTINUE


if __name__ == "__main__":
    print(Milter.__file__, milter.__file__, sep="\n", flush=True)
    name, _, number = sys.argv[2].partition(":")
    deed, number = DEEDS[name], int(number)
    Milter.factory = Waiting
    Milter.runmilter("waiting", sys.argv[1], 600)
