"""The library's file and its headers beside Debian's: symbols, soname, constants, types."""

import re
import subprocess
import sys
from pathlib import Path

from native import HERE, OURS, ROOT, SONAME, compile_c

THEIR_HEADERS = "/usr/include"
OUR_HEADERS = ROOT / "include"
#: Constants of libmilter's headers have names like these.
CONSTANT = re.compile(r"^#define ((?:SMFI|MI_|MILTER_)\w*) ", re.MULTILINE)


def symbols(library: Path) -> dict[str, str]:
    """What a library defines for programs: names and kinds."""
    lines = subprocess.check_output(("nm", "-D", "--defined-only", library), text=True)
    return {name: kind for _, kind, name in (line.split() for line in lines.splitlines())}


def dynamic(library: Path, tag: str) -> list[str]:
    """Entries of a library's dynamic section."""
    lines = subprocess.check_output(("readelf", "-d", "-W", library), text=True)
    return re.findall(rf"\({tag}\).*\[(.*)\]", lines)


def constants(headers: str | Path, folder: Path) -> dict[str, str]:
    """All constants of mfapi.h and mfdef.h with their values."""
    include = folder / "include.h"
    include.write_text("#include <libmilter/mfapi.h>\n")
    defined = subprocess.check_output(("cc", "-E", "-dM", "-I", headers, include), text=True)
    names = sorted(set(CONSTANT.findall(defined)))
    prints = "".join(f'    printf("{name} %lld\\n", (long long){name});\n' for name in names)
    source = folder / "constants.c"
    source.write_text(
        f"#include <stdio.h>\n#include <libmilter/mfapi.h>\nint main(void)\n{{\n{prints}}}\n"
    )
    program = compile_c(folder / "constants", "-I", headers, source)
    return dict(line.split() for line in subprocess.check_output(program, text=True).splitlines())


def test_every_function_is_there(theirs: Path) -> None:
    """With the same kind. What else Debian's library shows are its own parts, and Sendmail's
    variables; no header declares them."""
    api = {name: kind for name, kind in symbols(theirs).items() if name.startswith("smfi_")}
    assert len(api) == 26
    assert symbols(OURS / SONAME) == api


def test_programs_find_it_under_the_same_name(theirs: Path, tmp_path: Path) -> None:
    assert dynamic(OURS / SONAME, "SONAME") == dynamic(theirs, "SONAME") == [SONAME]
    # The linker itself is named where a library has data of each thread.
    needed = [name for name in dynamic(OURS / SONAME, "NEEDED") if not name.startswith("ld-linux")]
    assert needed == ["libc.so.6"]
    program = compile_c(tmp_path / "control", "-I", OUR_HEADERS, HERE / "control.c", OURS / SONAME)
    assert SONAME in dynamic(program, "NEEDED")


def test_constants_are_equal(tmp_path: Path) -> None:
    their_constants = constants(THEIR_HEADERS, tmp_path)
    assert len(their_constants) > 100
    assert constants(OUR_HEADERS, tmp_path) == their_constants


def test_types_are_equal(tmp_path: Path) -> None:
    """types.c compiles only if everything has the types that it says, and prints the layout."""
    layouts = []
    for headers in (THEIR_HEADERS, OUR_HEADERS):
        program = compile_c(tmp_path / "types", "-I", headers, HERE / "types.c", "-lmilter")
        layouts.append(subprocess.check_output(program, text=True))
    assert layouts[0] == layouts[1]


def test_static_library(tmp_path: Path) -> None:
    """libmilter.a is whole: a program needs nothing else than threads."""
    words = ("-I", OUR_HEADERS, HERE / "control.c", OURS / "libmilter.a", "-pthread")
    program = compile_c(tmp_path / "control", *words)
    assert SONAME not in dynamic(program, "NEEDED")
    (tmp_path / "folder").mkdir()
    lines = subprocess.check_output((program, tmp_path / "folder"), text=True)
    assert "smfi_setbacklog(7) = 0\n" in lines


def test_pkg_config(tmp_path: Path) -> None:
    """The module `milter` finds header and library where they are installed."""
    build = OURS.parents[1]
    meson = Path(sys.executable).with_name("meson")
    command = (meson, "install", "-C", build, "--destdir", tmp_path, "--quiet", "--no-rebuild")
    subprocess.run(command, check=True)
    [module] = tmp_path.rglob("milter.pc")
    query = ("pkg-config", "--define-variable=prefix=" + str(tmp_path / "usr/local"), "--cflags")
    flags = subprocess.check_output((*query, "--libs", module), text=True).split()
    program = compile_c(tmp_path / "control", HERE / "control.c", *flags)
    assert SONAME in dynamic(program, "NEEDED")
    assert sorted(path.name for path in module.parents[1].glob("libmilter.*")) == [
        "libmilter.a",
        "libmilter.so",
        "libmilter.so.1",
        SONAME,
    ]
