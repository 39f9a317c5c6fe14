"""The C headers as hawkmoth reads them: it knows comments in front of what they are about, in the
form /** */. The headers themselves have plain comments, also at the ends of lines."""

import re
from pathlib import Path

_GUARD = re.compile(r"\A(/\*.*?\*/\n)#ifndef (\w+)\n#define \2.*?\n(.*?)(?=^/\* )", re.M | re.S)
_GROUP = re.compile(r"^/\* (?:(?!\*/).)*? \*/\n(?=#define \w+ [^\n]*\n#define \w+ )", re.M | re.S)
_RULER = re.compile(r"^/\* -{3,} (.+) \*/$", re.M)
_AT_END = re.compile(r"^( +)(\S[^\n]*?) +(/\* (?:(?!\*/).)* \*/)$", re.M | re.S)
_COMMENT = re.compile(r"^( *)/\* ((?:(?!\*/).)*?) ?\*/$", re.M | re.S)


def doc_form(headers: Path, folder: Path) -> Path:
    """Writes the headers to a folder in that form; returns the folder."""
    for header in headers.rglob("*.h"):
        # A guard is no name to look up; groups of constants are shown as they are.
        text = _GUARD.sub(r"#if 1\n\3\1\n", header.read_text())
        text = _GROUP.sub("", text)
        text = _RULER.sub(_heading, text)
        text = _AT_END.sub(r"\1\3\n\1\2", text)
        text = _COMMENT.sub(_documentation, text)
        copy = folder / header.relative_to(headers)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    return folder


def _heading(ruler: re.Match[str]) -> str:
    title = ruler[1][0].upper() + ruler[1][1:]
    return f"/* {title}\n * {'-' * len(title)} */"


def _documentation(comment: re.Match[str]) -> str:
    indent, text = comment.groups()
    lines = (re.sub(r"^ *(\* ?)?", "", line) for line in text.split("\n"))
    return "\n".join([f"{indent}/**", *(f"{indent} * {line}" for line in lines), f"{indent} */"])


def linked(_app: object, lines: list[str], *_: object) -> None:
    """Makes links of the names of the C API in a comment, and code of what is in backticks."""
    text = re.sub(r"`([^`]+)`", r"``\1``", "\n".join(lines))
    for role, name in (("func", r"mkit_\w+|smfi_\w+"), ("enumerator", r"MKIT_\w+")):
        text = re.sub(rf"(?<![\w`.:])({name})(?![\w*`])", rf":c:{role}:`\1`", text)
    lines[:] = text.split("\n")
