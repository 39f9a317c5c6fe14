"""Checks the links of the Markdown pages as a code host follows them: each relative one leads to a
file or folder of the repository, its anchor to a heading there; those to other sites have a right
form. Needs no network. Prints what is wrong; exit status 1 if anything is."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import chain, count
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.front_matter import front_matter_plugin

ROOT = Path(__file__).parents[2]
READER = MarkdownIt("gfm-like", {"linkify": False}).use(front_matter_plugin)


def inline(page: Path) -> Iterator[tuple[Token, Token | None]]:
    """The pieces of running text of a page, each with what is opened in front of it."""
    before = None
    for token in READER.parse(page.read_text()):
        if token.type == "inline":
            yield token, before
        before = token


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and MyST make them."""
    found: set[str] = set()
    for token, before in inline(page):
        if before and before.type == "heading_open":
            text = "".join(each.content for each in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            same = (f"{slug}-{number}" for number in count(1))
            found.add(next(each for each in chain([slug], same) if each not in found))
    return found


def wrong(page: Path, link: str) -> str | None:
    """What is wrong with a link of a page."""
    url = urlsplit(link)
    if url.scheme or url.netloc:
        fine = url.scheme in ("http", "https") and "." in url.netloc and " " not in link
        return None if fine else "is no address of a site"
    target = (page.parent / unquote(url.path)).resolve() if url.path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return "leads to nothing"
    if url.fragment and (target.suffix != ".md" or url.fragment not in anchors(target)):
        return f"has an anchor that {target.relative_to(ROOT)} has not"
    return None


def main() -> int:
    """Checks all pages; returns the exit status."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    links = bad = 0
    for page in (ROOT / name for name in sorted(listed)):
        for token, _ in inline(page):
            for each in token.children or ():
                link = each.attrs.get("href") or each.attrs.get("src")
                if link is None:
                    continue
                links += 1
                if problem := wrong(page, str(link)):
                    bad += 1
                    line = token.map[0] + 1 if token.map else 1
                    print(f"{page.relative_to(ROOT)}:{line}: {link} {problem}")
    print(f"{links} links in {len(listed)} pages, {bad} wrong")
    return 1 if bad or not links else 0


sys.exit(main())
