"""What is secret of an account, taken out of all that its service says: the one place for every text.

A service may quote what it was sent, as it is or as its libraries write it. So an answer's body and a frame
pass here before anything reads them:

1. A quick look (some microseconds for a frame, however many the secrets) finds whether the raw bytes may hold
   a piece of a secret.
2. Only if so, the JSON is parsed, each of its strings loses the pieces that it holds (keys as well), and the
   protocols read what is written from that.

A piece is ``PIECE`` characters or more of a secret, in any case of letters: as it is; in the escapes of JSON,
URLs and HTML, several on top of each other too; in hex; in base64, wherever in it the secret begins, as in
``Basic``. A shorter secret is hidden where it stands whole in a text for people: it may be part of any id.
"""

from __future__ import annotations

import base64
import html.entities
import json
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote

from airflow_status_provider.protocols import reading

#: a secret as it may be written, and how many characters of that are no secret
Spelling = tuple[bytes, int]

Text = TypeVar("Text", str, bytes, str | bytes)

#: characters of a secret that do not stand in a text by chance
PIECE = 12
#: a secret that is shorter than this may be any word
SHORTEST = 8
HIDDEN = "***"
#: of the tokens that an account was given
REMEMBERED = 12
#: escapes on top of each other that are looked through
LAYERS = 4
#: a text that may quote more pieces than this is hidden whole, and so is a longer one that quotes one in
#: escapes: a service does not choose how long this takes
MOST = 5000
LONGEST = 2**16
#: bytes that are compared at once, and at every multiple of it: each piece holds such a gram
GRAM = PIECE // 2
_GRAMS = struct.Struct(f"{GRAM}s")
#: bytes after which other threads have their turn
BLOCK = GRAM * 2**13
#: places of one gram that are looked at: a secret may be one letter many times
MOST_ALIKE = 16
#: so many kinds of escapes are replaced one kind after the other, which is faster
KINDS = 64

#: escapes of what a secret may hold; other letters than English ones are in ``_spellings``
_ESCAPE = re.compile(
    rb"%[2-7][0-9a-fA-F]"
    rb"|[\\%]u00[2-7][0-9a-fA-F]"
    rb"|\\x[2-7][0-9a-fA-F]"
    rb"|&#[xX]0{0,4}[2-7][0-9a-fA-F];?"
    rb"|&#0{0,4}1?[0-9]{2};?"
    rb"|&[a-zA-Z]{2,12};"
    rb"|\\[^a-zA-Z0-9]"
)


