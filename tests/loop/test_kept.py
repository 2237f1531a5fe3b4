"""Updates over kept features: the losses of updates over samples, and no trust across restarts."""

import numpy as np
import pytest
from models.zoo import Net

import edgeloop as el
from edgeloop import loop
from edgeloop.data.buffers import Ring
from edgeloop.errors import BudgetError, ConfigError
from edgeloop.loop.kept import Kept
from edgeloop.loop.trainer import Lesson, Pool, Progress, Trainer
from edgeloop.store import Store

WIDTH, CLASSES, BATCH = 6, 4, 4
ENTRIES = ("train", "eval", "predict", "features", "train_from", "eval_from")
COMPUTED: list[int] = []


class Kill(BaseException):
    pass


def model():
    n = Net("small", (WIDTH,))
    x = n.relu(n.fc("x", "fc1", WIDTH, 24), "act1")
    x = n.relu(n.fc(x, "fc2", 24, 12), "act2")
    return n.model(n.fc(x, "fc3", 12, CLASSES), (CLASSES,))


@pytest.fixture(scope="module")
def program():
    return el.compile(model(), train=el.LoRA(rank=4, targets="fc3"), batch=BATCH, entries=ENTRIES,
                      optimizer=el.SGD(lr=0.1, momentum=0.9))


def pool(data, views=1):
    held = Ring(max(1, len(data)), (views, WIDTH))
    for i, (x, y) in enumerate(data):
        held.push(np.stack([x + np.float32(v) for v in range(views)]), y, str(i))
    return Pool(held, held.slots())


def lesson(kit, views=1):
    data = kit.stream(60, seed=4)
    x = np.stack([x for x, _ in data[50:]])
    return Lesson(pool(data[:21], views), pool(data[21:40], views), pool(data[40:50]), x,
                  [y for _, y in data[50:]])


class Run:
    """A trainer over a real session whose calls, checkpoints and losses are kept."""

    def __init__(self, kit, program, keep, **train):
        self.session = Counting(program)
        self.checkpoints = []
        self.trainer = Trainer(
            self.session, kit.config(train={"epochs": 6, "rehearsal": 0.5} | train).train,
            batch=BATCH, clock=lambda: 0.0, emit=lambda *_, **__: None, keep=keep,
            checkpoint=lambda p, s, b: self.checkpoints.append(
                ({**vars(p), "curve": list(p.curve)}, s, b)))

    def __call__(self, lesson, progress=None, best=None):
        return self.trainer.run(lesson, progress or Progress(job=1), best)


class Counting(el.Session):
    """A session that says how many samples' features it computed."""

    def features(self, x):
        COMPUTED.append(len(x))
        return super().features(x)


def same(a, b):
    return all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("views", [1, 3])
def test_f32_has_the_losses_of_an_update_without_a_cut(kit, program, views):
    options = {"augment": {"views": views}, "early_stopping": {"patience": 99}}
    given = lesson(kit, views)
    whole = Run(kit, program, "", **options)(given)
    COMPUTED.clear()
    kept = Run(kit, program, "f32", **options)(given)
    assert kept.progress.curve == whole.progress.curve
    assert same(kept.adapter, whole.adapter)
    # Ten validation samples, each sample in each of its views, and no more.
    assert sum(COMPUTED) <= 10 + views * 40 + 10
    assert all(n == BATCH for n in COMPUTED[3:-1])


@pytest.mark.parametrize("keep", ["f32", "f16", "int8"])
def test_every_checkpoint_leads_to_the_same_bits(kit, program, keep):
    given = lesson(kit)
    first = Run(kit, program, keep, checkpoint_every=7)
    whole = first(given)
    assert len(first.checkpoints) > 3
    best = None
    for progress, snapshot, new_best in first.checkpoints:
        best = new_best or best
        again = Run(kit, program, keep, checkpoint_every=7)
        again.session.restore(snapshot)
        assert same(again(given, Progress(**progress), best).adapter, whole.adapter)


def resumed(kit, program, keep, first, given, **train):
    """Go on from each checkpoint of a run, each in a process of its own."""
    best = None
    for progress, snapshot, new_best in first.checkpoints:
        best = new_best or best
        again = Run(kit, program, keep, **train)
        again.session.restore(snapshot)
        outcome = again(given, Progress(**progress), best)
        yield outcome.progress.step, outcome.progress.flops, outcome.adapter


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("keep", ["", "f32"])
def test_features_computed_again_take_nothing_from_max_flops(kit, program, keep, views):
    given = lesson(kit, views)
    options = {"checkpoint_every": 3, "augment": {"views": views}, "epochs": 8,
               "early_stopping": {"patience": 99}}
    half = Run(kit, program, keep, **options)(given).progress.flops // 2
    first = Run(kit, program, keep, max_flops=half, **options)
    whole = first(given)
    p = whole.progress
    assert p.stop == "flops"
    assert len(first.checkpoints) > 3
    for step, flops, adapter in resumed(
            kit, program, keep, first, given, max_flops=half, **options):
        assert (step, flops) == (p.step, p.flops)
        assert same(adapter, whole.adapter)


