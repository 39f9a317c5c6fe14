"""The demo: starts the example filter, sends it the example messages, shows what it does.

No mail server is needed: Milter.testing plays its part, over the real protocol.
"""

import sys
import tempfile
from email import message_from_bytes
from pathlib import Path

import Milter
from house_rules import HouseRules
from Milter.cli.show import Printer
from Milter.testing import MTA
from Milter.utils import parseaddr

MESSAGES = Path(__file__).parent / "messages"


def main() -> None:
    printer = Printer(sys.stdout)
    with (
        tempfile.TemporaryDirectory() as folder,
        Milter.Server(HouseRules, f"unix:{folder}/filter.sock", name="house rules") as server,
        MTA(server.address) as mta,
    ):
        for file in sorted(MESSAGES.glob("*.eml")):
            content = file.read_bytes()
            message = message_from_bytes(content)
            _, sender = parseaddr(message["From"])
            rcpts = [parseaddr(each)[1] for each in message["To"].split(",")]
            result = mta.send(content, sender, rcpts, client="mail.example.net[192.0.2.25]")
            printer.result(file.name, result)
            print()


if __name__ == "__main__":
    main()
