"""A private Sendmail on loopback, from packages that are unpacked and not installed.

Messages that it takes stay in its queue, and are read there. Needs root; `make` fetches the
packages into build/sendmail (packaging/needs.py). Its host name is its own (a UTS namespace),
because Sendmail waits a minute for a machine's name to get a dot.
"""

import os
import re
import signal
import subprocess
from pathlib import Path

from mta import HOSTNAME, RECEIVED, Message, Mta, header_lines

ROOT = Path(__file__).parents[2] / "build" / "sendmail"
PROGRAM = ROOT / "usr/libexec/sendmail/sendmail"
CF = ROOT / "usr/share/sendmail/cf"

# The filters by the name that Sendmail knows them by: where, and what is done without them (F=).
FILTERS = {
    "one": ("unix:{one}", "T"),
    "two": ("unix:{two}", "T"),
    "inet": ("inet:{inet}@127.0.0.1", "T"),
    "accept": ("unix:{one}", ""),
    "reject": ("unix:{one}", "R"),
    "shutdown": ("unix:{one}", "4"),
}
# One port for each way to use them.
SERVICES = {
    "plain": "",
    "unix": "one",
    "inet": "inet",
    "both": "one;two",
    "accept": "accept",
    "reject": "reject",
    "shutdown": "shutdown",
}

MC = """\
divert(-1)
include(`{cf}/m4/cf.m4')
divert(0)dnl
OSTYPE(linux)dnl
define(`confDEF_USER_ID', `0:0')dnl
define(`QUEUE_DIR', `{folder}/queue')dnl
define(`confPID_FILE', `{folder}/pid')dnl
define(`ALIAS_FILE', `{folder}/aliases')dnl
define(`STATUS_FILE', `{folder}/statistics')dnl
define(`confDOMAIN_NAME', `{hostname}')dnl
define(`confTO_IDENT', `0')dnl
define(`confDELIVERY_MODE', `queueonly')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
FEATURE(`nocanonify')dnl
LOCAL_DOMAIN(`elsewhere.test')dnl
{filters}{daemons}MAILER(local)dnl
MAILER(smtp)dnl
"""
FILTER = "MAIL_FILTER(`{name}', `S={where}, {flag}T=C:20s;S:20s;R:20s;E:40s')dnl\n"
DAEMON = "DAEMON_OPTIONS(`Name={name}, Addr=127.0.0.1, Port={port}, InputMailFilters={used}')dnl\n"

DATE = r"\w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d (GMT|[+-]\d{4}( \(\w+\))?)"
OWN_RECEIVED = re.compile(r"Received: .*\|\tby mx\.local\.test \([\d./]+\) with E?SMTP id ")
# What differs from message to message: times, file numbers, ids.
OWN_TRACES = re.compile(rf"^[TKNPI][\d/]+$|{DATE}|\d{{12}}\.|(?<=id )\w+|\w+(?=@mx\.local\.test>)")


class Sendmail(Mta):
    """A running Sendmail. Use as a context manager."""

    name = "sendmail"
    services = tuple(SERVICES)
    without = "shutdown"
    taken = re.compile(r"2\.0\.0 (\w+) Message accepted for delivery")
    below = "/run"  # it refuses sockets and queues below a folder that all may write to

    def __init__(self) -> None:
        super().__init__()
        self.queue = self.folder / "queue"
        self.log_file = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        if not PROGRAM.exists():
            return f"Sendmail is not unpacked in {ROOT}"
        if os.geteuid() != 0:
            return "Sendmail can only be started by root"
        return None

    def furnish(self) -> None:
        self.queue.mkdir(mode=0o700)
        (self.folder / "aliases").touch()

    def start(self) -> None:
        filters = [
            FILTER.format(
                name=name,
                where=where.format(one=self.one, two=self.two, inet=self.inet),
                flag=flag and f"F={flag}, ",
            )
            for name, (where, flag) in FILTERS.items()
        ]
        daemons = [
            DAEMON.format(name=name, port=self.ports[name], used=used)
            for name, used in SERVICES.items()
        ]
        mc = MC.format(
            cf=CF,
            folder=self.folder,
            hostname=HOSTNAME,
            filters="".join(filters),
            daemons="".join(daemons),
        )
        (self.folder / "mta.mc").write_text(mc)
        with (self.folder / "mta.cf").open("wb") as cf:
            command = ["m4", f"-D_CF_DIR_={CF}/", str(self.folder / "mta.mc")]
            subprocess.run(command, stdout=cf, check=True)
        # Its log goes to syslog only; of what it does with filters -d64 tells.
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--uts", "sh", "-c", f'hostname {HOSTNAME} && exec "$@"', "-"),
                    *(PROGRAM, "-D", self.log_file, "-d64.5"),
                    *("-C", self.folder / "mta.cf", "-bD"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        if self.process:
            # With the children that have a client still.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def queue_file(self, queue_id: str) -> dict[str, list[str]]:
        """The lines of a message's queue file by their first letter, H with the folds joined;
        empty if there is none. A message in quarantine has it under another name."""
        records: dict[str, list[str]] = {}
        for kind in ("qf", "hf"):
            path = self.queue / f"{kind}{queue_id}"
            if path.exists():
                for line in header_lines(path.read_bytes()):
                    records.setdefault(line[:1], []).append(line[1:])
        return records

    def find(self, queue_id: str, rcpt: str) -> Message | None:
        if rcpt not in self.recipients(queue_id):
            return None
        records = self.queue_file(queue_id)
        # H?FLAGS?NAME: VALUE. Those with flags are what Sendmail itself adds where it is missing.
        own = [line for line in records["H"] if not line.startswith("??")]
        headers = [line[2:] for line in records["H"] if line.startswith("??")]
        headers = [RECEIVED if OWN_RECEIVED.match(line) else line for line in headers]
        body = (self.queue / f"df{queue_id}").read_bytes()
        raw = [records["S"][0], *records["R"], *own, *headers]
        text = OWN_TRACES.sub("", "\n".join(raw)).encode("utf-8", "surrogateescape")
        return Message(records["S"][0], headers, body, text + b"\n\n" + body)

    def recipients(self, queue_id: str) -> set[str]:
        if self.held(queue_id):
            return set()
        addresses = [line.partition(":")[2] for line in self.queue_file(queue_id).get("R", [])]
        return {address.strip("<>") for address in addresses}

    def held(self, queue_id: str) -> bool:
        return (self.queue / f"hf{queue_id}").exists()
