"""The Python module `mime` on any bytes, by atheris (libFuzzer for Python). Arguments: libFuzzer's.

The first bytes choose what is done, the rest is a message, a page and an archive.
Invariant: nothing raises, but zipnames its SuspiciousArchive. A message that was read is unmodified
and written as it came; after defang, defang finds nothing. A page loses nothing but its scripts,
which it has none of the second time.
"""

import contextlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mime"]):
    import mime

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mime"))
from messages import corpus, filtered, read
from operations import IN_TURN, OPERATIONS


def one(data: bytes) -> None:
    choices, data = data[:2], data[2:]
    message = read(data)
    assert message.as_bytes(unixfrom=True) == data
    assert not message.ismodified()
    for choice in choices:
        OPERATIONS[IN_TURN[choice % len(IN_TURN)]](message)
    message = read(message.as_bytes())  # what can be read in several ways is found where it is read
    mime.defang(message, scan_zip=True)
    written = message.as_bytes()
    again = read(written)
    mime.defang(again, scan_zip=True)
    assert again.as_bytes() == written

    once = filtered(data.decode("latin-1"))
    assert filtered(once) == once
    with contextlib.suppress(mime.SuspiciousArchive):
        mime.zipnames(data)


def seed(folder: Path) -> None:
    """Puts what there is to begin with into the folder of what was learnt, if that is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        for number, (name, data) in enumerate(corpus().items()):
            (folder / name).write_bytes(bytes((number % 256, 255 - number % 256)) + data)


if __name__ == "__main__":
    for argument in sys.argv[1:2]:
        seed(Path(argument))
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
