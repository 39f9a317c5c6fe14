"""All cases: the transcripts in files, read for each implementation, and the systematic ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from Milter.testing.transcript import Answered, Called, Event, Returned, Sent, Transcript, parse
from play import TAGS, Setup, setup_of
from systematic import FOLLOWS, Case, systematic

HERE = Path(__file__).parent
STARTS = "starts.transcript"


@cache
def starts() -> dict[str, Transcript]:
    """What other transcripts begin with, by title."""
    return {start.title: start for start in parse((HERE / STARTS).read_text())}


def whole(transcript: Transcript) -> Transcript:
    """A transcript with what `after:` stands for."""
    found = Transcript(transcript.title, list(transcript.head), list(transcript.entries))
    for title in transcript.values("after"):
        found.head += starts()[title].head
        found.entries = starts()[title].entries + found.entries
    return found


@cache
def transcripts() -> list[Transcript]:
    """Those in the folder, without the starts: these have no end."""
    files = sorted(path for path in HERE.glob("*.transcript") if path.name != STARTS)
    return [whole(found) for path in files for found in parse(path.read_text())]


@cache
def cases() -> list[tuple[Case, dict[str, Setup]]]:
    """Every case, with what the filter is made with for each implementation that it is for."""
    found = []
    for transcript in transcripts():
        faces = set((transcript.values("for") or ["c python"])[0].split())
        names = [name for name, tags in TAGS.items() if tags & faces]
        case = Case(
            transcript.title,
            {name: transcript.events(*TAGS[name]) for name in names},
            transcript.values("differs"),
            transcript.head,
        )
        found.append((case, {name: setup_of(transcript, name) for name in names}))
    for case in systematic():
        setups = {}
        for name, events in case.events.items():
            called = {event.step for event in events if isinstance(event, Called)}
            head = [("with", "negotiate")] if "negotiate" in called else []
            setups[name] = setup_of(Transcript(case.title, head), name)
        found.append((case, setups))
    return found


# -------------------------------------------------------------------------------------- table

LEADS = dict(zip("OCHMRTLNBEUAK", [*[*FOLLOWS][1:11], "UNKN", "ABRT", "Q_NC"], strict=True))


def states_of(events: list[Event]) -> list[tuple[str, str]]:
    """Each command of a connection with the state in which it came, as far as can be seen from
    outside: a command is accepted if it led to a callback or an answer."""
    found = []
    state = "INIT"
    for i, event in enumerate(events):
        if not isinstance(event, Sent):
            continue
        data = event.data
        is_packet = bool(data) and int.from_bytes(data[:4], "big") == len(data) - 4
        name = "eof" if data is None else chr(data[4]) if is_packet else "bytes"
        if name not in ("eof", "bytes", "D", "Q", *LEADS):
            name = "other"
        found.append((name, state))
        if name in ("eof", "bytes", "other", "Q", "D"):
            continue
        reaction: list[Event] = []
        for after in events[i + 1 :]:
            if isinstance(after, Sent):
                break
            reaction.append(after)
        state = _next_state(name, state, reaction)
    return found


def _next_state(name: str, state: str, reaction: list[Event]) -> str:
    steps = [event.step for event in reaction if isinstance(event, Called)]
    if name == "K":
        return "HELO" if state == "INIT" else "Q_NC"
    if name == "A":
        return "ABRT" if "abort" in steps else "HELO"
    served = any(step not in ("abort", "close") for step in steps)
    if not served and not any(isinstance(event, Answered) for event in reaction):
        return "HELO"
    verdicts = [event.verdict for event in reaction if isinstance(event, Returned)]
    last = verdicts[-1] if verdicts and name != "O" else 0
    over = last == 3 or (last in (1, 2, 4) and name not in "RU")
    return "HELO" if over else LEADS[name]


def table() -> list[list[str]]:
    """How many cases have a command in a state: the first row and column name them. Every cell can
    be filled: any command may come in any state that is not the end."""
    rows = [*LEADS, "D", "Q", "other", "bytes", "eof"]
    counts = {(row, state): 0 for row in rows for state in FOLLOWS}
    for case, _ in cases():
        events = case.events.get("mkit-c") or next(iter(case.events.values()))
        for cell in set(states_of(events)):
            counts[cell] += 1
    body = [[row, *(str(counts[row, state] or "") for state in FOLLOWS)] for row in rows]
    return [["", *FOLLOWS], *body]
