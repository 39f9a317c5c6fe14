"""The filter of filters/every_step.py on kilter.service.

Usage: filter.py PATH every|noreply

Its filters are coroutines, one for each message, that await the steps in their order. DATA, the end
of the headers and unknown commands are sent and answered, but cannot be awaited. It serves a second
message on a connection only after an ABORT.
"""

import asyncio
import signal
import sys

import anyio
from kilter.protocol import Accept, ProtocolFlags
from kilter.service import Runner, Session
from kilter.service.options import (
    examine_body,
    examine_headers,
    examine_helo,
    examine_recipients,
    examine_sender,
    modify_flags,
)

ANSWERS = sys.argv[2] == "every"
SENT = (
    ProtocolFlags.NO_CONNECT
    | ProtocolFlags.NO_DATA
    | ProtocolFlags.NO_UNKNOWN
    | ProtocolFlags.NO_END_OF_HEADERS
)
NOT_ANSWERED = (
    ProtocolFlags.NR_CONNECT
    | ProtocolFlags.NR_DATA
    | ProtocolFlags.NR_UNKNOWN
    | ProtocolFlags.NR_END_OF_HEADERS
)


class Seen:
    """How much came in all messages."""

    octets = 0


@examine_helo(can_respond=ANSWERS)
@examine_sender(can_respond=ANSWERS)
@examine_recipients(can_respond=ANSWERS)
@examine_headers(can_respond=ANSWERS)
@examine_body(can_respond=ANSWERS)
@modify_flags(
    unset_options=SENT | (NOT_ANSWERED if ANSWERS else ProtocolFlags.NONE),
    set_options=ProtocolFlags.NONE if ANSWERS else NOT_ANSWERED,
)
async def look(session: Session) -> Accept:
    client = session.host
    helo = await session.helo()
    sender = await session.envelope_from()
    recipients = 0
    async for _ in session.envelope_recipients():
        recipients += 1
    octets = 0
    async with session.headers as headers:
        async for header in headers:
            octets += len(header.name) + len(header.value)
    async with session.body as body:
        async for chunk in body:
            octets += len(chunk)
    Seen.octets += octets
    queue_id = session.macros.get("i")
    if not all((client, helo, sender, recipients, queue_id)):
        print("a step was not seen", file=sys.stderr)
    return Accept()


async def main() -> None:
    listener = await anyio.create_unix_listener(sys.argv[1], backlog=512)
    serving = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    try:
        await listener.serve(Runner(look))
    except asyncio.CancelledError:
        print(Seen.octets)


if __name__ == "__main__":
    asyncio.run(main())
