"""The names of both modules, and what objects do without any MTA: decorators, fakes, utilities."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .differences import expected

MESON = Path(__file__).parents[2] / "meson.build"

Evaluate = Callable[..., list[tuple[Any, ...]]]

CONSTANTS = {
    "SUCCESS": 0, "FAILURE": -1, "VERSION": 0x1000001,
    "ADDHDRS": 0x01, "CHGBODY": 0x02, "MODBODY": 0x02, "ADDRCPT": 0x04, "DELRCPT": 0x08,
    "CHGHDRS": 0x10, "QUARANTINE": 0x20, "CHGFROM": 0x40, "ADDRCPT_PAR": 0x80,
    "SETSYMLIST": 0x100, "V1_ACTS": 0x0F, "V2_ACTS": 0x3F, "CURR_ACTS": 0x1FF,
    "M_CONNECT": 0, "M_HELO": 1, "M_ENVFROM": 2, "M_ENVRCPT": 3, "M_DATA": 4, "M_EOM": 5,
    "M_EOH": 6,
    "P_RCPT_REJ": 0x800, "P_NR_CONN": 0x1000, "P_NR_HELO": 0x2000, "P_NR_MAIL": 0x4000,
    "P_NR_RCPT": 0x8000, "P_NR_DATA": 0x10000, "P_NR_UNKN": 0x20000, "P_NR_EOH": 0x40000,
    "P_NR_BODY": 0x80000, "P_NR_HDR": 0x80, "P_NOCONNECT": 0x1, "P_NOHELO": 0x2, "P_NOMAIL": 0x4,
    "P_NORCPT": 0x8, "P_NODATA": 0x200, "P_NOUNKNOWN": 0x100, "P_NOEOH": 0x40, "P_NOBODY": 0x10,
    "P_NOHDRS": 0x20, "P_HDR_LEADSPC": 0x100000, "P_SKIP": 0x400,
    "CONTINUE": 0, "REJECT": 1, "DISCARD": 2, "ACCEPT": 3, "TEMPFAIL": 4, "SKIP": 8, "NOREPLY": 7,
    "ALL_OPTS": 10,
}  # fmt: skip

FUNCTIONS = [
    "set_flags", "set_exception_policy", "register", "setconn", "settimeout", "setbacklog",
    "setdbg", "opensocket", "main", "stop", "getdiag", "getversion",
    *(f"set_{step}_callback" for step in (
        "connect", "helo", "envfrom", "envrcpt", "header", "eoh", "body", "eom", "abort", "close")),
]  # fmt: skip


@pytest.mark.parametrize("module", ["milter", "Milter"])
def test_constants(evaluate: Evaluate, module: str) -> None:
    ((values,),) = evaluate(
        f"record({{name: getattr({module}, name) for name in {list(CONSTANTS)!r}}})"
    )
    assert values == CONSTANTS


def test_names(evaluate: Evaluate) -> None:
    results = evaluate(
        f"""
        record([name for name in {FUNCTIONS!r} if not callable(getattr(milter, name))])
        record([name for name in {FUNCTIONS!r}
                if getattr(milter, name) is not getattr(Milter, name)])
        record(Milter.milter is milter, Milter.error is milter.error,
               issubclass(milter.error, Exception), milter.error.__module__)
        record(type(Milter.__version__).__name__, Milter.factory is Milter.Milter)
        record(issubclass(Milter.DisabledAction, RuntimeError),
               issubclass(Milter.Milter, Milter.Base))
        """
    )
    assert results == [([],), ([],), (True, True, True, "milter"), ("str", True), (True, True)]


def test_version(evaluate: Evaluate, package: str) -> None:
    ((version,),) = evaluate("record(Milter.__version__)")
    built = re.search(r"^    version: '(.+)'", MESON.read_text(), re.MULTILINE)
    assert built
    named = "that of meson.build" if version == built[1] else version
    assert named == expected(package, "Milter.__version__")


def test_star_import(evaluate: Evaluate, package: str) -> None:
    names = ["Base", "Milter", "runmilter", "noreply", "nocallback", "decode", "symlist",
             "CONTINUE", "uniqueID", "param2dict", "set_flags", "DisabledAction",
             "CHGBODY", "error"]  # fmt: skip
    ((result,),) = evaluate(
        f"""
        names = {{}}
        result = attempt(exec, "from Milter import *", names)[0]
        missing = [name for name in {names!r} if name not in names]
        record(missing if result == "ok" else result)
        """
    )
    assert result == expected(package, "from Milter import *")


def test_tables(evaluate: Evaluate) -> None:
    assert evaluate("record(Milter.OPTIONAL_CALLBACKS)\nrecord(Milter.MACRO_CALLBACKS)") == [
        (
            {
                "connect": (0x1000, 0x1),
                "hello": (0x2000, 0x2),
                "envfrom": (0x4000, 0x4),
                "envrcpt": (0x8000, 0x8),
                "data": (0x10000, 0x200),
                "unknown": (0x20000, 0x100),
                "eoh": (0x40000, 0x40),
                "body": (0x80000, 0x10),
                "header": (0x80, 0x20),
            },
        ),
        (
            {
                "connect": 0,
                "hello": 1,
                "envfrom": 2,
                "envrcpt": 3,
                "data": 4,
                "eom": 5,
                "eoh": 6,
            },
        ),
    ]


def test_utilities(evaluate: Evaluate) -> None:
    args = ["size=5", "BODY=8BITMIME", "X", "y=a=b", "a=", "size=6"]
    results = evaluate(
        f"""
        first = Milter.uniqueID()
        record(Milter.uniqueID() - first, Milter.uniqueID() - first)
        record(Milter.param2dict({args!r}), Milter.param2dict([]))
        record(Milter.dictfromlist({args!r} + ["=x"]))
        record(Milter.envcallback(lambda *a, **k: [a, k], ["<x>", "y=1", "W", "z=2"]))
        record(Milter.decode_mask(5, ("ADDHDRS", "CHGBODY", "ADDRCPT")),
               Milter.decode_mask(0, ("ADDHDRS",)))
        """
    )
    assert results == [
        (1, 2),
        ({"SIZE": "6", "BODY": "8BITMIME", "X": None, "Y": "a=b", "A": ""}, {}),
        ({"SIZE": "6", "BODY": "8BITMIME", "Y": "a=b", "A": ""},),
        ([("<x>", "W"), {"Y": "1", "Z": "2"}],),
        (["ADDHDRS", "ADDRCPT"], []),
    ]


def test_decode_mask_of_bits_without_a_name(evaluate: Evaluate, package: str) -> None:
    results = evaluate('record(Milter.decode_mask(0x301, ("ADDHDRS", "CHGBODY")))')
    assert results == [(expected(package, "decode_mask of bits without a name"),)]


def test_unique_ids_over_threads(evaluate: Evaluate) -> None:
    ((count,),) = evaluate(
        """
        import threading
        found = []
        def take(): found.extend([Milter.uniqueID() for _ in range(1000)])
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        record(len(set(found)))
        """
    )
    assert count == 8000


def test_callbacks_of_base(evaluate: Evaluate) -> None:
    results = evaluate(
        """
        m = Milter.Base()
        record(m.connect("h", 2, ("1.2.3.4", 5)), m.hello("h"), m.envfrom("a", "b"),
               m.envrcpt("a", "b"), m.data(), m.header("a", "b"), m.eoh(), m.body(b"x"),
               m.unknown("x"), m.eom(), m.abort(), m.close())
        record(m.envfrom_bytes(b"a", b"b"), m.envrcpt_bytes(b"a"), m.header_bytes("a", b"b"))
        record(m.log("a", 1))
        """
    )
    assert results == [(0,) * 12, (0, 0, 0), (None,)]


def test_protocol_masks(evaluate: Evaluate) -> None:
    """What a class does not want of what an MTA offers."""
    results = evaluate(
        """
        class Plain(Milter.Base): pass
        class Some(Milter.Base):
            @Milter.noreply
            def envfrom(self, f, *params): return 0
            @Milter.nocallback
            def header(self, field, value): return 0
            def body(self, chunk): return 0
        @Milter.rejected_recipients
        @Milter.header_leading_space
        class Both(Milter.Base): pass
        for cls in (Plain, Some, Both, Milter.Milter):
            record(cls.__name__, cls.protocol_mask())
        """
    )
    assert [(name, hex(mask)) for name, mask in results] == [
        ("Plain", hex(0x1FF880)),
        ("Some", hex((0x1FF880 | 0x14) & ~0x4000)),
        ("Both", hex(0x1FF880 & ~0x100800)),
        ("Milter", hex(0x1B086F)),
    ]


def test_the_mask_of_a_class_is_its_own(evaluate: Evaluate, package: str) -> None:
    ((mask,),) = evaluate(
        """
        Milter.Base.protocol_mask()
        class Late(Milter.Base):
            def body(self, chunk): return 0
        record(Late.protocol_mask())
        """
    )
    assert mask == expected(package, "protocol_mask of a subclass")


@pytest.mark.parametrize(
    ("decorator", "name"),
    [
        (decorator, name)
        for decorator in ("noreply", "nocallback")
        for name in ("eom", "abort", "close", "negotiate", "log", "other")
    ]
    + [("symlist('i')", name) for name in ("header", "body", "unknown", "abort", "close", "log")],
)
def test_decorators_on_the_wrong_method(evaluate: Evaluate, decorator: str, name: str) -> None:
    ((kind, text),) = evaluate(
        f"""
        def {name}(self, *args): return 0
        record(*attempt(lambda: Milter.{decorator}({name})))
        """
    )
    assert kind == "ValueError"
    assert name in text


@pytest.mark.parametrize("decorator", ["noreply", "nocallback"])
def test_decorators_on_bytes_methods(evaluate: Evaluate, package: str, decorator: str) -> None:
    ((kind,),) = evaluate(
        f"""
        def header_bytes(self, field, value): return 0
        record(attempt(lambda: Milter.{decorator}(header_bytes) and None)[0])
        """
    )
    assert kind == expected(package, "@noreply on header_bytes")


@pytest.mark.parametrize("strategy", ["utf-8", "latin-1", "backslashreplace", ""])
def test_what_decode_takes(evaluate: Evaluate, package: str, strategy: str) -> None:
    ((kind,),) = evaluate(
        f"""
        def header(self, field, value): return 0
        record(attempt(lambda: Milter.decode({strategy!r})(header) and None)[0])
        """
    )
    assert kind == expected(package, "@decode with an encoding")


@pytest.mark.parametrize("count", [5, 6, 50])
def test_how_many_symbols(evaluate: Evaluate, package: str, count: int) -> None:
    ((kind,),) = evaluate(
        f"""
        def eom(self): return 0
        record(attempt(lambda: Milter.symlist(*["i"] * {count})(eom) and None)[0])
        """
    )
    assert kind == ("ok" if count == 5 else expected(package, "more than 5 macros"))


def test_decorators_keep_the_function(evaluate: Evaluate) -> None:
    results = evaluate(
        """
        def header(self, field, value):
            "Documented."
            return Milter.CONTINUE
        for decorator in (Milter.noreply, Milter.nocallback, Milter.decode("bytes")):
            function = decorator(header)
            record(function.__name__, function.__doc__)
        record(Milter.noreply(header).milter_protocol, Milter.nocallback(header).milter_protocol)
        """
    )
    assert results == [("header", "Documented.")] * 3 + [(0x80, 0x20)]


@pytest.mark.parametrize(
    "order",
    ["noreply decode symlist", "noreply symlist decode", "decode noreply symlist",
     "decode symlist noreply", "symlist noreply decode", "symlist decode noreply"],
)  # fmt: skip
def test_decorators_in_any_order(evaluate: Evaluate, order: str) -> None:
    ((mask, argument, result),) = evaluate(
        f"""
        def envfrom(self, f, *params):
            self.argument = f
            return Milter.CONTINUE
        use = {{"noreply": Milter.noreply, "decode": Milter.decode("bytes"),
                "symlist": Milter.symlist("i")}}
        for name in {order.split()!r}:
            envfrom = use[name](envfrom)
        Filter = type("Filter", (Milter.Base,), {{"envfrom": envfrom}})
        m = Filter()
        m._protocol = Milter.P_NR_MAIL
        result = m.envfrom_bytes(b"a")
        record(Filter.protocol_mask(), m.argument, result)
        """
    )
    assert (hex(mask), argument, result) == (hex((0x1FF880 | 4) & ~0x4000), b"a", 7)


def test_noreply_without_an_mta(evaluate: Evaluate) -> None:
    """A program's own tests set `_protocol` and call the methods."""
    results = evaluate(
        """
        class Filter(Milter.Base):
            result = Milter.CONTINUE
            @Milter.noreply
            def hello(self, name): return self.result
        m = Filter()
        m._protocol = 0
        record(m.hello("x"))
        m.result = Milter.REJECT
        record(m.hello("x"))
        m._protocol = Milter.P_NR_HELO
        record(attempt(m.hello, "x"))
        m.result = Milter.CONTINUE
        record(m.hello("x"))
        """
    )
    assert results == [
        (0,),
        (1,),
        (("RuntimeError", "hello return code must be CONTINUE with @noreply"),),
        (7,),
    ]


