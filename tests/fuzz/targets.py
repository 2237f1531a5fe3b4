"""What hostile bytes may do: raise an error of ours, or be what they claim to be.

    python -m tests.fuzz.targets TARGET SECONDS FOLDER

Coverage-guided (atheris, which drives libFuzzer) from seeds that are real; FOLDER takes the corpus.
Any other exception, a hang of 10 s or 2 GB of memory ends it with a report and status 1.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgeloop.errors import EdgeLoopError

DIGEST = "ab" * 32


def weights(seed):
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(4, 3)).astype("f4"), "b": rng.normal(size=5).astype("f4")}


class Manifest:
    """The signed part of a package: framing, envelope, manifest."""

    def __init__(self):
        from edgeloop import delta
        from edgeloop.delta import manifest

        self.delta, self.manifest = delta, manifest

    def seeds(self):
        from tests.trust.fleet import new_key

        for codec in ("exact", "none"):
            package = self.delta.pack(
                weights(0), weights(1), {"program_hash": DIGEST}, codec=codec, signers=[new_key()],
                sequence=1, audience="fleet:x", created=1.0, expires=2.0)
            yield package
            yield self.delta.unpack(package).manifest.exact

    def run(self, data):
        with contextlib.suppress(EdgeLoopError):
            assert self.manifest.parse(data).exact == data
        with contextlib.suppress(EdgeLoopError):
            opened = self.delta.unpack(data)
            assert self.delta.seal(opened.envelope, opened.payload) == data


class Envelope:
    """Envelopes in both forms, root documents, notices, answers."""

    def __init__(self):
        from edgeloop.link import transport
        from edgeloop.trust import envelope, root

        self.envelope, self.root, self.notice = envelope.Envelope, root.Root, transport.Notice

    def seeds(self):
        from tests.trust.fleet import Fleet

        from edgeloop.link import Offer

        fleet = Fleet()
        yield fleet.root
        yield self.envelope.parse(fleet.root).to_compact()
        yield self.envelope.parse(fleet.root).payload
        yield self.notice(3, DIGEST, (Offer(DIGEST, 9, "full", None),)).to_bytes()

    def run(self, data):
        with contextlib.suppress(EdgeLoopError):
            assert self.envelope.from_compact(data).to_compact() == data
        with contextlib.suppress(EdgeLoopError):
            found = self.envelope.parse(data)
            assert self.envelope.parse(found.to_bytes()) == found
        with contextlib.suppress(EdgeLoopError):
            self.root.first(data)
        with contextlib.suppress(EdgeLoopError):
            self.notice.parse(data)


class Payload:
    """The compressed difference, as a publisher gone bad could sign it."""

    def __init__(self):
        from edgeloop import delta
        from edgeloop.delta.codecs import CODECS
        from edgeloop.trust import Envelope as Signed

        self.delta, self.codecs, self.signed = delta, list(CODECS), Signed
        self.parent = weights(0)

    def seeds(self):
        for number, codec in enumerate(self.codecs):
            package = self.delta.pack(
                self.parent, weights(1), {"program_hash": DIGEST}, codec=codec)
            yield bytes([number]) + self.delta.unpack(package).payload

    def run(self, data):
        import dataclasses
        import hashlib

        if not data:
            return
        codec, payload = self.codecs[data[0] % len(self.codecs)], data[1:]
        made = self.delta.unpack(self.delta.pack(
            self.parent, weights(1), {"program_hash": DIGEST}, codec=codec)).manifest
        said = dataclasses.replace(
            made, payload_sha256=hashlib.sha256(payload).hexdigest(), payload_bytes=len(payload))
        package = self.delta.seal(self.signed(self.delta.DELTA, said.exact), payload)
        with contextlib.suppress(EdgeLoopError):
            got = self.delta.apply(self.parent, package)
            assert self.delta.adapter_digest(got) == made.result


class Artifact:
    """A program file: container, header, step table; a good one must also run.

    The seal over all bytes is left unverified: whoever is hostile can compute it.
    """

    def __init__(self):
        import edgeloop as el
        from edgeloop.program import Program, artifact
        from edgeloop.runtime import Session

        self.el, self.load, self.session = el, Program.from_bytes, Session
        artifact._verify_seal = lambda *_: None
        self.folder = Path(tempfile.mkdtemp())

    def seeds(self):
        from tests.conftest import write_model

        write_model(self.folder / "seed.onnx")
        for train in (self.el.LoRA(2), self.el.Bias()):
            yield self.el.compile(
                self.folder / "seed.onnx", train=train, batch=2).to_bytes()

    def run(self, data):
        with contextlib.suppress(EdgeLoopError):
            program = self.load(data)
            if program.plan.ram_bytes > 1 << 24:
                return
            session = self.session(program)
            x = np.ones((2, 16), "f4")
            session.step(x, np.zeros(2, np.int64))
            session.predict(x)


class Onnx:
    """A model file: protobuf, graph, shapes, folding; and compiling what was imported."""

    def __init__(self):
        import edgeloop as el
        from edgeloop.importer import load

        self.el, self.load = el, load
        self.folder = Path(tempfile.mkdtemp())

    def seeds(self):
        from tests.conftest import write_model

        write_model(self.folder / "seed.onnx")
        yield (self.folder / "seed.onnx").read_bytes()

    def run(self, data):
        path = self.folder / "x.onnx"
        path.write_bytes(data)
        with contextlib.suppress(EdgeLoopError):
            self.el.compile(path, train=self.el.LoRA(2), batch=2)


class Recording:
    """A recorded stream: the file's frames and the records in them."""

    def __init__(self):
        from edgeloop.data import item, recording, records
        from edgeloop.data.sources import RecordingSource

        self.item, self.recording, self.records = item, recording, records
        self.source = RecordingSource
        self.path = Path(tempfile.mkdtemp()) / "x.elr"

    def seeds(self):
        item, x = self.item, np.ones((2, 3), "f4")
        for given in (item.Item(x, 1, "k", {"a": 1}, 2.0), item.Feedback(x[0], "k")):
            yield b"\0" + self.records.pack(given)
            self.path.unlink(missing_ok=True)
            with self.recording.Recorder(self.path, "name") as file:
                file.write(given)
            yield b"\1" + self.path.read_bytes()

    def run(self, data):
        if data[:1] == b"\0":
            with contextlib.suppress(EdgeLoopError):
                record = self.records.unpack(data[1:], "here")
                self.records.unpack(self.records.pack(record), "here")
            return
        self.path.write_bytes(data[1:])
        with contextlib.suppress(EdgeLoopError):
            for record in self.source(self.path).items():
                assert isinstance(record, self.item.Item | self.item.Feedback | EdgeLoopError)


