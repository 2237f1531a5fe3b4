"""What is found in texts, what is not, and that no text takes more than linear time."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.privacy import KINDS, Redact, kinds

FOUND = {
    "email": [
        "anna@example.org", "Anna.B+news@mail.example.co.uk", "o'neil@host",
        "jürgen@bücher.example", '"john doe"@example.org', "root@[192.0.2.1]",
        "a" * 200 + "@example.org",
    ],
    "phone": [
        "+49 171 1234567", "+49 (0)171 123-45-67", "+14155550123", "0049 89 123456",
        "089/123456-78", "(0171) 1234567", "01711234567", "020 7946 0958", "(555) 010-9999",
        "555-010-9999", "415.555.0123",
    ],
    "card": [
        "4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005",
        "6011000990139424", "2223003122003222",
    ],
    "ip": ["192.0.2.7", "192.168.001.010", "2001:db8::1", "fe80::1", "::1", "::ffff:192.0.2.1"],
    "iban": [
        "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "gb82 west 1234 5698 7654 32",
        "NO9386011117947", "MT84MALT011000012345MTLCAST001S",
    ],
}
NOT_FOUND = {
    "email": ["no at sign", "@name", "a @ b", "x@"],
    "phone": ["2026-12-01", "01.12.2026", "1/12/2026", "0.00123456", "12:30:45", "7 of 9", "42",
              "1764561600", "v1.2.3", "00:00:12"],
    "card": ["4111111111111112", "1764561600000000000", "4111 1111 1111 111", "0" * 16,
             "41111111111111111111111"],
    "ip": ["256.1.1.1", "1.2.3", "1.2.3.4.5", "12:30:45", "std::x", "::", "a:b"],
    "iban": ["DE88370400440532013000", "DE89", "AB12 word word word"],
}


def replaced(kind, text):
    return Redact([kind], secret=b"0" * 32).text(text).replace(f"[{kind}]", "#")


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, all_ in FOUND.items() for t in all_])
@pytest.mark.parametrize(
    "around", ["{}", "write to {}, please", "<{}>", "a={};", "{}\n", "„{}“", "{}."])
def test_found_whole(kind, text, around):
    assert replaced(kind, around.format(text)) == around.format("#")


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, all_ in NOT_FOUND.items() for t in all_])
def test_not_found(kind, text):
    assert replaced(kind, text) == text
    assert replaced(kind, f"it says {text}, so") == f"it says {text}, so"


def test_several_in_one_text():
    assert replaced("card", "4111 1111 1111 1111 12/27 and 378282246310005") == "# 12/27 and #"
    assert replaced("ip", "192.0.2.7:80 [2001:db8::1]:443") == "#:80 [#]:443"
    assert replaced("email", "a@b.c,d@e.f") == "#,#"


def test_a_number_is_no_card_without_its_check_digit(monkeypatch):
    monkeypatch.setattr(kinds, "_luhn", lambda _: True)
    assert replaced("card", "4111111111111112") == "#"


HOSTILE = [
    "a", "1", "1 ", "a@", "a.", "+", "0 ", "a:", '"', "DE89", "DE89 ", "4 ", "1.", "(0", "-",
    "4111 1111 1111 1112 ", "+4 ", '"a', "a" * 70 + " ", ":", ".", "@", "00", "555-", "[:",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_end(piece):
    """Linear work ends within a second; work that grows with the square would take an hour."""
    text = piece * (300_000 // len(piece)) + "!"
    for find in KINDS.values():
        list(find(text))


CHARACTERS = string.ascii_letters + string.digits + " @.:+-()/\"'"


@given(st.sampled_from(sorted(KINDS)), st.text(CHARACTERS))
def test_spans_lie_in_order_inside_the_text(kind, text):
    for start, end in KINDS[kind](text):
        assert 0 <= start < end <= len(text)
