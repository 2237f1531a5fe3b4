"""What redaction can find in a text, kind by kind, each in time linear in the text's length."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv6Address

Span = tuple[int, int]  # first character, and the one behind the last
Finder = Callable[[str], Iterator[Span]]

# Possessive, and begun only where a run of such characters begins: no text makes them go back.
_EMAIL = re.compile(
    r"""(?:(?<![\w.%+'-])[\w.%+'-]++|"[^"\n]{1,64}")@"""
    r"(?:[\w-]++(?:\.[\w-]++)*+|\[[\w:.]{2,45}\])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,}")
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:.]{3,45}(?![\w:])")
_GAP = r"[ ()./-]{0,3}"
_ABROAD = re.compile(rf"(?<!\d)(?:\+|(?<!\w)(?<!\d[.,])00) ?\(?\d(?:{_GAP}\d){{6,14}}(?!\d)")
_DATE = r"\d{1,2}([./-])\d{1,2}\1\d{4}(?!\d)"
_TRUNK = re.compile(rf"(?<!\w)(?<!\d[.,])(?!{_DATE})\(?0\d(?:{_GAP}\d){{6,13}}(?!\d)")
_AMERICAN = re.compile(r"(?<!\d)\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?!\d)")


def emails(text: str) -> Iterator[Span]:
    """Find e-mail addresses (RFC 5321's forms, with letters of any script)."""
    return (m.span() for m in _EMAIL.finditer(text))


def ibans(text: str) -> Iterator[Span]:
    """Find IBANs in one piece or in groups; their check digits must hold (ISO 13616, mod 97)."""
    for m in _IBAN.finditer(text):
        for end in _ends(text, m.start(), m.end(), 15, 34):
            plain = re.sub("[ -]", "", text[m.start():end])
            number = "".join(str(int(c, 36)) for c in plain[4:] + plain[:4])
            if int(number) % 97 == 1:
                yield m.start(), end
                break


def cards(text: str) -> Iterator[Span]:
    """Find payment cards: 13 to 19 digits that begin with 2 to 6 (ISO/IEC 7812) and pass Luhn."""
    for run in _CARD.finditer(text):
        done = run.start()
        for first in re.finditer(r"(?<!\d)[2-6]", run[0]):
            start = run.start() + first.start()
            if start < done:
                continue
            for end in _ends(text, start, run.end(), 13, 19):
                if _luhn([int(c) for c in text[start:end] if c.isdigit()]):
                    yield start, end
                    done = end
                    break


def addresses(text: str) -> Iterator[Span]:
    """Find IPv4 and IPv6 addresses."""
    for m in _IPV4.finditer(text):
        if all(int(part) <= 255 for part in m[0].split(".")):
            yield m.span()
    for m in _IPV6.finditer(text):
        written = m[0].rstrip(".")  # the end of a sentence
        try:
            IPv6Address(written)
        except AddressValueError:
            continue
        yield m.start(), m.start() + len(written)


def phones(text: str) -> Iterator[Span]:
    """Find phone numbers: +49..., 0049..., 089 ..., (555) 010-9999; a date is none.

    National forms are those that begin with a 0, of 8 to 15 digits, and American ones in groups.
    """
    for form in (_ABROAD, _TRUNK, _AMERICAN):
        yield from (m.span() for m in form.finditer(text))


KINDS: dict[str, Finder] = {
    "email": emails, "iban": ibans, "card": cards, "ip": addresses, "phone": phones,
}


def _ends(text: str, start: int, stop: int, fewest: int, most: int) -> Iterator[int]:
    """Yield where a grouped number from `start` may end, longest first: never inside a group."""
    ends, count = [], 0
    for i in range(start, stop):
        if text[i] in " -":
            continue
        count += 1
        if count > most:
            break
        if count >= fewest and not text[i + 1:i + 2].isalnum():
            ends.append(i + 1)
    return reversed(ends)


def _luhn(digits: list[int]) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    doubled = (d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0
