"""An example filter: attachments that would run become a text, and scripts leave HTML.

    DEFANG_FOLDER=/var/spool/defang \\
        milterkit run examples/defang.py --socket unix:/run/defang.sock

The original of each message that was changed is kept in the folder; the text names it.
"""

import io
import os
import re
import time
from collections import Counter
from pathlib import Path

import Milter
import mime

FOLDER = Path(os.environ.get("DEFANG_FOLDER", "/var/spool/defang"))
LIMIT = 50 * 1024 * 1024  # bytes of body; a message is held in memory while it is looked at


class Defang(Milter.Base):
    def envfrom(self, _sender, *_params):
        self.content = io.BytesIO()  # one object serves all messages of a connection
        return Milter.CONTINUE

    @Milter.noreply
    @Milter.decode("bytes")  # headers may hold bytes that are no UTF-8
    def header(self, name, value):
        # Folds are LF here. A lone CR would end a line, and maybe all headers, for some readers.
        value = value.replace(b"\r", b" ").replace(b"\n", b"\r\n")
        self.content.write(b"%s: %s\r\n" % (name.encode("utf-8", "surrogateescape"), value))
        return Milter.CONTINUE

    @Milter.noreply
    def eoh(self):
        self.content.write(b"\r\n")
        return Milter.CONTINUE

    def body(self, chunk):
        if self.content.tell() + len(chunk) > LIMIT:
            self.setreply("552", "5.3.4", f"A message may have {LIMIT >> 20} MiB here")
            return Milter.REJECT
        self.content.write(chunk)
        return Milter.CONTINUE

    def eom(self):
        self.content.seek(0)
        message = mime.message_from_file(self.content)
        before = Counter(map(str.lower, message))
        changed = {}
        message.headerchange = lambda _message, name, _value: changed.update({name.lower(): name})

        if any(
            isinstance(defect, mime.NotTakenApartDefect)
            for part in message.walk()
            for defect in part.defects
        ):
            self.setreply("554", "5.6.0", "The message has too many parts to be looked at")
            return Milter.REJECT

        file = FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.getsymval('i')}.eml"
        # Names in archives count too, and an archive that cannot be looked into is bad.
        if not mime.defang(message, file.name, scan_zip=True):
            return Milter.CONTINUE

        # First the original, then the change. If the disk is full this raises, the MTA tells the
        # client to come again, and nothing is lost.
        save(file, self.content.getvalue())
        for key, name in changed.items():
            # Values as they are kept, which is how they came, 8-bit bytes included.
            values = [value for each, value in message.raw_items() if each.lower() == key]
            for index in range(before[key], len(values), -1):  # from the last one: the others move
                self.chgheader(name, index, None)
            for index, value in enumerate(values, 1):  # one that is not there yet is added
                self.chgheader(name, index, value)
        header_and_body = re.split(rb"^\r\n", message.as_bytes(), maxsplit=1, flags=re.MULTILINE)
        self.replacebody(header_and_body[1])
        return Milter.CONTINUE


def save(file, content):
    """Writes a new file, which only its owner may read."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


if __name__ == "__main__":
    Milter.factory = Defang
    Milter.runmilter("defang", "inet:8894@127.0.0.1")
