"""What was signed is what is read, as what it was signed as."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trust.fleet import new_key

from edgeloop.errors import TrustError
from edgeloop.trust import Envelope, key_id
from edgeloop.trust.envelope import _encoded

KEY = new_key()
KEYS = {key_id(KEY.public): KEY.public}


def test_the_encoding_is_that_of_the_specification():
    # The example in protocol.md of the DSSE specification.
    assert _encoded("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world")


def test_round_trip():
    made = Envelope.sign("a/b", b"\0\xff text", [KEY, new_key()])
    again = Envelope.parse(made.to_bytes())
    assert again == made
    assert again.signers("a/b", KEYS) == set(KEYS)
    found = json.loads(made.to_bytes())
    assert base64.b64decode(found["payload"]) == b"\0\xff text"


def test_what_is_not_signed_by_a_believed_key_counts_for_nothing():
    made = Envelope.sign("a/b", b"text", [KEY])
    assert made.signers("a/c", KEYS) == set()  # another kind of document
    assert Envelope("a/c", b"text", made.signatures).signers("a/c", KEYS) == set()
    assert Envelope("a/b", b"tex", made.signatures).signers("a/b", KEYS) == set()
    assert Envelope("a/b", b"text").signers("a/b", KEYS) == set()
    other = new_key()
    renamed = tuple((key_id(KEY.public), sig) for _, sig in
                    Envelope.sign("a/b", b"text", [other]).signatures)
    assert Envelope("a/b", b"text", renamed).signers("a/b", KEYS) == set()
    # Signed twice by one key is signed by one.
    assert len(Envelope("a/b", b"text", made.signatures * 2).signers("a/b", KEYS)) == 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig"]), inner),
    max_leaves=8).map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused(data):
    try:
        Envelope.parse(data)
    except TrustError:
        return
    found = json.loads(data)  # the few that are envelopes: nothing is signed in them
    assert isinstance(found["payload"], str)


@pytest.mark.parametrize("change", [
    {"more": 1}, {"payload": "a"}, {"payload": 1}, {"payloadType": 1}, {"signatures": [1]},
    {"signatures": [{"keyid": "a", "sig": "AA==", "x": 1}]},
    {"signatures": [{"keyid": 1, "sig": ""}]}, {"payloadType": "\xe4"},
    {"signatures": [{"keyid": "a", "sig": "?"}]},
    {"signatures": [{"keyid": "a", "sig": ""}] * 17}, {"payload": "AA==\n"},
])
def test_other_forms_are_refused(change):
    good = json.loads(Envelope.sign("a/b", b"text", [KEY]).to_bytes())
    with pytest.raises(TrustError, match="DSSE"):
        Envelope.parse(json.dumps(good | change, ensure_ascii=False).encode())


def test_large_ones_are_refused_unread():
    with pytest.raises(TrustError, match="limit"):
        Envelope.parse(b" " * (129 << 10))