FAKE = """
class Fake:
    def __getattr__(self, name):
        def call(*args):
            record(name, *args)
            return "result of " + name
        return call
"""


def test_actions_on_a_fake_context(evaluate: Evaluate) -> None:
    results = evaluate(
        FAKE
        + """
m = Milter.Base()
m._ctx = Fake()
m._actions = Milter.CURR_ACTS
m._protocol = 0
calls = [
    lambda: m.getsymval("j"),
    lambda: m.setreply("550", "5.7.1", "text"),
    lambda: m.setreply("550", "5.7.1", "one", "two"),
    lambda: m.setreply("550", msg="text"),
    lambda: m.addheader("X", "v"),
    lambda: m.addheader("X", "v", 0),
    lambda: m.chgheader("X", 1, "v"),
    lambda: m.addrcpt("<a>"),
    lambda: m.addrcpt("<a>", "P"),
    lambda: m.delrcpt("<a>"),
    lambda: m.replacebody(b"x"),
    lambda: m.chgfrom("<a>"),
    lambda: m.chgfrom("<a>", "P"),
    lambda: m.quarantine("why"),
    lambda: m.progress(),
]
for call in calls:
    record("=", call())
"""
    )
    assert [what for what in results if what[0] != "="] == [
        ("getsymval", "j"),
        ("setreply", "550", "5.7.1", "text"),
        ("setreply", "550", "5.7.1", "one", "two"),
        ("setreply", "550", None, "text"),
        ("addheader", "X", "v", -1),
        ("addheader", "X", "v", 0),
        ("chgheader", "X", 1, "v"),
        ("addrcpt", "<a>", None),
        ("addrcpt", "<a>", "P"),
        ("delrcpt", "<a>"),
        ("replacebody", b"x"),
        ("chgfrom", "<a>", None),
        ("chgfrom", "<a>", "P"),
        ("quarantine", "why"),
        ("progress",),
    ]
    assert [what[1] for what in results if what[0] == "="] == [
        "result of " + what[0] for what in results if what[0] != "="
    ]


