"""A DNS server on loopback with a few records, for UDP."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset


@contextmanager
def nameserver(records: dict[tuple[str, str], list[str]]) -> Iterator[dns.resolver.Resolver]:
    """Serves records, (name, type): texts. Gives a resolver that asks it and nobody else.

    Of a name that begins with "broken" it says that it failed; other unknown names do not exist.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            query = dns.message.from_wire(data)
            [question] = query.question
            name, kind = question.name.to_text(omit_final_dot=True).lower(), question.rdtype
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.RA
            for alias in records.get((name, "CNAME"), []):
                answer.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "CNAME", alias))
                name = alias.rstrip(".")
            if texts := records.get((name, kind.name)):
                answer.answer.append(dns.rrset.from_text_list(name + ".", 60, "IN", kind, texts))
            elif name.startswith("broken"):
                answer.set_rcode(dns.rcode.SERVFAIL)
            elif not any(name == known for known, _ in records):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            sock.sendto(answer.to_wire(), self.client_address)

    with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            resolver = dns.resolver.Resolver(configure=False)
            resolver.nameservers = ["127.0.0.1"]
            resolver.port = server.server_address[1]
            yield resolver
        finally:
            server.shutdown()
            thread.join()
