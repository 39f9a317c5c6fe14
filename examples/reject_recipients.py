"""Refuses recipients that a file lists, each with a reply of its own.

The file is reject_recipients.conf beside this one. It is read again when it has changed.
"""

import logging
import re
from pathlib import Path

import Milter
from Milter.utils import parse_addr

log = logging.getLogger("reject_recipients")

# Address, code, enhanced code of the same class, text.
RULE = re.compile(r"(\S*@\S+)\s+(([45])[0-5][0-9])\s+(\3(?:\.[0-9]{1,3}){2})\s+([ -~]{1,400})")


def read_rules(path):
    """What the file says: address or @domain in lower case -> code, enhanced code, text."""
    rules = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        rule = RULE.fullmatch(line.strip())
        if not rule:
            raise ValueError(f"{path.name}, line {number} is not: ADDRESS 550 5.1.1 TEXT")
        address, code, _, enhanced, text = rule.groups()
        rules[address.lower()] = code, enhanced, text.replace("%", "%%")  # as setreply wants it
    return rules


class Rules:
    """The rules of a file. What is wrong with it at the start is raised: a filter without its rules
    would let everything through."""

    def __init__(self, path):
        self.path = path
        self.state = self.state_now()
        self.rules = read_rules(path)

    def state_now(self):
        """What changes when the file does; None if it cannot be looked at."""
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def current(self):
        """The rules of this moment. From any thread: they are never changed, only replaced."""
        state = self.state_now()
        if state != self.state:
            # First, so that a file which is wrong is complained about once, and before it is read,
            # so that a change meanwhile counts as another one.
            self.state = state
            try:
                self.rules = read_rules(self.path)
                log.info("%s: %d rules", self.path, len(self.rules))
            except (OSError, ValueError) as error:
                log.error("%s; the rules from before stay", error)
        return self.rules


class RejectRecipients(Milter.Base):
    rules = Rules(Path(__file__).with_suffix(".conf"))  # one for all connections

    def envrcpt(self, rcpt, *params):
        # Addresses come as the client wrote them: in brackets, quoted, in any case.
        address = "@".join(parse_addr(rcpt)).lower()
        rules = self.rules.current()
        rule = rules.get(address) or rules.get("@" + address.rpartition("@")[2])
        if rule is None:
            return Milter.CONTINUE
        self.setreply(*rule)
        return Milter.REJECT if rule[0].startswith("5") else Milter.TEMPFAIL


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Milter.factory = RejectRecipients
    Milter.runmilter("reject_recipients", "inet:8894@127.0.0.1")
