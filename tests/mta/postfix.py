"""A private Postfix on loopback: configuration, queue and log are in a temporary folder.

What is sent to it and what a filter does are the tests' business; here it is started, watched,
read and stopped. Needs root and Debian's or Ubuntu's package; never touches the machine's own.
"""

import os
import re
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

DOMAIN = "local.test"
HOSTNAME = "mx.local.test"
MESSAGE = b"Subject: test\r\nX-Two: first\r\nX-Two: second\r\n\r\nThe body.\r\n"
RECEIVED = re.compile(rb"\tby mx\.local\.test \(Postfix\) with \w+ id (\w+)")
DELIVERED_TO = re.compile(rb"^Delivered-To: (.*)$", re.MULTILINE)

# One smtpd for each way to use a filter, so that no test has to reload Postfix. In the values
# {one} and {two} are the filters' unix sockets and {inet} is a TCP port for a filter.
SERVICES: dict[str, dict[str, str]] = {
    "plain": {},
    "unix": {"smtpd_milters": "unix:{one}"},
    "inet": {"smtpd_milters": "inet:127.0.0.1:{inet}"},
    "both": {"smtpd_milters": "unix:{one},unix:{two}"},
    "accept": {"smtpd_milters": "unix:{one}", "milter_default_action": "accept"},
    "reject": {"smtpd_milters": "unix:{one}", "milter_default_action": "reject"},
    "quarantine": {"smtpd_milters": "unix:{one}", "milter_default_action": "quarantine"},
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


def wait_for(what: str, condition: Callable[[], T | None], seconds: float = 30) -> T:
    """Returns the first true value of condition(); AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Numbers of TCP ports on loopback that nobody uses now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def missing() -> str | None:
    """Why no private Postfix can run here, or None if it can."""
    if not shutil.which("postfix", path="/usr/sbin"):
        return "Postfix is not installed"
    if os.geteuid() != 0:
        return "Postfix can only be started by root"
    return None


class Reply(NamedTuple):
    """What an SMTP client got: the code and the text, its lines joined by line feeds."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Client(smtplib.SMTP):
    """An SMTP client that hands every reply back and raises for none."""

    def __init__(self, port: int) -> None:
        super().__init__(timeout=60, local_hostname="client.test")
        self.greeting = self.reply(self.connect("127.0.0.1", port))

    @staticmethod
    def reply(answer: tuple[int, bytes]) -> Reply:
        """The reply of an smtplib call."""
        code, text = answer
        return Reply(code, text.decode("utf-8", "surrogateescape"))

    def command(self, line: str | bytes) -> Reply:
        """Sends one command line; bytes go out as they are."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply(self.getreply())

    def content(self, message: bytes) -> Reply:
        """Sends a message (CR LF line ends) and its final dot, after DATA got its 354."""
        dots = re.sub(rb"(?m)^\.", b"..", message)
        self.send(dots + (b"" if dots.endswith(b"\r\n") else b"\r\n") + b".\r\n")
        return self.reply(self.getreply())

    def run(self, message: bytes, sender: str, rcpts: Sequence[str]) -> dict[str, Reply]:
        """One whole message. Goes on after refused recipients, but stops at another refusal.
        Returns the replies in order by the command's name; "." is the end of the message."""
        replies = {"mail": self.command(f"MAIL FROM:{sender}")}
        if replies["mail"].code != 250:
            return replies
        for number, rcpt in enumerate(rcpts):
            replies[f"rcpt{number or ''}"] = self.command(f"RCPT TO:{rcpt}")
        replies["data"] = self.command("DATA")
        if replies["data"].code == 354:
            replies["."] = self.content(message)
        return replies


def queue_id(reply: Reply) -> str:
    """The id that Postfix gave to a message it took; AssertionError if it did not."""
    match = re.fullmatch(r"2\.0\.0 Ok: queued as (\w+)", reply.text)
    assert reply.code == 250, str(reply)
    assert match, str(reply)
    return match[1]


class Postfix:
    """A running Postfix. Use as a context manager."""

    def __init__(self) -> None:
        # Not below pytest's own folder: that one is closed to Postfix's user.
        self.folder = Path(tempfile.mkdtemp(prefix="milterkit-postfix-"))
        self.folder.chmod(0o755)
        self.etc = self.folder / "etc"
        self.log_file = self.folder / "mail.log"
        self.one = self.folder / "filters" / "one"
        self.two = self.folder / "filters" / "two"
        self.ports: dict[str, int] = {}
        self._read: set[Path] = set()
        self._box: dict[tuple[str, str], bytes] = {}

    def __enter__(self) -> "Postfix":
        try:
            self._furnish()
            # A port may be taken between its choice and its use: then others are tried.
            for attempt in range(3):
                self._configure()
                self._postfix("start")
                try:
                    wait_for("Postfix to listen", self._listens, 20)
                    return self
                except AssertionError:
                    if attempt == 2 or "Address already in use" not in self.log():
                        raise RuntimeError(f"Postfix did not start:\n{self.log()}") from None
                    self._postfix("stop")
            raise AssertionError
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._postfix("stop", check=False)
        shutil.rmtree(self.folder)

    def _furnish(self) -> None:
        for name in ("etc", "queue", "data", "maildir", "filters"):
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

    def _configure(self) -> None:
        self.inet, *ports = free_ports(1 + len(SERVICES))
        self.ports = dict(zip(SERVICES, ports, strict=True))
        lines = [MASTER_CF]
        for name, settings in SERVICES.items():
            lines.append(f"127.0.0.1:{self.ports[name]} inet n - n - - smtpd\n")
            for key, value in settings.items():
                filled = value.format(one=self.one, two=self.two, inet=self.inet)
                lines.append(f"    -o {key}={filled}\n")
        (self.etc / "master.cf").write_text("".join(lines))

    def _listens(self) -> bool:
        try:
            Client(self.ports["plain"]).close()
        except (OSError, smtplib.SMTPException):
            return False
        return True

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
        """All that Postfix logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def client(self, service: str) -> Client:
        """A new SMTP connection to one of SERVICES; nothing but the greeting was exchanged."""
        return Client(self.ports[service])

    def session(
        self,
        service: str,
        message: bytes = MESSAGE,
        sender: str = "<sender@example.test>",
        rcpts: Sequence[str] = ("<one@local.test>",),
    ) -> dict[str, Reply]:
        """A whole SMTP session with one message, as far as Postfix lets it come; see Client.run.
        Also has the replies "greeting" and "ehlo"."""
        with closing(self.client(service)) as client:
            replies = {"greeting": client.greeting}
            if client.greeting.code == 220:
                replies["ehlo"] = client.command("EHLO client.test")
                replies |= client.run(message, sender, rcpts)
                client.command("QUIT")
            return replies

    def submit(self, service: str, *message: Any, **envelope: Any) -> str:
        """A session in which the message must be taken; returns its queue id."""
        replies = self.session(service, *message, **envelope)
        assert "." in replies, replies
        return queue_id(replies["."])

    def box(self) -> dict[tuple[str, str], bytes]:
        """The messages delivered so far, by queue id and recipient."""
        for path in (self.folder / "maildir" / "box" / "new").glob("*"):
            if path not in self._read:
                self._read.add(path)
                message = path.read_bytes()
                # The first Received is the private Postfix's own, above any that was sent.
                id_, rcpt = RECEIVED.search(message), DELIVERED_TO.search(message)
                assert id_, message
                assert rcpt, message
                key = (id_[1].decode(), rcpt[1].decode())
                assert key not in self._box, f"{key} was delivered twice"
                self._box[key] = message
        return self._box

    def delivered(self, queue_id: str, rcpt: str) -> bytes:
        """Waits until a message was delivered to rcpt@DOMAIN, and returns it."""
        key = (queue_id, f"{rcpt}@{DOMAIN}")
        return wait_for(f"the delivery {key}", lambda: self.box().get(key))

    def recipients(self, queue_id: str) -> set[str]:
        """Waits until nothing is on its way, and returns who got a message."""
        self.settled()
        return {rcpt for id_, rcpt in self.box() if id_ == queue_id}

    @staticmethod
    def _queued(queue: Path) -> set[str]:
        return {path.name for path in queue.rglob("*") if path.is_file()}

    def settled(self) -> None:
        """Waits until no message is left on its way (those on hold stay)."""
        queues = [self.folder / "queue" / name for name in ("incoming", "active", "deferred")]
        wait_for("empty queues", lambda: not any(map(self._queued, queues)))

    def held(self) -> set[str]:
        """The queue ids of the messages on hold."""
        return self._queued(self.folder / "queue" / "hold")

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
