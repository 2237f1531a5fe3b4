"""Who a fleet believes changes only by the hands of those it believes."""

from __future__ import annotations

import json

import pytest
from tests.trust.fleet import Fleet, new_key

from edgeloop.errors import TrustError
from edgeloop.trust import Envelope, Root, key_id
from edgeloop.trust.root import KIND


def test_a_first_document_is_signed_by_its_own_root():
    fleet = Fleet()
    root = Root.first(fleet.root)
    assert (root.fleet, root.version) == ("press", 1)
    assert set(root.keys["release"]) == {key_id(fleet.release_key.public)}
    with pytest.raises(TrustError, match="signed by"):
        Root.first(fleet.document(1, signers=[fleet.release_key]))
    with pytest.raises(TrustError, match="signed by nobody"):
        Root.first(Envelope(KIND, Envelope.parse(fleet.root).payload).to_bytes())


def test_rotation_takes_the_old_and_the_new():
    fleet, new = Fleet(), new_key()
    root = Root.first(fleet.root)
    both = fleet.document(2, root=new.public, signers=[fleet.root_key, new])
    assert root.next(both).version == 2
    for signers in ([new], [fleet.root_key]):
        with pytest.raises(TrustError, match="signed by"):
            root.next(fleet.document(2, root=new.public, signers=signers))
    for version in (1, 3):
        with pytest.raises(TrustError, match="does not follow"):
            root.next(fleet.document(version))
    with pytest.raises(TrustError, match="of fleet 'other'"):
        root.next(fleet.document(2, name="other"))


def test_thresholds():
    keys = [new_key() for _ in range(3)]
    release = new_key()
    root = Root.of("f", 1, {"root": [k.public for k in keys], "release": [release.public]},
                   {"root": 2})
    assert Root.first(root.sign(keys[:2])).thresholds["root"] == 2
    with pytest.raises(TrustError, match="1 signed it, 2 must"):
        Root.first(root.sign(keys[:1]))
    once = Envelope.parse(root.sign(keys[:1]))
    with pytest.raises(TrustError, match="1 signed it, 2 must"):
        Root.first(Envelope(once.kind, once.payload, once.signatures * 2).to_bytes())
    for least in (0, 4):
        with pytest.raises(TrustError, match="must sign as root"):
            Root.of("f", 1, {"root": [k.public for k in keys], "release": [release.public]},
                    {"root": least})


def test_one_key_has_one_role():
    key = new_key()
    with pytest.raises(TrustError, match="one key in two roles"):
        Root.of("f", 1, {"root": [key.public], "release": [key.public]})


@pytest.mark.parametrize("change", [
    {"schema": 2}, {"more": 1}, {"version": "1"}, {"version": True}, {"version": 0},
    {"fleet": ""}, {"fleet": "a/b"}, {"fleet": 1}, {"roles": {}}, {"roles": []},
    {"roles": {"root": {"keys": ["x"], "threshold": 1}}},
])
def test_other_documents_are_refused_even_when_signed(change):
    fleet = Fleet()
    body = json.loads(Envelope.parse(fleet.root).payload) | change
    data = Envelope.sign(KIND, json.dumps(body).encode(), [fleet.root_key]).to_bytes()
    with pytest.raises(TrustError):
        Root.first(data)
