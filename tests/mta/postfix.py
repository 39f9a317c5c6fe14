"""A private Postfix on loopback: configuration, queue and log are in a temporary folder.

Needs root and Debian's or Ubuntu's package; never touches the machine's own.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from mta import DOMAIN, HOSTNAME, RECEIVED, Message, Mta, header_lines, wait_for

ID = re.compile(rb"\tby mx\.local\.test \(Postfix\) with \w+ id (\w+)")
OWN_RECEIVED = re.compile(
    rb"(\tby mx\.local\.test \(Postfix\) with \w+ id )\w+"
    rb"(\n\tfor <[^>]+>)?;\s+\w{3}, [ \d]\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4} \(\w+\)"
)
# What the delivery agent puts on top.
DELIVERY = re.compile(rb"Return-Path: (.*)\nX-Original-To: .*\nDelivered-To: (.*)\n")

# One smtpd for each way to use a filter. In the values
# {one} and {two} are the filters' unix sockets and {inet} is a TCP port for a filter.
SERVICES: dict[str, dict[str, str]] = {
    "plain": {},
    "unix": {"smtpd_milters": "unix:{one}"},
    "inet": {"smtpd_milters": "inet:127.0.0.1:{inet}"},
    "both": {"smtpd_milters": "unix:{one},unix:{two}"},
    "accept": {"smtpd_milters": "unix:{one}", "milter_default_action": "accept"},
    "reject": {"smtpd_milters": "unix:{one}", "milter_default_action": "reject"},
    "quarantine": {"smtpd_milters": "unix:{one}", "milter_default_action": "quarantine"},
    # Filters that must be quick at the end of a message.
    "hurried": {"smtpd_milters": "unix:{one}", "milter_content_timeout": "2s"},
    "hurried two": {"smtpd_milters": "unix:{two}", "milter_content_timeout": "2s"},
    "version2": {"smtpd_milters": "unix:{one}", "milter_protocol": "2"},
    "version3": {"smtpd_milters": "unix:{one}", "milter_protocol": "3"},
    "version4": {"smtpd_milters": "unix:{one}", "milter_protocol": "4"},
}

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = {daemons}
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
notify_classes =
in_flow_delay = 0

myhostname = {hostname}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8

# Nothing but the filter may change or refuse a message, or make a client wait.
local_recipient_maps =
local_header_rewrite_clients =
smtpd_recipient_restrictions =
smtpd_relay_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
message_size_limit = 104857600
mailbox_size_limit = 0

# All recipients share a box; each delivery names its own in Delivered-To. No mail leaves.
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}/maildir
virtual_mailbox_maps = static:box/
default_transport = error:no mail leaves this machine
virtual_mailbox_limit = 0
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}

milter_default_action = tempfail
milter_connect_timeout = 20s
milter_command_timeout = 20s
milter_content_timeout = 40s
milter_connect_macros = j {{daemon_name}} {{daemon_addr}} v _ {{client_addr}} {{client_name}}
"""

# service, type, private, unprivileged, chroot, wakeup, processes, command
MASTER_CF = """\
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
local     unix  - n n - - local
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


class Postfix(Mta):
    """A running Postfix. Use as a context manager."""

    name = "postfix"
    services = tuple(SERVICES)
    without = "quarantine"
    taken = re.compile(r"2\.0\.0 Ok: queued as (\w+)")

    def __init__(self) -> None:
        super().__init__()
        self.etc = self.folder / "etc"
        self.log_file = self.folder / "mail.log"
        self._read: set[Path] = set()
        self._box: dict[tuple[str, str], Message] = {}

    @classmethod
    def missing(cls) -> str | None:
        if not shutil.which("postfix", path="/usr/sbin"):
            return "Postfix is not installed"
        if os.geteuid() != 0:
            return "Postfix can only be started by root"
        return None

    def furnish(self) -> None:
        for name in ("etc", "queue", "data", "maildir"):
            (self.folder / name).mkdir(mode=0o755)
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "maildir", 65534)
        daemons = next(
            path
            for path in ("/usr/lib/postfix/sbin", "/usr/libexec/postfix", "/usr/lib/postfix")
            if Path(path, "master").exists()
        )
        (self.etc / "main.cf").write_text(
            MAIN_CF.format(
                folder=self.folder, daemons=daemons, hostname=HOSTNAME, domain=DOMAIN, uid=65534
            )
        )

    def start(self) -> None:
        lines = [MASTER_CF]
        for name, settings in SERVICES.items():
            lines.append(f"127.0.0.1:{self.ports[name]} inet n - n - - smtpd\n")
            for key, value in settings.items():
                filled = value.format(one=self.one, two=self.two, inet=self.inet)
                lines.append(f"    -o {key}={filled}\n")
        (self.etc / "master.cf").write_text("".join(lines))
        self._postfix("start")

    def stop(self) -> None:
        self._postfix("stop", check=False)

    def _postfix(self, command: str, check: bool = True) -> None:
        done = subprocess.run(
            ["/usr/sbin/postfix", "-c", self.etc, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"postfix {command} failed:\n{done.stdout}{self.log()}")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def box(self) -> dict[tuple[str, str], Message]:
        """The messages delivered so far, by queue id and recipient."""
        for path in (self.folder / "maildir" / "box" / "new").glob("*"):
            if path not in self._read:
                self._read.add(path)
                delivered = path.read_bytes()
                # The first Received is the private Postfix's own, above any that was sent.
                id_, top = ID.search(delivered), DELIVERY.match(delivered)
                assert id_, delivered
                assert top, delivered
                key = (id_[1].decode(), top[2].decode())
                assert key not in self._box, f"{key} was delivered twice"
                self._box[key] = self._message(top[1], delivered[top.end() :])
        return self._box

    @staticmethod
    def _message(sender: bytes, text: bytes) -> Message:
        alike, count = OWN_RECEIVED.subn(rb"\1\2", text, count=1)
        assert count == 1, text
        head, _, body = text.partition(b"\n\n")
        lines = header_lines(head)
        lines = [RECEIVED if "by mx.local.test (Postfix)" in line else line for line in lines]
        return Message(sender.decode("utf-8", "surrogateescape"), lines, body, sender + alike)

    def find(self, queue_id: str, rcpt: str) -> Message | None:
        return self.box().get((queue_id, rcpt))

    def recipients(self, queue_id: str) -> set[str]:
        queues = [self.folder / "queue" / name for name in ("incoming", "active", "deferred")]
        wait_for("empty queues", lambda: not any(map(self._queued, queues)))
        return {rcpt for id_, rcpt in self.box() if id_ == queue_id}

    @staticmethod
    def _queued(queue: Path) -> set[str]:
        return {path.name for path in queue.rglob("*") if path.is_file()}

    def held(self, queue_id: str) -> bool:
        return queue_id in self._queued(self.folder / "queue" / "hold")

    def queue_file(self, queue_id: str) -> dict[str, list[str]]:
        """Envelope records of a queued message, by record name: sender, recipient, attributes."""
        text = subprocess.run(
            ["/usr/sbin/postcat", "-c", self.etc, "-eq", queue_id],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        records: dict[str, list[str]] = {}
        for line in text.splitlines():
            name, separator, value = line.partition(": ")
            if separator:
                records.setdefault(name, []).append(value)
        return records
