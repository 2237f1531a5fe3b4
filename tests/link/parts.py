"""Real parts around an update server: certificates, hub and broker processes, a bad line."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.trust.fleet import Device

import edgeloop
from edgeloop.hub.shelf import Shelf
from edgeloop.store import Store


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certificates(folder):
    """An authority (ca.pem) and a certificate of 127.0.0.1 (cert.pem, cert.key) signed by it."""
    now = dt.datetime.now(dt.UTC)

    def made(name, key, issuer, issuer_key, *extensions):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256())

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    usage = x509.KeyUsage(*([False] * 5), key_cert_sign=True, crl_sign=True, encipher_only=False,
                          decipher_only=False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = made("test authority", ca_key, None, ca_key,
              (x509.BasicConstraints(ca=True, path_length=None), True), (usage, True),
              (identifier, False))
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    above = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    cert = made("hub", key, ca.subject, ca_key, (host, False), (above, False))
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (folder / "cert.pem").write_bytes(cert.public_bytes(Encoding.PEM))
    (folder / "cert.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "cert.key").chmod(0o600)


class Process:
    """A server: started, asked until it answers, killed."""

    def __init__(self, command, port, **options):
        self.command, self.port, self.options = [str(c) for c in command], port, options
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **self.options)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(
                    ("127.0.0.1", self.port), timeout=1):
                return self
            assert self.process.poll() is None, self.process.stderr.read().decode()
            assert time.monotonic() < deadline, f"{self.command} does not answer"
            time.sleep(0.05)

    def kill(self):
        """Without a chance to tidy up."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(edgeloop.__file__).resolve().parents[1])}


class Site:
    """A fleet's hub in a folder, with a publisher and devices; nothing runs yet."""

    def __init__(self, folder, fleet):
        self.folder, self.fleet = folder, fleet
        key = folder / "fresh.key"
        key.write_bytes(fleet.fresh_key._private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o600)
        Shelf.create(folder / "hub", fleet.root, key).close()
        self.port = free_port()

    @contextlib.contextmanager
    def shelf(self):
        with contextlib.closing(Shelf(self.folder / "hub")) as shelf:
            yield shelf

    def hub(self, *more, tls=False):
        """The hub as a process."""
        if tls:
            more = (*more, "--cert", self.folder / "cert.pem", "--cert-key",
                    self.folder / "cert.key")
        return Process([sys.executable, "-m", "edgeloop", "hub", "serve", self.folder / "hub",
                        "--port", self.port, *more], self.port, env=environment())

    def device(self, name="device", *, seed=0):
        """An enrolled device with its token in NAME.token."""
        device = Device(self.folder, self.fleet, f"{name}.db", seed=seed)
        with self.shelf() as shelf:
            token = shelf.add_device(name, device.trust.signer().public)
        path = self.folder / f"{name}.token"
        path.write_text(token)
        path.chmod(0o600)
        device.token = path
        return device

    def publish(self, *packages, percent=100.0):
        with self.shelf() as shelf:
            for number, package in enumerate(packages):
                path = self.folder / f"p{number}.edl"
                path.write_bytes(package)
                shelf.publish(path, percent=percent)

    def begin(self, what, device, url, *more):
        """`edgeloop pull` or `push` as a process that runs."""
        return subprocess.Popen(
            [sys.executable, "-m", "edgeloop", what, str(device.path), "--server", url, "--token",
             str(device.token), "--json", *map(str, more)],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def end(process):
        """Exit status, what it printed as JSON, errors."""
        out, errors = process.communicate(timeout=900)
        lines = out.splitlines()
        return process.returncode, json.loads(lines[-1]) if lines else None, errors

    def command(self, what, device, url, *more):
        """The same, from its beginning to its end."""
        return self.end(self.begin(what, device, url, *more))


BROKER = """\
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
cafile {folder}/ca.pem
certfile {folder}/cert.pem
keyfile {folder}/cert.key
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
user root
"""


class Broker:
    """Mosquitto with TLS, a user for the hub and one for each device, who sees its own topics."""

    def __init__(self, folder):
        self.folder, self.port, self.mosquitto = folder, free_port(), needs_mosquitto()
        (folder / "mosquitto.conf").write_text(BROKER.format(port=self.port, folder=folder))
        (folder / "acl").write_text(
            "user hub\ntopic readwrite edgeloop/v1/press/#\n"
            "pattern readwrite edgeloop/v1/press/%u/#\n")
        (folder / "acl").chmod(0o600)
        (folder / "passwords").touch(0o600)
        self.user("hub", "hub-password")
        self.process = Process([self.mosquitto, "-c", folder / "mosquitto.conf"], self.port)

    def user(self, name, password):
        subprocess.run(["mosquitto_passwd", "-b", str(self.folder / "passwords"), name, password],
                       check=True, capture_output=True)
        token = self.folder / f"{name[:8]}.mqtt"
        token.write_text(f"{name}:{password}")
        token.chmod(0o600)
        return token

    @property
    def url(self):
        return f"mqtts://127.0.0.1:{self.port}"


def with_broker(site, broker):
    return site.hub("--mqtt", broker.url, "--mqtt-token", broker.folder / "hub.mqtt",
                    "--ca", broker.folder / "ca.pem")


class BadLine(threading.Thread):
    """A proxy to a port that passes so many bytes a second, and breaks all connections often.

    It is up for `up` seconds of every `up + down`; what comes in between is refused.
    """

    def __init__(self, target, *, rate, up, down):
        super().__init__(daemon=True)
        self.target, self.rate, self.up, self.down = target, rate, up, down
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.halt, self.passed, self.breaks = threading.Event(), 0, 0
        self.free_at = 0.0
        self.began = time.monotonic()

    def online(self):
        return (time.monotonic() - self.began) % (self.up + self.down) < self.up

    def run(self):
        self.server.settimeout(0.02)
        pairs = []
        while not self.halt.is_set():
            with contextlib.suppress(TimeoutError):
                client = self.server.accept()[0]
                if self.online():
                    pairs.append((client, socket.create_connection(("127.0.0.1", self.target))))
                else:
                    client.close()
            if not self.online():
                self.breaks += len(pairs)
                for pair in pairs:
                    self.cut(pair)
                pairs.clear()
                continue
            for pair in list(pairs):
                if not self.pump(*pair):
                    self.cut(pair)
                    pairs.remove(pair)

    @staticmethod
    def cut(pair):
        for end in pair:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.close()

    def pump(self, client, server):
        """Pass a little of what there is; False when an end is closed."""
        ready, _, _ = select.select([client, server], [], [], 0)
        for end in ready:
            budget = (time.monotonic() - self.free_at) * self.rate
            if budget < 64:
                return True
            try:
                data = end.recv(int(min(512, budget)))
                (server if end is client else client).sendall(data)
            except OSError:
                return False
            if not data:
                return False
            self.passed += len(data)
            self.free_at = max(self.free_at, time.monotonic() - 0.1) + len(data) / self.rate
        return True

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.halt.set()
        self.join()
        self.server.close()


def adapter_of(device, version):
    with Store.open(device.path, readonly=True) as store:
        return store.adapter(version)


def needs_mosquitto():
    """The broker, or a skip that says how to get it."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("mosquitto is missing: make setup-system")
        pytest.skip("needs the broker mosquitto: make setup-system")
    return found
