# SPDX-License-Identifier: Apache-2.0
"""Whether the links of a built site lead anywhere: `python -m tools.links DIRECTORY`, as `make docs` does.

A link within the site must lead to a file, and to an anchor in it if it names one. With `--external`, other
sites are asked too: a page that is gone (404, 410) is a broken link; a site that is out of reach from here
is only named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

GONE = {404, 410}


class Page(HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.anchors.add(value)
            elif value and name in ("href", "src"):
                self.links.add(value)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.links", description="Check a built site's links.")
    parser.add_argument("site", type=Path)
    parser.add_argument("--external", action="store_true", help="ask other sites, too")
    options = parser.parse_args(arguments)
    pages = {path.resolve(): Page(path) for path in options.site.rglob("*.html")}
    if not pages:
        parser.error(f"no pages in {options.site}")
    broken = list(_within(pages))
    others = {
        link for page in pages.values() for link in page.links if urlsplit(link).scheme.startswith("http")
    }
    if options.external:
        broken += _beyond(others)
    for line in broken:
        print(line, file=sys.stderr)
    links = sum(len(page.links) for page in pages.values())
    print(f"{len(pages)} pages, {links} links, {len(broken)} broken; {len(others)} addresses of other sites")
    return 1 if broken else 0


def _within(pages: dict[Path, Page]) -> Iterator[str]:
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{path.name}: {link} leads to no file"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.name}: {link} leads to no anchor"


def _beyond(links: set[str]) -> Iterator[str]:
    with httpx.Client(follow_redirects=True, timeout=20.0) as client:
        for link in sorted(links):
            try:
                status = client.get(link).status_code
            except httpx.HTTPError as error:
                print(f"{link} not reached from here ({type(error).__name__})")
                continue
            if status in GONE:
                yield f"{link} is gone (HTTP {status})"


if __name__ == "__main__":
    sys.exit(main())
