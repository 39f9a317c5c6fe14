"""Runs when the interpreter of a program starts: dnspython asks the DNS server of the test."""

import os

if port := os.environ.get("MILTERKIT_TEST_DNS"):
    import dns.resolver

    resolver = dns.resolver.default_resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = int(port)
