"""A filter that is replaced while SMTP sessions are open: none of them sees anything of it. (One
that is stopped closes those that are between two messages, and they get 451 for the next one.)
`make retire` replaces it more often."""

from contextlib import closing

import pytest
from mta import MESSAGE, Mta
from replaced import KINDS, begin, place, replace_under_load

TIMES = {"postfix": 20, "sendmail": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_replaced_in_each_step(mta: Mta, kind: str) -> None:
    """Sessions before their first message, inside one, and between two; twice in a row."""
    with (
        place(mta, kind) as at,
        closing(begin(mta, kind)) as fresh,
        closing(begin(mta, kind)) as inside,
        closing(begin(mta, kind)) as content,
        closing(begin(mta, kind)) as between,
    ):
        mta.queue_id(between.run()["."])
        for client in (inside, content):
            assert client.command("MAIL FROM:<sender@example.test>").code == 250
        assert content.command("RCPT TO:<one@local.test>").code == 250
        assert content.command("DATA").code == 354
        for _ in range(2):
            at.replace()
        ids = [mta.queue_id(client.run()["."]) for client in (fresh, between)]
        assert inside.command("RCPT TO:<one@local.test>").code == 250
        assert inside.command("DATA").code == 354
        ids += [mta.queue_id(client.content(MESSAGE)) for client in (inside, content)]
        clients = (fresh, inside, content, between)
        ids += [mta.queue_id(client.run()["."]) for client in clients]
        for id_ in ids:
            assert "X-Server: 0" in mta.delivered(id_).headers
        assert "X-Server: 2" in mta.delivered(mta.submit(kind)).headers


@pytest.mark.parametrize("kind", KINDS)
def test_replaced_under_load(mta: Mta, kind: str) -> None:
    replace_under_load(mta, kind, TIMES[mta.name])
