"""The filter of filters/every_step.py on purepythonmilter, which listens at TCP only.

Usage: filter.py HOST:PORT every|noreply

Its hooks are functions, and nothing is kept for a connection between two of them: what the other
filters keep in a connection's object is kept here in one for all. The library reads from the
annotation of what a hook returns whether the step is answered.
"""

import logging
import sys

import purepythonmilter as ppm

ANSWERS = sys.argv[2] == "every"
Answer = ppm.VerdictOrContinue if ANSWERS else None


def answer():
    return ppm.Continue() if ANSWERS else None


class Seen:
    """What the last step brought, and how much came in all."""

    octets = 0
    recipients = 0
    client = helo = sender = params = queue_id = None


async def on_connect(command: ppm.Connect) -> Answer:
    Seen.client = command.connection_info_args
    return answer()


async def on_helo(command: ppm.Helo) -> Answer:
    Seen.helo = command.hostname
    return answer()


async def on_mail_from(command: ppm.MailFrom) -> Answer:
    Seen.sender = command.address
    Seen.params = command.esmtp_args
    Seen.recipients = 0
    return answer()


async def on_rcpt_to(command: ppm.RcptTo) -> Answer:
    Seen.recipients += 1
    return answer()


async def on_data(command: ppm.Data) -> Answer:
    return answer()


async def on_header(command: ppm.Header) -> Answer:
    Seen.octets += len(command.name) + len(command.text)
    return answer()


async def on_end_of_headers(command: ppm.EndOfHeaders) -> Answer:
    return answer()


async def on_body_chunk(command: ppm.BodyChunk) -> Answer:
    Seen.octets += len(command.data_raw)
    return answer()


async def on_unknown(command: ppm.Unknown) -> Answer:
    return answer()


async def on_end_of_message(command: ppm.EndOfMessage) -> ppm.VerdictOrContinue:
    Seen.queue_id = command.macros.get("i")
    return ppm.Continue()


async def on_abort(command: ppm.Abort) -> None:
    pass


async def on_quit(command: ppm.Quit) -> None:
    pass


def main() -> None:
    # At each message but a connection's first it logs an error of its own making.
    logging.disable(logging.ERROR)
    host, _, port = sys.argv[1].rpartition(":")
    ppm.PurePythonMilter(
        hook_on_connect=on_connect,
        hook_on_helo=on_helo,
        hook_on_mail_from=on_mail_from,
        hook_on_rcpt_to=on_rcpt_to,
        hook_on_data=on_data,
        hook_on_header=on_header,
        hook_on_end_of_headers=on_end_of_headers,
        hook_on_body_chunk=on_body_chunk,
        hook_on_unknown=on_unknown,
        hook_on_end_of_message=on_end_of_message,
        hook_on_abort=on_abort,
        hook_on_quit=on_quit,
    ).run_server(host=host, port=int(port))
    print(Seen.octets)


if __name__ == "__main__":
    main()