class Inference:
    """A request with binary tensors: what is read is of the shapes that it says."""

    def __init__(self):
        from edgeloop.serve import v2

        self.v2 = v2

    def seeds(self):
        import json

        x = np.ones((2, 3), "<f4")
        for binary in (True, False):
            tensor = {"name": "x", "shape": [2, 3], "datatype": "FP32"}
            tensor |= {"parameters": {"binary_data_size": 24}} if binary else {"data": x.tolist()}
            said = json.dumps({
                "id": "1", "inputs": [tensor], "parameters": {"binary_data_output": binary},
                "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
            yield len(said).to_bytes(2, "little") + said + (x.tobytes() if binary else b"")

    def run(self, data):
        for header in (None, str(int.from_bytes(data[:2], "little"))):
            with contextlib.suppress(EdgeLoopError):
                asked = self.v2.read(data[2:], header)
                assert all(a.size for a in asked.inputs.values())
                outputs = {"y": next(iter(asked.inputs.values()))}
                body, size = self.v2.answer(asked, "m", "1", outputs)
                assert body[:1] == b"{"
                assert size is None or 0 < size < len(body)


TARGETS = {"manifest": Manifest, "envelope": Envelope, "payload": Payload, "artifact": Artifact,
           "onnx": Onnx, "recording": Recording, "inference": Inference}


def main() -> None:
    import atheris

    name, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]) / sys.argv[1]
    for module in [m for m in sys.modules if m.startswith("edgeloop")]:
        if module != "edgeloop.errors":  # what is loaded already would not be followed
            del sys.modules[module]
    with atheris.instrument_imports(include=["edgeloop"]):
        target = TARGETS[name]()
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed{number}").write_bytes(seed)
    np.seterr(all="ignore")
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
         "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={folder}/", str(folder)],
        target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
