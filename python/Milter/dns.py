"""DNS for filters, on dnspython, with the names and the data of the older package's module.

Needs the extra: `pip install milterkit[dns]`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection
from typing import Any

try:
    import dns.exception
    import dns.name
    import dns.rdatatype
    import dns.resolver
except ImportError as error:
    raise ImportError("Milter.dns needs dnspython: pip install 'milterkit[dns]'") from error

__all__ = ["MAX_CACHE", "MAX_CNAME", "DNSError", "DNSLookup", "Session"]

#: How many CNAME records are followed from one name.
MAX_CNAME = 10
#: How many answers a session remembers before it forgets them all.
MAX_CACHE = 1000
#: Longer texts are no names: one has 255 octets, and each takes up to four characters.
_MAX_TEXT = 1020


class DNSError(Exception):
    """There is no answer: a timeout, a server's failure, an unknown type, too many CNAME records.

    A name or a type that does not exist is no error. Most causes pass: answer with TEMPFAIL.
    """


def _text(name: dns.name.Name) -> str:
    """A name in ASCII, without the last dot; other octets, and dots in labels, as escapes."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True)


#: Type -> what stands for a record's data; for all others the text of master files does.
_DATA: dict[str, Callable[[Any], Any]] = {
    "A": lambda data: data.address,
    "AAAA": lambda data: socket.inet_pton(socket.AF_INET6, data.address),
    "CNAME": lambda data: _text(data.target),
    "MX": lambda data: (data.preference, _text(data.exchange)),
    "NS": lambda data: _text(data.target),
    "PTR": lambda data: _text(data.target),
    "SPF": lambda data: list(data.strings),
    "SRV": lambda data: (data.priority, data.weight, data.port, _text(data.target)),
    "TXT": lambda data: list(data.strings),
}


def _parsed(name: str | bytes) -> str:
    """A name as `_text` has it, in lower case; "" for what is none."""
    if len(name) > _MAX_TEXT:
        return ""
    try:
        wire = name if isinstance(name, bytes) else name.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        wire = None  # an international name
    try:
        return _text(dns.name.from_text(name if wire is None else wire)).lower()
    except (dns.exception.DNSException, UnicodeError):
        return ""


def DNSLookup(
    name: str | bytes,
    qtype: str,
    resolver: dns.resolver.Resolver | None = None,
    lifetime: float = 5.0,
) -> list[tuple[tuple[str, str], Any]]:
    """Ask for the records of a name and return [((owner, type), data), ...].

    They are the CNAME records that the answer begins with, and those that were asked for. Nothing
    for what does not exist and for a text that is no name. The data of A is the address as text,
    of AAAA its 16 bytes; of CNAME, NS and PTR a name; of MX (preference, name); of SRV (priority,
    weight, port, name); of TXT and SPF a list of bytes; of others the text of master files.

    resolver: None for dnspython's default one, of /etc/resolv.conf. lifetime: seconds at most.
    Raises DNSError.
    """
    host = _parsed(name)
    if not host:
        return []
    try:
        answer = (resolver or dns.resolver.get_default_resolver()).resolve(
            dns.name.from_text(host),
            dns.rdatatype.from_text(qtype),
            raise_on_no_answer=False,
            search=False,
            lifetime=lifetime,
        )
    except dns.resolver.NXDOMAIN:
        return []
    except (dns.exception.DNSException, ValueError) as error:
        raise DNSError(f"{qtype} of {host}: {error}") from error
    found: list[tuple[tuple[str, str], Any]] = []
    for rrset in filter(None, (*answer.chaining_result.cnames, answer.rrset)):
        rdtype = dns.rdatatype.to_text(rrset.rdtype)
        data = _DATA.get(rdtype, lambda each: each.to_text())
        found += [((_text(rrset.name).lower(), rdtype), data(each)) for each in rrset]
    return found


class Session:
    """Answers that are remembered for as long as the object lives, such as one SMTP connection.

    resolver: what is asked, None for dnspython's default one, of /etc/resolv.conf. lifetime:
    seconds for one call, however many look-ups it needs. To ask servers of your own:

        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["192.0.2.53"]
        session = Milter.dns.Session(resolver, lifetime=3)

    May be used from several threads.
    """

    def __init__(
        self, resolver: dns.resolver.Resolver | None = None, lifetime: float = 5.0
    ) -> None:
        self.resolver = resolver
        self.lifetime = lifetime
        #: (name in lower case, type) -> data, also nothing
        self.cache: dict[tuple[str, str], list[Any]] = {}

    def dns(
        self, name: str | bytes, qtype: str, cnames: Collection[str] | None = None
    ) -> list[Any]:
        """Return the data of a name's records of a type, as `DNSLookup` has them.

        CNAME records are followed, unless they are what is asked for. Nothing for what does not
        exist and for a text that is no name. cnames: names that led to this one. Raises DNSError,
        also for CNAME records that lead back or are more than MAX_CNAME.
        """
        deadline = time.monotonic() + self.lifetime
        asked, qtype = _parsed(name), qtype.upper()
        at, seen = asked, {*(cnames or ())}
        while at:
            known = self.cache
            if (at, qtype) not in known and (at, "CNAME") not in known:
                known = self._look_up(at, qtype, max(0.0, deadline - time.monotonic()))
            found, alias = (known.get((at, each)) for each in (qtype, "CNAME"))
            if found or not alias or qtype == "CNAME":
                return list(found or ())
            seen.add(at)
            at = alias[0].lower()
            if at in seen:
                raise DNSError(f"{qtype} of {asked}: CNAME loop")
            if len(seen) > MAX_CNAME:
                raise DNSError(f"{qtype} of {asked}: more than {MAX_CNAME} CNAME records")
        return []

    def _look_up(self, name: str, qtype: str, lifetime: float) -> dict[tuple[str, str], list[Any]]:
        """Asks, remembers the answer, and returns it."""
        answer: dict[tuple[str, str], list[Any]] = {(name, qtype): []}
        for key, data in DNSLookup(name, qtype, self.resolver, lifetime):
            answer.setdefault(key, []).append(data)
        if len(self.cache) >= MAX_CACHE:
            self.cache.clear()
        self.cache.update(answer)
        return answer

    def dns_txt(self, domainname: str | bytes | None, enc: str = "ascii") -> list[str]:
        """Return the texts of a name's TXT records, each one's strings put together.

        enc: the encoding; bytes that it does not have become surrogate escapes. Nothing for an
        empty name. Raises DNSError as `dns` does, and LookupError for an unknown encoding.
        """
        found = self.dns(domainname, "TXT") if domainname else []
        return [b"".join(strings).decode(enc, "surrogateescape") for strings in found]
