"""Milter.testing.MTA with messages that are no mail, with large ones, and with filters that break
off: a clear result or error each time."""

import subprocess
import sys

import Milter
import pytest
from fake import FakeFilter, options
from Milter.testing import MTA, FilterClosed, FilterTimeout, ProtocolError


class Counting(Milter.Base):
    """Counts headers and bytes, without answering each."""

    def __init__(self):
        self.headers = self.size = self.longest = 0

    @Milter.noreply
    def header(self, name, value):
        self.headers += 1
        self.longest = max(self.longest, len(name) + len(value))
        return Milter.CONTINUE

    @Milter.noreply
    def body(self, chunk):
        self.size += len(chunk)
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Size", str(self.size))
        return Milter.CONTINUE


REFUSED = "552 5.6.0 Headers too large (32768 max)"
NO_CR = "421 4.5.0 Bare carriage return (CR) not allowed"
# The message; how many headers and bytes of body filters see; what Sendmail says to it.
MESSAGES = {
    "empty": (b"", 0, 0, None),
    "one line end": (b"\n", 0, 0, None),
    "only CR": (b"\r\r\r", 0, 0, NO_CR),
    "no blank line": (b"Subject: a\nbody\n", 1, 6, None),
    "no header": (b"body: is it?\n\n", 1, 0, None),
    "binary": (bytes(range(256)) * 4, 0, 1030, NO_CR),
    "NUL": (b"\0" * 1000, 0, 1002, None),
    "no line end": (b"x" * 100_000, 0, 100_002, None),
    "white space": (b" \n\t\n  \n", 0, 10, None),
    "a header of 10 MB": (b"X: " + b"h" * 10_000_000 + b"\n\nb\n", 1, 3, REFUSED),
    "a name of 10 MB": (b"X" * 10_000_000 + b": h\n\nb\n", 0, 10_000_010, None),
    "100000 headers": (b"X: y\n" * 100_000 + b"\nb\n", 100_000, 3, REFUSED),
    "100000 folds": (b"X: y\n" + b" y\n" * 100_000 + b"\nb\n", 1, 3, REFUSED),
    "lone line ends": (b"A: 1\n\n" + b"\n" * 100_000, 1, 200_000, None),
}


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
@pytest.mark.parametrize("case", MESSAGES)
def test_messages_that_are_no_mail(profile, case):
    content, headers, size, refusal = MESSAGES[case]
    with MTA(Counting, profile=profile) as mta:
        result = mta.send(content)
        counting = mta.filter
        assert isinstance(result.message, bytes)
        assert isinstance(result.diff(), str)
        if profile == "sendmail" and refusal:
            assert (result.step, str(result.reply)) == ("mta", refusal)
            return
        assert (result.verdict, result.step) == ("accepted", "eom")
        assert counting.headers == headers
        assert counting.longest <= 60_000
        if case == "NUL" and profile == "sendmail":
            size = 0  # it takes them out of what could be a header, and the line is empty
        assert counting.size == size
        assert mta.send(b"A: 1\n\n").verdict == "accepted"


PEAK = """
import sys
import Milter
from Milter.testing import MTA

class Filter(Milter.Base):
    def body(self, chunk): return Milter.CONTINUE
    def eom(self):
        self.addheader("X-Seen", "yes")
        return Milter.CONTINUE

def memory(which):
    with open("/proc/self/status") as status:
        return 1024 * int(status.read().split(which + ":")[1].split()[0])

with MTA(Filter, profile=sys.argv[1]) as mta:
    mta.send(b"\\n")
    before = memory("VmRSS")
    content = (b"x" * 98 + b"\\r\\n") * 1_000_000
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # forgets the peak
    result = mta.send(content)
    assert len(result.message) == len(content) + 15 and result.diff()
    print((memory("VmHWM") - before) / len(content))
"""


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_memory_for_100_megabytes(profile):
    """Twice the message: as it came in, and the whole one that comes out."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, profile], capture_output=True, text=True, check=True
    )
    assert 1.9 < float(done.stdout) < 2.1


@pytest.mark.parametrize("command", [b"O", b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"])
@pytest.mark.parametrize("data", [None, b"\0", b"\0\0\0\1", b"\0\0\0\2c", b"HTTP/1.1 400\r\n", b""])
def test_filters_that_break_off(tmp_path, command, data):
    """Bytes instead of an answer, then the end of the connection; or nothing at all."""

    class Breaking(FakeFilter):
        def serve(self, connection):
            super().serve(connection)
            if data:
                connection.sendall(data)

    seconds = 0.02 if data == b"" else 30
    answers = {b"O": options(), command: b"" if data == b"" else None}
    with Breaking(tmp_path / "s", answers) as fake:
        for profile in ("postfix", "sendmail"):
            with (
                MTA(fake.spec, timeout=seconds, profile=profile) as mta,
                pytest.raises(ProtocolError) as caught,
            ):
                mta.send(b"A: 1\n\nx\n")
            if data is None:
                assert isinstance(caught.value, FilterClosed)
            if data == b"":
                assert isinstance(caught.value, FilterTimeout)
            with MTA(fake.spec, timeout=seconds, profile=profile, strict=False) as mta:
                assert mta.send(b"A: 1\n\nx\n").verdict == "tempfailed"


def test_a_filter_that_crashes(tmp_path):
    program = (
        "import os, Milter\n"
        "class Crashing(Milter.Base):\n"
        "    def data(self): os._exit(3)\n"
        f"Milter.Server(Crashing, 'unix:{tmp_path / 's'}').start().join()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            mta = MTA(tmp_path / "s", wait=30)
            with pytest.raises(FilterClosed, match="at data: the filter closed the connection"):
                mta.send(b"\n")
            mta.close()
            assert process.wait(30) == 3
        finally:
            process.kill()
