"""Every case on every implementation: the same bytes, the same callbacks."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from cases import HERE, STARTS, cases, table, transcripts
from Milter.testing.transcript import Called, Sent, Transcript, parse, render
from play import IMPLEMENTATIONS, Filters, Mismatch, is_tainting, play, setup_of, ways_of
from systematic import ALL_NR, is_different, make_case, plain

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
ON_THE_WIRE = "## On the wire"
HANGS_UP = "a peer that hangs up"


def by_setup() -> list[tuple[str, int]]:
    """Cases for one kind of filter after each other, so that few processes are started."""
    found = [
        (name, number)
        for number, (_, setups) in enumerate(cases())
        for name in IMPLEMENTATIONS
        if name in setups
    ]
    return sorted(found, key=lambda it: (it[0], repr(cases()[it[1]][1][it[0]])))


@pytest.mark.parametrize(
    ("implementation", "number"),
    by_setup(),
    ids=lambda it: cases()[it][0].title if isinstance(it, int) else it,
)
def test_case(implementation: str, number: int, ready: Filters) -> None:
    filters = ready
    case, setups = cases()[number]
    setup, events = setups[implementation], case.events[implementation]
    theirs = "theirs" in IMPLEMENTATIONS[implementation]
    tainting = theirs and is_tainting(events, setup)  # not for, and not after, any other case
    if tainting:
        filters.drop(implementation)
    for way in ways_of(implementation):
        running = filters.get(implementation, setup)
        try:
            play(running, events, way, case.title)
        except Mismatch as error:
            filters.kill(implementation)
            pytest.fail(f"{case.title} ({implementation}, {way})\n{error}", pytrace=False)
    if tainting:
        filters.drop(implementation)


@pytest.mark.parametrize("implementation", ["libmilter", "mkit-c"])
def test_a_peer_that_hangs_up(implementation: str, ready: Filters) -> None:
    """Sheet 9.2, vector 50: everything is there before the filter looks, and nobody any more."""
    case = make_case("", plain("OCHMRTLNBEQ"), b"", ALL_NR)
    setup = setup_of(Transcript("", [("with", "negotiate")]), implementation)
    running = ready.get(implementation, setup)
    running.process.send_signal(signal.SIGSTOP)
    with running.connect() as mta:
        for event in case.events[implementation]:
            if isinstance(event, Sent):
                mta.sendall(event.data or b"")
    running.process.send_signal(signal.SIGCONT)
    seen = []
    while seen[-1:] != ["close"]:
        seen.append((running.report()[0] or b"").decode())
        running.order("return", 0, *((0, ALL_NR) if seen[-1] == "negotiate" else ()))
    whole = [event.step for event in case.events[implementation] if isinstance(event, Called)]
    ready.kill(implementation)
    assert seen == (["close"] if implementation == "libmilter" else whole)


def named_differences(text: str) -> set[str]:
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    found = [pair for row in rows for pair in re.findall(r"`` ?(.*?) ?``|`(.*?)`", row)]
    return {first or second for first, second in found}


def test_every_difference_is_named_and_is_one() -> None:
    on_page = named_differences(PAGE.read_text())
    for case, _ in cases():
        assert bool(case.differs) == is_different(case.events), case.title
        assert set(case.differs) <= on_page, case.title


def test_every_difference_on_the_wire_has_a_case() -> None:
    section = PAGE.read_text().split(ON_THE_WIRE)[1].split("\n## ")[0]
    used = {name for case, _ in cases() for name in case.differs}
    assert named_differences(section) <= used | {HANGS_UP}


def test_there_are_enough() -> None:
    titles = [transcript.title for transcript in transcripts()]
    assert len(titles) == len(set(titles))
    assert len(titles) >= 120


def test_the_table_has_no_empty_cell() -> None:
    head, *rows = table()
    empty = [(row[0], head[i]) for row in rows for i, cell in enumerate(row) if i and not cell]
    assert empty == []


@pytest.mark.parametrize("path", sorted(HERE.glob("*.transcript")), ids=lambda path: path.stem)
def test_what_is_read_is_written(path: Path) -> None:
    text = path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert render(parse(text)).strip() == "\n".join(lines).strip()


def test_starts_are_used() -> None:
    used = {title for found in transcripts() for title in found.values("after")}
    assert used == {found.title for found in parse((HERE / STARTS).read_text())}
