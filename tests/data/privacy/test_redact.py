import numpy as np
import pytest

from edgeloop.data.item import Item
from edgeloop.data.privacy import KINDS, Redact
from edgeloop.errors import ConfigError

SECRET = b"s" * 32
MAIL = "anna@example.org"


def item(key="k", **meta):
    return Item(np.zeros(2, np.float32), 1, key, meta)


def redact(kinds=KINDS, patterns=None, **more):
    return Redact(kinds, patterns, secret=more.pop("secret", SECRET), **more)


def test_texts_in_lists_and_tables_and_names_of_fields():
    deep = {"list": [f"to {MAIL}", ("192.0.2.1", 3)], MAIL: {"x": "+49 171 1234567"}}
    made = redact()(item(deep=deep, room=4, ok=True, none=None, part=0.5))
    assert made.meta == {
        "deep": {"list": ["to [email]", ["[ip]", 3]], "[email]": {"x": "[phone]"}},
        "room": 4, "ok": True, "none": None, "part": 0.5,
    }
    assert deep["list"][0] == f"to {MAIL}"


def test_numbers_are_searched_as_they_are_written():
    card, plain = 4111111111111111, 4111111111111112
    made = redact()(item(a=card, b=plain, c=float(card), d=np.int64(card), e=10**5000, f=np.inf))
    assert made.meta == {"a": "[card]", "b": plain, "c": "[card]", "d": "[card]", "e": 10**5000,
                         "f": np.inf}


def test_what_is_neither_text_nor_number_is_withheld():
    x = np.zeros(3, np.float32)
    deep = last = []
    for _ in range(600):
        last.append([])
        last = last[0]
    last.append(MAIL)
    made = redact()(item(data=MAIL.encode(), x=x, texts=np.array([MAIL]), deep=deep))
    assert made.meta["data"] == made.meta["texts"] == "[withheld]"
    assert made.meta["x"] is x
    assert "[withheld]" in str(made.meta["deep"])
    assert MAIL not in str(made.meta["deep"])


def test_a_key_stays_one_items_alone():
    keys = [redact()(item(f"{who}@example.org/3.wav")).key for who in ("anna", "bert", "anna")]
    assert keys[0] == keys[2] != keys[1]
    assert keys[0].startswith("[email:")
    assert redact(secret=b"t" * 32)(item("anna@example.org/3.wav")).key != keys[0]
    assert redact(key=False)(item(MAIL)).key == MAIL
    assert redact()(item("clip-0001.wav")).key == "clip-0001.wav"


def test_what_is_hashed_already_is_left():
    assert redact(but=["user"])(item(user="192.0.2.1")).meta == {"user": "192.0.2.1"}


def test_own_patterns_come_first():
    own = redact(patterns={"customer": r"K-\d+@x"})
    assert own.text("K-12@x.org and anna@x.org") == "[customer].org and [email]"


@pytest.mark.parametrize(("kinds", "patterns", "says"), [
    (["emial"], {}, 'redact: .emial. is not known; did you mean "email"'),
    (["xyzzy"], {}, "use email, iban"),
    ([], {"a b": "x"}, "patterns.a b: is no fit name"),
    ([], {"email": "x"}, "patterns.email: is the name of a kind"),
    ([], {"a": 3}, "patterns.a: is 3; it must be a regular expression"),
    ([], {"a": "("}, "patterns.a: .*is no regular expression"),
    ([], {"a": "x*"}, "patterns.a: .*finds the empty text"),
])
def test_errors(kinds, patterns, says):
    with pytest.raises(ConfigError, match=says):
        redact(kinds, patterns)


def test_of_two_that_overlap_nothing_is_left():
    both = redact(["phone"], {"mine": r"123 \d+"})
    assert both.text("call +49 171 123 4567 now") == "call +49 171 [mine] now"
    assert redact(["phone"]).text("0049 89 123456") == "[phone]"
