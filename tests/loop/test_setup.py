"""The whole way with real sessions: a compiled program, files, a state file."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el
from edgeloop import loop
from edgeloop.beside import BACKUP
from edgeloop.data.clips import place
from edgeloop.data.features import from_spec
from edgeloop.errors import BudgetError, ConfigError, DataError, StateError
from edgeloop.loop.checks import misfit
from edgeloop.loop.setup import preparer
from edgeloop.store import CODECS, Store, damage, rounded

WIDTH, CLASSES = 6, 4
NAMES = ["sit", "walk", "run", "climb"]


class Kill(BaseException):
    pass


def mlp(outputs):
    r = np.random.default_rng(0)
    shapes = {"w1": (16, WIDTH), "b1": (16,), "w2": (outputs, 16), "b2": (outputs,)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="fc1", transB=1),
        helper.make_node("Relu", ["h"], ["a"], name="act"),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], name="fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [
            numpy_helper.from_array((0.4 * r.normal(size=s)).astype(np.float32), k)
            for k, s in shapes.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="module")
def classifier():
    return el.compile(
        mlp(CLASSES),
        train=el.LoRA(rank=4),
        optimizer=el.SGD(lr=0.1, momentum=0.9),
        batch=8,
        classes=NAMES,
        features={"kind": "none"},
    )


def write_csv(path, data):
    rows = [",".join([*(repr(float(v)) for v in x), NAMES[y]]) for x, y in data]
    path.write_text("\n".join([",".join([*"abcdef", "what"]), *rows]) + "\n")


TOML = """
[model]
program = "har.elp"
[source]
kind = "csv"
path = "d.csv"
label = "what"
[trigger]
samples = 40
[train]
epochs = 6
checkpoint_every = 5
[gate]
min_samples = 12
[budget]
ram = "4 GiB"
"""


@pytest.fixture
def device(kit, classifier, tmp_path):
    classifier.save(tmp_path / "har.elp")
    write_csv(tmp_path / "d.csv", kit.stream(130))
    (tmp_path / "loop.toml").write_text(TOML)
    return tmp_path


def edit(device, old, new):
    path = device / "loop.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_judged_stored_and_served_is_the_same_version(kit, device, codec):
    edit(device, "[budget]", f'[state]\nadapters = "{codec}"\nkeep_versions = 3\n[budget]')
    x = np.stack([x for x, _ in kit.stream(50, seed=50)])
    with loop.open_loop(device / "loop.toml") as running:
        report = running.run()
        served, version = running.live.predict(x)
    assert report.promoted >= 1
    with Store.open(device / "device.db", readonly=True) as store:
        live, adapter = store.live(), store.adapter(version)
        assert len(store.versions()) <= 3
    assert (live.id, live.codec) == (version, codec)
    assert {n: a.tobytes() for n, a in rounded(adapter, codec).items()} == {
        n: a.tobytes() for n, a in adapter.items()} or codec == "int8"
    with loop.open_loop(device / "loop.toml") as again:
        again.run()
        np.testing.assert_array_equal(again.live.predict(x)[0], served)


def test_a_copy_is_kept_whenever_a_version_goes_live(device):
    copy = device / f"device.db{BACKUP}"
    path = edit(device, "[budget]", "[state]\nbackup = false\n[budget]")
    report = loop.run(path)
    assert report.promoted >= 1
    assert not copy.exists()
    for name in ("device.db", "device.db-wal", "device.db-shm"):
        (device / name).unlink(missing_ok=True)
    report = loop.run(edit(device, "backup = false", "backup = true"))
    with Store.open(copy, readonly=True) as store:
        assert store.live().id == report.live
        assert damage(store) == []


def test_a_copy_that_fails_stops_nothing_and_is_told(device, monkeypatch):
    def full(*_):
        raise StateError("the disk is full")

    monkeypatch.setattr(Store, "copy_to", full)
    report = loop.run(device / "loop.toml")
    assert report.promoted >= 1
    with Store.open(device / "device.db", readonly=True) as store:
        told = [e.detail for e in store.events() if e.kind == "backup_failed"]
    assert told == [{"reason": "the disk is full"}] * report.promoted


def test_learns_from_a_csv(kit, device):
    report = loop.run(device / "loop.toml")
    assert (report.items, report.accepted) == (130, 130)
    assert report.promoted >= 1
    assert report.updates[0].cycle_seconds < 1.0
    with loop.open_loop(device / "loop.toml") as again:
        again.run()
        x, y = (np.stack(v) for v in zip(*kit.stream(200, seed=50), strict=True))
        out, version = again.live.predict(x)
    assert version == report.live
    assert (out.argmax(1) == y).mean() > 0.8


@pytest.mark.parametrize(("method", "message"), [
    ("lora:rank=4", None), ("lora:rank=auto", None),
    ("lora:rank=2", r"was compiled to train LoRA\(rank=4.*compile it again with --train loop.toml"),
    ("ia3+bias", "was compiled to train LoRA"),
    ("lorra", "train.method: unknown training method 'lorra'"),
])
def test_a_program_that_trains_something_else_is_refused(device, method, message):
    path = edit(device, "[train]", f'[train]\nmethod = "{method}"')
    if message is None:
        assert loop.run(path, until=5).items == 5
        return
    with pytest.raises(ConfigError, match=message):
        loop.run(path)


def ended(device):
    with Store.open(device / "device.db") as store:
        assert store.job() is None
        return [(v.id, v.sha256, v.live) for v in store.versions()], store.kv("loop")


def test_killed_anywhere_ends_with_the_same_bits(device):
    count = 0

    def counting(kind, **detail):
        nonlocal count
        count += 1
        if count == at:
            raise Kill

    at = -1
    loop.run(device / "loop.toml", on_event=counting)
    whole, total = ended(device), count
    for at in range(3, total, 31):
        count = 0
        (device / "device.db").unlink()
        with pytest.raises(Kill):
            loop.run(device / "loop.toml", on_event=counting)
        loop.run(device / "loop.toml")
        assert ended(device) == whole, f"killed at event {at}"


def test_any_iterable(kit, device):
    data = [(x, NAMES[y]) for x, y in kit.stream(60)]
    report = loop.run(device / "loop.toml", source=data, until=50)
    assert (report.items, report.ended) == (50, "limit")


def test_base_samples(kit, device):
    x, y = (np.stack(v) for v in zip(*kit.stream(80, seed=9), strict=True))
    np.savez(device / "base.npz", x=x, y=y)
    path = edit(device, "[trigger]", '[base]\nkind = "npz"\npath = "base.npz"\n[trigger]')
    report = loop.run(path)
    assert report.updates[0].gate["anchor_before"] is not None
    x[3, 2] = np.nan
    np.savez(device / "base.npz", x=x, y=y)
    with pytest.raises(DataError, match=r"base\.npz: x, row 3: at \[2\] is nan"):
        loop.run(path)


def test_autoencoder_learns_its_input(kit, tmp_path):
    program = el.compile(
        mlp(WIDTH), loss="mse", train=el.LoRA(rank=2), optimizer=el.SGD(lr=0.05), batch=8
    )
    program.save(tmp_path / "har.elp")
    config = loop.Config.from_dict(
        {
            "model": {"program": "har.elp"},
            "trigger": {"samples": 40},
            "train": {"target": "input", "epochs": 8},
            "gate": {"min_samples": 10},
        },
        root=tmp_path,
    )
    report = loop.run(config, source=[x for x, _ in kit.stream(90)])
    assert report.promoted >= 1
    first = report.updates[0]
    assert first.gate["after"] > first.gate["before"]


def test_over_budget_refuses_to_start(device):
    path = edit(device, "4 GiB", "1 MiB")
    with pytest.raises(BudgetError, match=r"the budget is 1\.00 MiB") as caught:
        loop.run(path)
    assert "interpreter, numpy, edgeloop" in str(caught.value)
    assert not (device / "device.db").exists()


def test_plan_itemises(device):
    plan = loop.plan(device / "loop.toml")
    assert plan.fits
    names = [item.name for item in plan.items]
    assert {"program", "training session", "rehearsal", "SQLite"} <= set(names)
    assert not (device / "device.db").exists()
    edit(device, "[budget]", "[state]\nbackup = false\n[budget]")
    alone = {i.name: i.bytes for i in loop.plan(device / "loop.toml").items}["SQLite"]
    assert {i.name: i.bytes for i in plan.items}["SQLite"] == 2 * alone


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("[trigger]", '[features]\nkind = "log-mel"\n[trigger]', ConfigError, "features: differ"),
        ("[trigger]", '[features]\nkind = "mel"\n[trigger]', ConfigError, "features: kind is 'mel"),
        ('label = "what"', 'label = "wat"', DataError, "has no column 'wat'"),
        ('label = "what"', "", DataError, "column 'what': '.*' is not a number"),
        ('kind = "csv"', 'kind = "tsv"', ConfigError, r"loop\.toml: source\.kind: is 'tsv'"),
        ('"har.elp"', '"absent.elp"', el.ProgramError, "absent.elp"),
    ],
)
def test_what_does_not_fit_is_said(device, old, new, error, message):
    with pytest.raises(error, match=message):
        loop.run(edit(device, old, new))


def test_the_step_and_the_key_that_differ_are_named(device):
    steps = "[[features.steps]]\nkind = 'scale'\n[[features.steps]]\nkind = 'normalise'\n"
    recorded = {"steps": [{"kind": "scale"}, {"kind": "normalise", "std": 2.0}]}
    el.compile(mlp(CLASSES), batch=8, features=recorded).save(device / "har.elp")
    said = r"\(steps\[1\] \(normalise\): std is 1\.0, the program's 2\.0\)"
    with pytest.raises(ConfigError, match=said):
        loop.run(edit(device, "[trigger]", f"{steps}[trigger]"))


@pytest.mark.parametrize("learn", [False, True])
def test_clips_are_placed_and_running_statistics_learn_when_told(learn):
    clip = 0.1 * np.sin(np.arange(9000, dtype=np.float32))
    features = from_spec({"steps": [{"kind": "mfcc"}, {"kind": "normalise", "by": "running"}]})
    out = preparer(features, learn=learn)(clip)
    assert out.shape == (1, 47, 13)
    assert features.state()["steps"][1]["seen"] == learn
    assert np.array_equal(out, features(place(clip, 16000)))
    scale = from_spec({"kind": "scale", "factor": 2})
    assert np.array_equal(preparer(scale, learn=learn)(clip), 2 * clip)


def test_bad_row_is_named_and_nothing_is_lost(kit, device):
    write_csv(device / "d.csv", kit.stream(130))
    text = (device / "d.csv").read_text().splitlines()
    good = text[50]
    text[50] = "nan" + good[good.index(",") :]
    (device / "d.csv").write_text("\n".join(text))
    with pytest.raises(DataError, match=r"d\.csv: row 51, column 'a': value is nan"):
        loop.run(device / "loop.toml")
    text[50] = good
    (device / "d.csv").write_text("\n".join(text))
    report = loop.run(device / "loop.toml")
    assert (report.items, report.accepted) == (130, 81)


def test_missing_entries_are_named(device):
    el.compile(mlp(CLASSES), entries=("predict",), batch=8).save(device / "other.elp")
    with pytest.raises(ConfigError, match="no entry train, eval; compile it with"):
        loop.run(edit(device, "har.elp", "other.elp"))


def test_input_as_target_needs_a_loss_that_takes_it(device):
    with pytest.raises(ConfigError, match=r'train\.target.*"input".*mse'):
        loop.run(edit(device, "[train]", '[train]\ntarget = "input"'))


def test_a_loss_with_other_targets_is_refused(device):
    el.compile(mlp(CLASSES), loss=el.loss.Distillation(), batch=8).save(device / "other.elp")
    with pytest.raises(ConfigError, match="the loss distillation of this program takes others"):
        loop.run(edit(device, "har.elp", "other.elp"))


def test_hashed_ids_keep_their_key(kit, device):
    path = edit(device, "[trigger]", "[privacy]\nhash_ids = true\n[trigger]")
    loop.run(path, until=20)
    secret = (device / "device.key").read_bytes()
    loop.run(path)
    assert (device / "device.key").read_bytes() == secret
    with Store.open(device / "device.db") as store:
        assert all("d.csv" not in s.key for s in store.samples("gate"))


def test_raw_windows_are_not_stored_where_that_is_forbidden(device):
    asked = '[privacy]\nraw = "never stored"\n[trigger]'
    path = edit(device, "[trigger]", asked)
    with pytest.raises(ConfigError, match=r'privacy\.raw: "never stored", but .*"none" keep'):
        loop.run(path)
    assert not (device / "device.db").exists()
    features = {"kind": "statistics"}
    program = el.compile(mlp(CLASSES), batch=8, classes=NAMES, features=features)
    program.save(device / "har.elp")
    config = loop.Config.load(path)
    assert misfit(config, program, 0) == ""
    program = el.compile(mlp(CLASSES), batch=8, classes=NAMES, features={"kind": "scale"})
    assert "never stored" in misfit(config, program, 0)


def test_plain_errors_quote_neither_stream_nor_base(device):
    secret = "a,b,c,d,e,f,what\n1,2,3,4,5,6,secret\n"
    (device / "d.csv").write_text(secret)
    path = edit(device, "[trigger]", '[privacy]\nerrors = "plain"\n[trigger]')
    with pytest.raises(DataError, match=r"d\.csv: record 1: label is not a class; .*walk"):
        loop.run(path)
    (device / "base.csv").write_text(secret)
    base = '[base]\nkind = "csv"\npath = "base.csv"\nlabel = "what"\n[trigger]'
    edit(device, "[trigger]", base)
    with pytest.raises(DataError, match=r"base\.csv: record 1: label is not a class"):
        loop.run(path)
