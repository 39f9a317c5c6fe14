"""A DNS server on loopback, UDP and TCP, that answers from a few records, or in bad ways."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset

#: What makes bytes of a query; None: no answer. The bool tells whether it came by TCP.
Answer = Callable[[dns.message.Message, bool], bytes | None]

HOST = "127.0.0.1"


def respond(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """An answer without records."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    response.set_rcode(rcode)
    return response


def failing(rcode: dns.rcode.Rcode) -> Answer:
    """Answers with an error."""
    return lambda query, _tcp: respond(query, rcode).to_wire()


def silent(_query: dns.message.Message, _tcp: bool) -> None:
    """Answers nothing."""


def garbage(query: dns.message.Message, _tcp: bool) -> bytes:
    """A header that fits, and no DNS behind it."""
    return respond(query, dns.rcode.NOERROR).to_wire()[:12] + b"\xc0\x0c\xff" * 40


def cut(query: dns.message.Message, _tcp: bool) -> bytes:
    """Half a header."""
    return query.to_wire()[:6]


class DnsServer:
    """Serves while the context lasts. records: lines `name type data`. answers: name -> what
    answers in place of the records."""

    def __init__(self, records: str = "", answers: dict[str, Answer] | None = None) -> None:
        self.answers = answers or {}
        self.records: dict[dns.name.Name, dict[str, list[str]]] = {}
        for line in filter(None, map(str.strip, records.splitlines())):
            self.add(*line.split(None, 2))
        self.asked: Counter[tuple[str, str]] = Counter()
        self.by_tcp = 0

    def add(self, name: str, rdtype: str, data: str) -> None:
        """One more record."""
        of_name = self.records.setdefault(dns.name.from_text(name), {})
        of_name.setdefault(rdtype, []).append(data)

    def reply(self, wire: bytes, tcp: bool) -> bytes | None:
        """The bytes that answer some bytes."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        asked_type = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, asked_type] += 1
        self.by_tcp += tcp
        if name in self.answers:
            return self.answers[name](query, tcp)
        of_name = self.records.get(question.name)
        response = respond(query, dns.rcode.NXDOMAIN if of_name is None else dns.rcode.NOERROR)
        for rdtype in (asked_type, "CNAME"):
            if of_name and rdtype in of_name:
                rrset = dns.rrset.from_text_list(question.name, 60, "IN", rdtype, of_name[rdtype])
                response.answer.append(rrset)
                break
        wire = response.to_wire()
        if tcp or len(wire) <= 512:
            return wire
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire()

    def resolver(self, lifetime: float = 5) -> dns.resolver.Resolver:
        """One that asks this server and no other."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [HOST]
        resolver.port = self.port
        resolver.timeout = resolver.lifetime = lifetime
        return resolver

    def __enter__(self) -> DnsServer:
        while True:
            udp = socketserver.ThreadingUDPServer((HOST, 0), self._handler(tcp=False))
            self.port = int(udp.server_address[1])
            try:
                tcp = socketserver.ThreadingTCPServer((HOST, self.port), self._handler(tcp=True))
                break
            except OSError:  # others have the port for TCP
                udp.server_close()
        self._servers = (udp, tcp)
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.01,)) for server in self._servers
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def _handler(self, *, tcp: bool) -> type[socketserver.BaseRequestHandler]:
        reply = self.reply

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire, sock = self.request
                answer = reply(wire, False)
                if answer is not None:
                    sock.sendto(answer, self.client_address)

        class Stream(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                (length,) = struct.unpack(">H", self.rfile.read(2))
                answer = reply(self.rfile.read(length), True)
                if answer is not None:
                    self.wfile.write(struct.pack(">H", len(answer)) + answer)

        return Stream if tcp else Datagram