def test_disabled_actions_on_a_fake_context(evaluate: Evaluate) -> None:
    results = evaluate(
        FAKE
        + """
m = Milter.Base()
m._ctx = Fake()
m._actions = 0
for call, args in (("addheader", ("X", "v")), ("chgheader", ("X", 1, "v")), ("addrcpt", ("a",)),
                   ("delrcpt", ("a",)), ("replacebody", (b"x",)), ("chgfrom", ("a",)),
                   ("quarantine", ("why",)), ("setsymlist", (1, "j"))):
    record("=", *attempt(getattr(m, call), *args))
m._actions = Milter.ADDRCPT
record("=", *attempt(m.addrcpt, "a", "P"))
m._actions = Milter.ADDRCPT_PAR
record("=", *attempt(m.addrcpt, "a"))
"""
    )
    assert results == [
        ("=", "DisabledAction", flag)
        for flag in (
            "ADDHDRS", "CHGHDRS", "ADDRCPT", "DELRCPT", "MODBODY", "CHGFROM", "QUARANTINE",
            "SETSYMLIST", "ADDRCPT_PAR", "ADDRCPT",
        )
    ]  # fmt: skip


def test_setctx(evaluate: Evaluate) -> None:
    results = evaluate(
        FAKE
        + """
m = Milter.Base()
ctx = Fake()
m._setctx(ctx)
record(m._ctx is ctx, m._actions, m._protocol)
"""
    )
    assert results[-1] == (True, 0x1FF, 0)
    assert results[0][0] == "setpriv"


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        ([0x1FF, 0x1FFFFF, 0, 0], [0x1FF, 0x6769, 0, 0]),
        ([0x1F, 0x3F, 0, 0], [0x1F, 0x29, 0, 0]),
        ([0x3F, 0xFF0FF, 0, 0], [0x3F, 0x6069, 0, 0]),
    ],
)
def test_negotiation_without_an_mta(
    evaluate: Evaluate, offered: list[int], asked: list[int]
) -> None:
    ((result, options, actions, protocol),) = evaluate(
        f"""
        class Filter(Milter.Base):
            @Milter.noreply
            def hello(self, name): return Milter.CONTINUE
            @Milter.noreply
            def envfrom(self, f, *params): return Milter.CONTINUE
            def body(self, chunk): return Milter.CONTINUE
        m = Filter()
        options = {offered!r}
        record(m.negotiate(options), options, m._actions, m._protocol)
        """
    )
    assert (result, options, actions, protocol) == (0, asked, asked[0], asked[1])