class Redactor:
    """Takes the secrets of one account out of what its service says."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(dict.fromkeys(secrets))
        self._issued: dict[str, None] = {}
        self._prepare()

    def learn(self, tokens: Iterable[str]) -> None:
        """Hide these as well, and of all that were learned the latest: those before are good no more."""
        new = [token for token in tokens if token not in self._issued and token not in self._secrets]
        if new:
            self._issued = dict.fromkeys([*self._issued, *new][-REMEMBERED:])
            self._prepare()

    def _prepare(self) -> None:
        known = (*self._secrets, *self._issued)
        long = [secret for secret in known if len(secret) >= PIECE]
        short = [secret for secret in known if SHORTEST <= len(secret) < PIECE]
        self._long = tuple({spelling: None for secret in long for spelling in _spellings(secret)})
        # whether it must stand alone
        self._short = {
            text: text == secret.lower().encode() for secret in short for text, _ in _spellings(secret)
        }
        # in tuples, as struct gives them: so the quick look does without any Python for each of them
        self._grams = frozenset((gram,) for gram, _, _ in self._each_gram())
        self.__dict__.pop("_places", None)

    def __call__(self, said: Text) -> Text:
        """The same without secrets; the very same object where there are none."""
        raw = _bytes(said)
        if not self._may_be_in(raw):
            return said
        try:
            value = reading.parsed(raw)
        except ValueError:
            plain = raw.decode(errors="replace")
            if (text := self.text(plain)) is plain:
                return said
        else:
            clean = self.value(value)
            if clean == value:
                return said
            text = json.dumps(clean)
        if isinstance(said, str):
            return text
        return text.encode()

    def parsed(self, said: str | bytes) -> Any:
        """What JSON says, without secrets; ``ValueError`` if it is none."""
        value = reading.parsed(said)
        return self.value(value) if self._may_be_in(_bytes(said)) else value

    def value(self, value: Any) -> Any:
        """Parsed JSON without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, int) and (digits := str(value)) != (clean := self.text(digits)):
            return clean
        return value

    def text(self, text: str) -> str:
        """One string without secrets."""
        if len(text) < (SHORTEST if self._short else PIECE):
            return text
        raw = _bytes(text)
        if not self._may_be_in(raw):
            return text
        found = list(self._pieces(raw.lower()))
        if len(raw) > LONGEST:
            clean = _cut(raw, found)
            return HIDDEN if self._in_escapes(clean.encode()) else clean if found else text
        layer = _Layer(raw)
        for _ in range(LAYERS):
            inner = layer.unescaped()
            if inner is None:
                break
            layer = inner
            found += [layer.span(*piece) for piece in self._pieces(layer.text.lower())]
        return _cut(raw, found) if found else text

    def _in_escapes(self, raw: bytes) -> bool:
        for _ in range(LAYERS):
            if not _escaped(raw) or (plain := _unescaped_all(raw)) == raw:
                return False
            raw = plain
            if any(True for _ in self._pieces(raw.lower())):
                return True
        return False

    def _may_be_in(self, raw: bytes) -> bool:
        for _ in range(LAYERS + 1):  # JSON's own escapes are one more layer
            lower = raw.lower()
            if self._has_gram(lower) or any(spelling in lower for spelling in self._short):
                return True
            if not _escaped(raw) or (plain := _unescaped_all(raw)) == raw:
                return False
            raw = plain
        return False

    def _has_gram(self, lower: bytes) -> bool:
        whole = len(lower) // GRAM * GRAM
        view = memoryview(lower)
        return any(
            not self._grams.isdisjoint(_GRAMS.iter_unpack(view[block : min(block + BLOCK, whole)]))
            for block in range(0, whole, BLOCK)
        )

    def _each_gram(self) -> Iterator[tuple[bytes, Spelling, int]]:
        for spelling in self._long:
            text, common = spelling
            for at in range(common, len(text) - GRAM + 1):
                yield text[at : at + GRAM], spelling, at

    @cached_property
    def _places(self) -> dict[bytes, list[tuple[Spelling, int]]]:
        """In which spellings, and where in them, a gram stands; wanted only where there is one."""
        places: dict[bytes, list[tuple[Spelling, int]]] = {}
        for gram, spelling, at in self._each_gram():
            places.setdefault(gram, []).append((spelling, at))
        return places

    def _pieces(self, lower: bytes) -> Iterator[tuple[int, int]]:
        """Where pieces of secrets begin and end; all of the text is one if it may hold too many."""
        if self._has_gram(lower):
            at = tries = 0
            for here in range(0, len(lower) - GRAM + 1, GRAM):
                if here < at or (lower[here : here + GRAM],) not in self._grams:
                    continue
                tries += 1
                if tries > MOST:
                    yield 0, len(lower)
                    break
                places = self._places[lower[here : here + GRAM]][:MOST_ALIKE]
                length, start, end = max(_grown(lower, here, *place) for place in places)
                if length >= PIECE:
                    yield start, end
                    at = end
        for text, alone in self._short.items():
            start = lower.find(text)
            while start >= 0:
                end = start + len(text)
                if not alone or _stands_alone(lower, start, end):
                    yield start, end
                start = lower.find(text, end)


def _bytes(said: str | bytes) -> bytes:
    return said.encode(errors="surrogatepass") if isinstance(said, str) else said


def _cut(raw: bytes, pieces: list[tuple[int, int]]) -> str:
    """The text without these pieces, which may overlap."""
    parts: list[bytes] = []
    at = 0
    for start, end in sorted(pieces):
        if start >= at:
            parts += [raw[at:start], HIDDEN.encode()]
        at = max(at, end)
    return b"".join([*parts, raw[at:]]).decode(errors="replace")


