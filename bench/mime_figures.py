"""Figures of `mime`: its time beside the `email` package's on unmodified messages, how long it and
`Milter` take to import, and how time grows with inputs made to be slow.
Usage: .venv/bin/python bench/mime_figures.py

The status is 1 if a figure is not met: at most 1.3 times email's time, 60 ms for `import Milter`,
and at most 12 times the time for 10 times the input.
"""

from __future__ import annotations

import email
import gc
import io
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "mime"))

import mime
from hostile import SHAPES
from messages import corpus, read

ROUNDS = 7
MOST_OF_EMAIL = 1.3
MOST_IMPORT = 60.0  # milliseconds
MOST_GROWTH = 12.0
LEAST_TIME = 0.001  # seconds: what takes less is made larger before it is measured
MOST_BYTES = 300_000  # but not above this


def best(*programs: Callable[[], object]) -> list[float]:
    """CPU seconds of each, run in turn; the least of all rounds."""
    least = [float("inf")] * len(programs)
    for _ in range(ROUNDS):
        for number, program in enumerate(programs):
            gc.collect()
            gc.disable()  # its share grows with what else is in memory
            start = time.process_time()
            program()
            gc.enable()
            least[number] = min(least[number], time.process_time() - start)
    return least


def compare() -> bool:
    """Our time and email's, on what email can write."""
    messages = []
    for data in corpus().values():
        try:
            email.message_from_binary_file(io.BytesIO(data)).as_bytes()
        except (KeyError, ValueError):  # charsets that nobody knows
            continue
        message = read(data)
        if not mime.defang(message):
            messages.append(data)

    def ours() -> None:
        for data in messages * 5:
            message = mime.message_from_file(io.BytesIO(data))
            mime.defang(message)
            message.as_bytes()

    def theirs() -> None:
        for data in messages * 5:
            email.message_from_binary_file(io.BytesIO(data)).as_bytes()

    ours_took, theirs_took = best(ours, theirs)
    ratio = ours_took / theirs_took
    each = 1e6 / len(messages) / 5
    print(f"{len(messages)} messages: email {theirs_took * each:.0f} us each, ", end="")
    print(
        f"mime with defang {ours_took * each:.0f} us: {ratio:.2f} times (at most {MOST_OF_EMAIL})"
    )
    return ratio <= MOST_OF_EMAIL


def imports() -> bool:
    """How long imports take, above what the interpreter itself needs to start."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    codes = ["pass", "import Milter", "import mime"]
    bare, milter, mime_too = (min(run(code) for _ in range(20)) * 1000 for code in codes)
    print(f"import Milter: {milter - bare:.0f} ms (at most {MOST_IMPORT}), ", end="")
    print(f"import mime: {mime_too - bare:.0f} ms; the interpreter alone {bare:.0f} ms")
    return milter - bare <= MOST_IMPORT


def growth() -> bool:
    """The time of inputs, and of ten times as much. Measured again where it seems too much: large
    inputs do not fit into the caches, and other programs use them too."""
    fine = True
    for name, shape in SHAPES.items():
        times = 100
        while True:
            small, large = shape.make(times), shape.make(times * 10)
            [took] = best(partial(shape.use, small))
            if took >= LEAST_TIME or len(small) > MOST_BYTES:
                break
            times *= 4
        for _ in range(4):
            few, many = best(partial(shape.use, small), partial(shape.use, large))
            grown = many / few
            if grown <= MOST_GROWTH:
                break
        verdict = "" if grown <= MOST_GROWTH else "  TOO MUCH"
        fine &= not verdict
        print(
            f"{name:40} {len(small):9} bytes {few * 1e3:8.2f} ms, 10 times: {grown:5.1f}{verdict}"
        )
    return fine


if __name__ == "__main__":
    results = [compare(), imports(), growth()]
    sys.exit(not all(results))
