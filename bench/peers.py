"""The peers that package registries have: how each is got, built and started.

Each has a folder below bench/peers with its filter, and in a manifest what that needs, pinned. The
kind of the manifest tells which of the recipes below is for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shell import BenchError, run

FOLDER = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Place:
    """Where a peer comes from, where it goes, and what it is made with."""

    source: Path
    target: Path
    python: Path
    log: Path


@dataclass(frozen=True)
class Peer:
    """A peer that can be started by `command`, or the reason why it cannot."""

    command: tuple[str, ...] = ()
    version: str = ""
    reason: str = ""


def with_pip(place: Place) -> tuple[str, ...]:
    """Makes a venv for the peer; one that has what the manifest says is used again."""
    manifest = place.source / "requirements.txt"
    installed = place.target / manifest.name
    if not installed.exists() or installed.read_text() != manifest.read_text():
        run(place.python, "-m", "venv", "--clear", place.target, log=place.log)
        pip = place.target / "bin/pip"
        run(pip, "install", "--no-deps", "-r", manifest, log=place.log)
        shutil.copy(manifest, installed)
    return (str(place.target / "bin/python"), "-I", str(place.source / "filter.py"))


def with_go(place: Place) -> tuple[str, ...]:
    """Builds the peer's filter with Go."""
    program = place.target / "bench-filter"
    options = ("-mod=readonly", "-buildvcs=false", "-o", program)
    run("go", "build", *options, ".", log=place.log, cwd=place.source)
    return (str(program),)


def with_cargo(place: Place) -> tuple[str, ...]:
    """Builds the peer's filter with Cargo."""
    options = ("--release", "--locked", "--target-dir", place.target)
    run("cargo", "build", *options, log=place.log, cwd=place.source)
    return (str(place.target / "release/bench-filter"),)


Recipe = Callable[[Place], tuple[str, ...]]
RECIPES: dict[str, Recipe] = {
    "requirements.txt": with_pip,
    "go.mod": with_go,
    "Cargo.toml": with_cargo,
}


def get(name: str, python: Path, work: Path, log: Path) -> Peer:
    """Gets the peer whose folder is `name`; below `work` is where it is kept."""
    place = Place(FOLDER / name, work / "peers" / name, python, log)
    manifest = next(place.source / each for each in RECIPES if (place.source / each).exists())
    version = next(line for line in manifest.read_text().splitlines() if name in line)
    try:
        return Peer(RECIPES[manifest.name](place), version)
    except BenchError as error:
        return Peer(reason=error.short)