class _Layer:
    """A text, and where each of its bytes stood in the text that it was unescaped from."""

    def __init__(self, text: bytes, outer: _Layer | None = None) -> None:
        self.text = text
        self._outer = outer
        self._at = [0]
        self._from = [0]

    def span(self, start: int, end: int) -> tuple[int, int]:
        layer = self
        while layer._outer is not None:
            start, end = layer._origin(start), layer._origin(end)
            layer = layer._outer
        return start, end

    def _origin(self, at: int) -> int:
        known = bisect_right(self._at, at) - 1
        return self._from[known] + at - self._at[known]

    def unescaped(self) -> _Layer | None:
        """With one layer of escapes less; None where there is none."""
        if not _escaped(self.text):
            return None
        inner = _Layer(b"", self)
        parts: list[bytes] = []
        length = at = 0
        for escape in _ESCAPE.finditer(self.text):
            plain = _unescaped(escape[0])
            literal = self.text[at : escape.start()]
            parts += [literal, plain]
            length += len(literal)
            inner._at.append(length)
            inner._from.append(escape.start())
            length, at = length + len(plain), escape.end()
            inner._at.append(length)
            inner._from.append(at)
        if not parts:
            return None
        inner.text = b"".join([*parts, self.text[at:]])
        return inner if inner.text != self.text else None


def _escaped(text: bytes) -> bool:
    return b"\\" in text or b"%" in text or b"&" in text


def _unescaped_all(text: bytes) -> bytes:
    kinds = set(_ESCAPE.findall(text))
    if len(kinds) > KINDS:
        return _ESCAPE.sub(lambda escape: _unescaped(escape[0]), text)
    for kind in kinds:
        text = text.replace(kind, _unescaped(kind))
    return text


def _unescaped(escape: bytes) -> bytes:
    """What one escape stands for."""
    if escape[:2] == b"&#":
        digits = escape[2:].rstrip(b";")
        code = int(digits[1:], 16) if digits[:1] in b"xX" else int(digits)
        return bytes([code]) if code < 128 else escape
    if escape[:1] == b"&":
        name = escape[1:].decode()
        found = html.entities.html5.get(name) or html.entities.html5.get(name.lower(), "")
        return found.encode() if found.isascii() and found else escape
    if len(escape) == 2:
        return escape[1:]
    return bytes([int(escape[-2:], 16)])


def _grown(lower: bytes, here: int, spelling: Spelling, at: int) -> tuple[int, int, int]:
    """The whole piece of a spelling, where the text and that have a gram in common: how much of it is secret,
    and where it begins and ends."""
    text, common = spelling
    start, end = here, here + GRAM
    left, right = at, at + GRAM
    while start > 0 and left > 0 and lower[start - 1] == text[left - 1]:
        start, left = start - 1, left - 1
    while end < len(lower) and right < len(text) and lower[end] == text[right]:
        end, right = end + 1, right + 1
    return right - max(left, common), start, end


def _stands_alone(lower: bytes, start: int, end: int) -> bool:
    """Whether it is a word of a sentence or all that is said, and not a part of an id or of a name."""
    around = lower[max(0, start - 1) : start] + lower[end : end + 1]
    return not around or (len(lower.split()) > 1 and not re.search(rb"[a-z0-9_-]", around))


def _common(secret: str) -> int:
    """How many characters many others begin with in the same way: an address's scheme, a JWT's header."""
    scheme, _, rest = secret.rpartition("://")
    header, _, claims = rest.partition(".")
    return len(scheme) + 3 if scheme else len(header) if header[:3] == "eyJ" and claims.count(".") == 1 else 0


def _spellings(secret: str) -> Iterator[Spelling]:
    """As it is, in forms, in hex, and in base64 behind any text; all in lower case."""
    common = _common(secret)
    raw = _bytes(secret)
    yield raw.lower(), common
    yield raw.replace(b" ", b"+").lower(), common
    if not secret.isascii():
        yield quote(raw, safe="").lower().encode(), common
        yield json.dumps(secret)[1:-1].lower().encode(), common
    yield raw.hex().encode(), 2 * common
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # without the characters that depend on what stands before and behind
        whole = encoded[(8 * before + 5) // 6 : 8 * (before + len(raw)) // 6].lower()
        yield whole, 4 * common // 3
        yield whole.replace(b"+", b"-").replace(b"/", b"_"), 4 * common // 3
