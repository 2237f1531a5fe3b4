"""Private keys stay private, and only Ed25519 keys are taken."""

from __future__ import annotations

import os
import sys
import types
from importlib.metadata import EntryPoint

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgeloop.errors import TrustError
from edgeloop.trust import key_id, keys, load_signer, new_key, public_key
from edgeloop.trust.keys import genuine, public_text


def test_a_key_is_made_readable_by_its_owner_only(tmp_path):
    old = os.umask(0)
    try:
        made = new_key(tmp_path / "k")
    finally:
        os.umask(old)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    again = load_signer(tmp_path / "k")
    assert again.public == made.public
    assert genuine(made.public, again.sign(b"m"), b"m")
    assert not genuine(made.public, again.sign(b"m"), b"n")
    assert public_key(public_text(made.public)) == made.public
    assert len(key_id(made.public)) == 32


def test_a_key_that_others_may_read_is_refused(tmp_path):
    new_key(tmp_path / "k")
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(TrustError, match="read by others"):
        load_signer(tmp_path / "k")


def test_a_key_is_never_replaced(tmp_path):
    new_key(tmp_path / "k")
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(TrustError, match="exists already"):
        new_key(tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == before


def test_other_files_are_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text, said in ((other, "not an Ed25519"), (b"hello", "no PEM file"), (b"", "no PEM file")):
        path = tmp_path / "k"
        path.write_bytes(text)
        path.chmod(0o600)
        with pytest.raises(TrustError, match=said):
            load_signer(path)
    with pytest.raises(TrustError, match="cannot be read"):
        load_signer(tmp_path / "none")
    for text in ("", "x", "AAAA", "ä"):
        with pytest.raises(TrustError, match="public key"):
            public_key(text)


def test_a_hardware_signer_comes_from_an_entry_point(tmp_path, monkeypatch):
    inner = new_key(tmp_path / "k")
    asked = []

    def opened(address):
        asked.append(address)
        return inner

    module = types.ModuleType("fake_tpm")
    module.open = opened
    monkeypatch.setitem(sys.modules, "fake_tpm", module)
    point = EntryPoint("tpm", "fake_tpm:open", keys.SIGNERS)
    monkeypatch.setattr(
        keys, "entry_points",
        lambda group, name: [point] * (group == keys.SIGNERS and name == "tpm"))
    assert load_signer("tpm:0x81000001").public == inner.public
    assert asked == ["0x81000001"]
    with pytest.raises(TrustError, match="no installed package offers 'hsm'"):
        load_signer("hsm:1")
