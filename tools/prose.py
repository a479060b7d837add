# SPDX-License-Identifier: Apache-2.0
"""Whether documentation and messages are in plain words: `python -m tools.prose`, a part of `make lint`.

A page has 16 words a sentence at most, on average over its paragraphs and lists. No page, no docstring and no
message holds a word of `WORDS`, which names what to write instead.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = sorted(
    path for folder in ("airflow_status_provider", "example_dags") for path in (ROOT / folder).rglob("*.py")
)
#: words a sentence, on average over a page
LONGEST = 16
#: a word that readers stumble over, and what the field writes
WORDS = {
    r"told|tells?|telling": "report, record, say",
    r"mend(s|ed|ing)?": "fix, update",
    r"evidently": "apparently, or nothing",
    r"who(so)?ever": "anyone who, users who",
    r"anew": "again",
    r"begun": "started",
    r"shall": "must, will",
    r"(is|are|was) not to be (had|set)|nothing is to be": "is not available",
    r"by turns": "alternately, in turn",
    r"in vain": "without success",
    r"what may pass": "temporary errors",
}
BANNED = {re.compile(rf"\b({word})\b", re.IGNORECASE): instead for word, instead in WORDS.items()}
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`]*`")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
WORD = re.compile(r"[A-Za-z0-9][\w'’.-]*")


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def prose(text: str) -> str:
    """A page's text without its code; a piece of code in a sentence counts as one word."""
    return LINK.sub(r"\1", CODE_SPAN.sub("code", FENCE.sub(_blank, text)))


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page's paragraphs and lists; headings, tables and pictures have none."""
    block: list[str] = []
    for line in [*prose(text).splitlines(), ""]:
        item = re.match(r"\s*([-*]|\d+\.)\s", line)
        if not line.strip() or line.lstrip().startswith(("#", "|", "<", ">")) or item:
            yield from (piece for piece in SENTENCE.split(" ".join(block)) if WORD.search(piece))
            block = [line[item.end() :]] if item else []
        else:
            block.append(line.strip())


def average(text: str) -> float:
    """Words a sentence."""
    lengths = [len(WORD.findall(sentence)) for sentence in sentences(text)]
    return sum(lengths) / len(lengths) if lengths else 0.0


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Every text of a module with its line: docstrings, and what is logged, raised or shown."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def findings() -> Iterator[str]:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        words = average(text)
        if words > LONGEST:
            yield f"{name}: {words:.1f} words a sentence, {LONGEST} are allowed"
        for number, line in enumerate(prose(text).splitlines(), 1):
            yield from _banned(f"{name}:{number}", line)
    for path in CODE:
        for number, text in strings(path.read_text(encoding="utf-8")):
            yield from _banned(f"{path.relative_to(ROOT)}:{number}", text)


def _banned(where: str, text: str) -> Iterator[str]:
    for pattern, instead in BANNED.items():
        for match in pattern.finditer(text):
            yield f"{where}: {match[0]!r}; write: {instead}"


def main() -> int:
    found = list(findings())
    print(*found, sep="\n")
    print(f"{len(PAGES)} pages and {len(CODE)} modules read, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