LOGGED = {
    "connect": ("('h', 2, ('1.2.3.4', 5))", "connect from h at ('1.2.3.4', 5)"),
    "hello": ("('name',)", "hello from name"),
    "envfrom": ("('<a>', 'P')", "mail from\n<a>\n('P',)"),
    "envrcpt": ("('<a>',)", "rcpt to\n<a>\n()"),
    "header": ("('Subject', 'text')", "Subject: text"),
    "eoh": ("()", "eoh"),
    "eom": ("()", "eom"),
    "abort": ("()", "abort"),
    "close": ("()", "close"),
    "log": ("('a', 5)", "a\n5"),
}


@pytest.mark.parametrize("method", LOGGED)
def test_the_class_that_logs(evaluate: Evaluate, method: str) -> None:
    args, text = LOGGED[method]
    ((result, printed),) = evaluate(
        f"""
        import contextlib, io
        m = Milter.Milter()
        m._protocol = 0
        with contextlib.redirect_stdout(io.StringIO()) as output:
            result = m.{method}(*{args})
        record(result, output.getvalue())
        """
    )
    assert result == (None if method == "log" else 0)
    assert printed == f"Milter:\n{text}\n\n"


def test_its_log_can_be_overridden(evaluate: Evaluate) -> None:
    results = evaluate(
        """
        class Filter(Milter.Milter):
            def log(self, *msg): record("log", *msg)
        m = Filter()
        m._protocol = 0xFF080
        record(m.header("Subject", "text"), m.eom())
        """
    )
    assert results == [("log", "Subject: text"), ("log", "eom"), (7, 0)]


def test_a_monkeypatched_runmilter(evaluate: Evaluate) -> None:
    results = evaluate(
        """
        def fake(*args, **keywords): record(args, keywords, Milter.factory.__name__)
        Milter.runmilter = fake
        class Filter(Milter.Base): pass
        Milter.factory = Filter
        Milter.runmilter("name", "inet:0@127.0.0.1", timeout=5)
        """
    )
    assert results == [(("name", "inet:0@127.0.0.1"), {"timeout": 5}, "Filter")]