def test_counted_twice_they_would_end_it_earlier(kit, program, monkeypatch):
    """The control of the one above."""
    monkeypatch.setattr(Trainer, "_catch_up", lambda *_: None)
    given, options = lesson(kit), {"checkpoint_every": 7, "max_flops": 100_000}
    first = Run(kit, program, "f32", **options)
    step = first(given).progress.step
    found = [s for s, *_ in resumed(kit, program, "f32", first, given, **options)]
    assert found[0] < step


@pytest.mark.parametrize(("keep", "bound"), [("f16", 2e-3), ("int8", 2e-2)])
def test_rounded_features_stay_near(kit, program, keep, bound):
    runs = [Run(kit, program, k, early_stopping={"patience": 99}) for k in ("", keep)]
    for run in runs:
        run.session.lr = 0.02
    whole, kept = (run(lesson(kit)).progress.curve for run in runs)
    assert kept != whole
    np.testing.assert_allclose(kept, whole, rtol=bound)


def test_a_sample_meets_the_same_batch_wherever_an_update_is_resumed(kit, program):
    """Negative control: an order of its own for each start would give other batches."""
    config = kit.config(train={"epochs": 6, "rehearsal": 0.5}).train
    met = []

    class Noted(el.Session):
        def features(self, x):
            met.append(x.tobytes())
            return super().features(x)

    given = lesson(kit)
    for start in (0, 4):
        met.append(None)
        kept = Kept(Noted(program), given, config, 1, keep="f32")
        for epoch in range(start, 6):
            order = given.order(config, 1, epoch)
            for i in range(0, len(order), BATCH):
                kept.rows(order[i : i + BATCH], epoch)
    split = met.index(None, 1)
    first, later = met[1:split], met[split + 1 :]
    assert set(later) <= set(first)
    assert len(first) == len(set(first))


TOML = """
[model]
program = "small.elp"
[source]
kind = "npz"
path = "d.npz"
[trigger]
samples = 40
[train]
epochs = 6
checkpoint_every = 5
features = "{keep}"
[gate]
min_samples = 12
"""


@pytest.fixture
def device(kit, program, tmp_path):
    program.save(tmp_path / "small.elp")
    x, y = (np.stack(v) for v in zip(*kit.stream(130), strict=True))
    np.savez(tmp_path / "d.npz", x=x, y=y)
    return tmp_path


def ended(device):
    with Store.open(device / "device.db") as store:
        assert store.job() is None
        out = [(v.id, v.sha256, v.live) for v in store.versions()], store.kv("loop")
    (device / "device.db").unlink()
    return out


def config(device, keep, extra=""):
    (device / "loop.toml").write_text(TOML.format(keep=keep) + extra)
    return device / "loop.toml"


def test_a_loop_with_features_ends_with_the_bits_of_one_without(device):
    events = []
    loop.run(config(device, "off"))
    whole = ended(device)
    loop.run(config(device, "auto"), on_event=lambda kind, **d: events.append((kind, d)))
    assert ended(device) == whole
    assert [d["keep"] for kind, d in events if kind == "features"][:1] == ["f32"]


@pytest.mark.parametrize("keep", ["f32", "int8"])
def test_killed_anywhere_ends_with_the_same_bits(device, keep):
    count = 0

    def counting(kind, **detail):
        nonlocal count
        count += 1
        if count == at:
            raise Kill

    at, path = -1, config(device, keep)
    loop.run(path, on_event=counting)
    whole, total = ended(device), count
    for at in range(3, total, 29):
        count = 0
        with pytest.raises(Kill):
            loop.run(path, on_event=counting)
        loop.run(path)
        assert ended(device) == whole, f"killed at event {at}"


def test_the_plan_counts_them_and_auto_does_without_where_they_do_not_fit(device):
    def items(path):
        plan = loop.plan(path)
        return {i.name: i.bytes for i in plan.items if i.name.startswith("features")}, plan

    kept, plan = items(config(device, "f32"))
    # Twelve inputs of the layer that trains, and the four of what it computes without LoRA.
    assert kept == {"features to train on": 512 * 64, "features to validate on": 64 * 128}
    assert items(config(device, "int8"))[0]["features to train on"] == 512 * (16 + 8)
    assert items(config(device, "off"))[0] == {}
    # What a process holds varies by some pages, so room for one more or one less is not enough.
    program = el.load(str(device / "small.elp"))
    small = config(device, "auto", f"[budget]\nram = {plan.total - 15_000}\n")
    from edgeloop.loop import checks

    baseline = next(i.bytes for i in plan.items if i.name.startswith("interpreter"))
    made, keep = checks.plan_of(loop.Config.load(small), program, (WIDTH,), baseline)
    assert (keep, made.fits) == ("", True)
    must = config(device, "f32", f"[budget]\nram = {plan.total - 15_000}\n")
    made, keep = checks.plan_of(loop.Config.load(must), program, (WIDTH,), baseline)
    assert keep == "f32"
    with pytest.raises(BudgetError, match="features to train on"):
        made.check()


def test_asking_a_program_without_a_cut_says_how_to_get_one(device):
    el.compile(model(), batch=BATCH).save(device / "small.elp")
    with pytest.raises(ConfigError, match="edgeloop compile --cut"):
        loop.run(config(device, "f16"))
    assert loop.run(config(device, "auto")).items == 130
