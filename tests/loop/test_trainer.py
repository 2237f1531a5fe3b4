import copy
import dataclasses
import itertools

import numpy as np
import pytest

from edgeloop.data.buffers import Ring
from edgeloop.device import Meter, Reading
from edgeloop.errors import NonFiniteError
from edgeloop.loop.trainer import Lesson, Pool, Progress, Trainer


class Clock:
    """A clock that moves by `tick` whenever it is read."""

    def __init__(self, tick=0.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def ring(data, views=1):
    held = Ring(max(1, len(data)), (views, len(data[0][0]) if data else 6))
    for i, (x, y) in enumerate(data):
        held.push(np.stack([x + v for v in range(views)]), y, str(i))
    return held


def pool(data, views=1):
    held = ring(data, views)
    return Pool(held, held.slots())


def lesson(kit, *, fresh=20, remembered=0, base=0, validation=12, seed=1):
    data = kit.stream(fresh + remembered + base + validation, seed=seed)
    cuts = list(itertools.accumulate([0, fresh, remembered, base, validation]))
    parts = [data[a:b] for a, b in itertools.pairwise(cuts)]
    x = np.stack([x for x, _ in parts[3]]) if parts[3] else np.zeros((0, kit.width), np.float32)
    return Lesson(pool(parts[0]), pool(parts[1]), pool(parts[2]), x, [y for _, y in parts[3]])


class Said(Meter):
    """A meter that says what a function does; None: it cannot be read."""

    source = "said"

    def __init__(self, joules):
        self._joules = joules

    def read(self):
        joules = self._joules()
        return self._gap("silent") if joules is None else Reading(joules, "J", self.source)


class Run:
    """A trainer whose checkpoints and events are kept."""

    def __init__(self, kit, clock=None, learner=None, **train):
        self.learner = learner or kit.Softmax()
        self.checkpoints, self.events = [], []
        self.trainer = Trainer(
            self.learner,
            kit.config(train=train).train,
            batch=kit.batch,
            clock=clock or Clock(),
            checkpoint=lambda p, s, b: self.checkpoints.append(
                (copy.deepcopy(vars(p)), s, b)),  # as a store has it: nothing changes it later
            emit=lambda kind, **d: self.events.append((kind, d)),
        )

    def __call__(self, lesson, progress=None, best=None):
        return self.trainer.run(lesson, progress or Progress(job=1), best)


def test_epochs_end_it(kit):
    run = Run(kit, epochs=3, early_stopping={"patience": 99})
    outcome = run(lesson(kit))
    p = outcome.progress
    assert (p.stop, p.step, len(p.curve)) == ("epochs", 15, 3)
    assert p.best < p.first
    assert [d["epoch"] for k, d in run.events if k == "epoch"] == [1, 2, 3]
    assert run.events[-1][0] == "stop"


def test_target_ends_it(kit):
    outcome = Run(kit, epochs=50, target_loss=0.8, lr=0.02)(lesson(kit))
    p = outcome.progress
    assert p.stop == "target"
    assert p.best <= 0.8
    assert all(loss > 0.8 for _, loss in p.curve[:-1])


def test_plateau_ends_it_and_the_best_epoch_is_kept(kit):
    run = Run(kit, epochs=99, early_stopping={"patience": 2})
    learner = run.learner
    learner.lr = 3.0  # so high that it soon gets worse
    given = lesson(kit)
    outcome = run(given)
    p = outcome.progress
    assert p.stop == "plateau"
    assert len(p.curve) < 99
    assert p.best_epoch < len(p.curve)
    learner.load_adapter(outcome.adapter)
    assert learner.evaluate(given.x, np.array(given.y))[0] == p.best == min(v for _, v in p.curve)


def test_min_delta_counts_small_gains_as_none(kit):
    few = Run(kit, epochs=30, early_stopping={"patience": 2, "min_delta": 0.5})(lesson(kit))
    assert few.progress.stop == "plateau"
    assert len(few.progress.curve) < 10
    assert few.progress.best_epoch == len(few.progress.curve)  # still the best is kept


def test_no_gain_gives_no_candidate(kit):
    run = Run(kit, epochs=5)
    run.learner.lr = -1.0
    outcome = run(lesson(kit))
    assert outcome.adapter is None
    assert outcome.progress.best_epoch == 0


def test_deadline_is_journalled_before_it_takes_effect(kit):
    run = Run(kit, Clock(0.01), epochs=99, deadline="500 ms", early_stopping={"patience": 99})
    outcome = run(lesson(kit))
    p = outcome.progress
    assert p.stop == "deadline"
    assert p.elapsed <= 0.5 + 2 * 0.01  # validation included, but for reading the clock
    progress, _, _ = run.checkpoints[-1]
    assert progress["journal"] == [
        {"step": p.step, "stop": "deadline", "elapsed": pytest.approx(0.5, abs=0.1)}
    ]


def test_deadline_leaves_time_for_the_gate(kit):
    options = {"epochs": 99, "deadline": "500 ms", "early_stopping": {"patience": 99}}
    given = lesson(kit)
    alone = Run(kit, Clock(0.01), **options)(given).progress
    gated = Run(kit, Clock(0.01), **options)(dataclasses.replace(given, after=120)).progress
    # 120 rows are ten times the validation set, which takes one or two ticks.
    assert alone.elapsed - 0.25 < gated.elapsed < alone.elapsed - 0.08


def test_resumed_after_the_deadline_ends_at_the_same_step(kit):
    given = lesson(kit)
    first = Run(kit, Clock(0.01), epochs=99, deadline="333 ms", early_stopping={"patience": 99})
    whole = first(given)
    assert whole.progress.step % 5, "the deadline should cut an epoch"
    progress, snapshot, _ = first.checkpoints[-1]
    best = next(b for _, _, b in reversed(first.checkpoints) if b is not None)
    # A faster clock now: without the journal this run would get much further.
    again = Run(kit, Clock(0.0), epochs=99, deadline="333 ms", early_stopping={"patience": 99})
    again.learner.restore(snapshot)
    resumed = again(given, Progress(**progress), best)
    assert resumed.progress.step == whole.progress.step
    assert (resumed.adapter["w"] == whole.adapter["w"]).all()


@pytest.mark.parametrize("every", [1, 3, 7])
def test_every_checkpoint_leads_to_the_same_bits(kit, every):
    options = {"epochs": 4, "checkpoint_every": every}
    given = lesson(kit, remembered=9, base=9)
    first = Run(kit, **options)
    whole = first(given)
    assert len(first.checkpoints) == whole.progress.step // every
    best = None
    for progress, snapshot, new_best in first.checkpoints:
        best = new_best or best
        again = Run(kit, **options)
        again.learner.restore(snapshot)
        resumed = again(given, Progress(**{**progress, "curve": list(progress["curve"])}), best)
        assert (resumed.adapter["w"] == whole.adapter["w"]).all()


def test_checkpoints_by_time_lead_to_the_same_bits_too(kit):
    given = lesson(kit, remembered=9, base=9)
    plain = Run(kit, Clock(0.01), epochs=4)(given)
    timed = {}
    for seconds in (0.05, 0.2):
        options = {"epochs": 4, "checkpoint_every": 1, "checkpoint_seconds": f"{seconds} s"}
        first = Run(kit, Clock(0.01), **options)
        whole = first(given)
        assert (whole.adapter["w"] == plain.adapter["w"]).all()
        timed[seconds] = len(first.checkpoints)
        progress, snapshot, _ = first.checkpoints[0]
        assert progress["elapsed"] >= seconds
        again = Run(kit, Clock(0.01), **options)
        again.learner.restore(snapshot)
        best = first.checkpoints[0][2]
        resumed = again(given, Progress(**{**progress, "curve": list(progress["curve"])}), best)
        assert (resumed.adapter["w"] == whole.adapter["w"]).all()
    assert plain.progress.step > timed[0.05] > timed[0.2] > 0


def test_not_finite_keeps_the_best_so_far(kit):
    class Fragile(kit.Softmax):
        def step(self, x, y):
            if self.steps == 12:
                raise NonFiniteError("loss is not finite")
            return super().step(x, y)

    outcome = Run(kit, learner=Fragile(), epochs=9)(lesson(kit))
    assert outcome.progress.stop == "loss not finite"
    assert outcome.progress.best_epoch == 2
    assert outcome.adapter is not None


def test_without_validation_the_training_loss_decides(kit):
    outcome = Run(kit, epochs=6)(lesson(kit, validation=0))
    p = outcome.progress
    assert p.first is None
    assert outcome.adapter is not None
    assert p.best == min(t for t, _ in p.curve)


def test_order_mixes_new_remembered_and_base(kit):
    config = kit.config(train={"rehearsal": 0.5}).train
    given = lesson(kit, fresh=20, remembered=30, base=30)
    order = given.order(config, job=1, epoch=0)
    count = {
        id(p): sum(q is p for q, _ in order) for p in (given.fresh, given.remembered, given.base)
    }
    assert list(count.values()) == [20, 10, 10]
    assert sorted(i for p, i in order if p is given.fresh) == list(range(20))
    assert order == given.order(config, 1, 0)
    assert order != given.order(config, 1, 1)
    assert order != given.order(config, 2, 0)
    only = lesson(kit, fresh=20, remembered=0, base=6)
    assert len(only.order(config, 1, 0)) == 26
    none = kit.config(train={"rehearsal": 0.0}).train
    assert len(given.order(none, 1, 0)) == 20


def test_epochs_take_turns_with_views(kit):
    held = pool([(np.zeros(6, np.float32), 0)], views=3)
    assert [float(held.view(0, e)[0][0]) for e in range(5)] == [0, 1, 2, 0, 1]


def test_suspended_at_any_step_it_ends_with_the_same_bits(kit):
    """Asked before each step; what goes on is another trainer with the checkpoint alone."""
    data = lesson(kit, fresh=20, remembered=8)
    whole = Run(kit, epochs=3, early_stopping={"patience": 99})(data)
    want = whole.adapter["w"].tobytes()
    for at in range(whole.progress.step):
        run = Run(kit, epochs=3, early_stopping={"patience": 99}, checkpoint_every=1000)
        asked = itertools.count()
        outcome = run.trainer.run(
            data, Progress(job=1), None, lambda at=at, asked=asked: "no" * (next(asked) == at))
        assert (outcome.suspended, outcome.adapter, outcome.progress.stop) == ("no", None, None)
        fields, snapshot, best = run.checkpoints[-1]
        assert fields["journal"][-1] | {"elapsed": 0} == {"step": at, "pause": "no", "elapsed": 0}
        again = Run(kit, epochs=3, early_stopping={"patience": 99})
        again.learner.restore(snapshot)
        ended = again(data, Progress(**fields), best)
        assert ended.suspended is None
        assert ended.progress.curve == whole.progress.curve
        assert ended.adapter["w"].tobytes() == want


@pytest.mark.parametrize(("limit", "reason", "step"), [
    ({"max_steps": 7}, "steps", 7), ({"max_flops": 650}, "flops", 7),
    ({"max_steps": 99}, "epochs", 15), ({"max_flops": 1e6}, "epochs", 15)])
def test_limits_of_work(kit, limit, reason, step):
    p = Run(kit, epochs=3, early_stopping={"patience": 99}, **limit)(lesson(kit)).progress
    assert (p.stop, p.step) == (reason, step)
    assert (p.flops, p.bytes) == (100 * step, 400 * step)


@pytest.mark.parametrize(("said", "reason"), [
    (lambda n: 2.0 * n, "energy"), (lambda n: 0.1 * n, "epochs"),
    (lambda n: None if n > 8 else 0.1 * n, "energy"),  # a budget that nobody counts is none
])
def test_a_budget_of_energy(kit, said, reason):
    run = Run(kit, epochs=3, early_stopping={"patience": 99}, max_energy="10 J")
    looks = itertools.count()
    run.trainer._meter = Said(lambda: said(next(looks)))
    p = run(lesson(kit)).progress
    assert p.stop == reason
    if reason == "energy":
        assert p.step < 15
        assert p.journal[-1]["stop"] == "energy"
        assert run.checkpoints[-1][0]["stop"] == "energy"  # a resumed run stops there too


def test_where_energy_ended_it_is_kept_by_a_run_that_resumes_with_another_meter(kit):
    data = lesson(kit)
    options = {"epochs": 3, "early_stopping": {"patience": 99}, "max_energy": "10 J"}
    run, looks = Run(kit, **options), itertools.count()
    run.trainer._meter = Said(lambda: 1.1 * next(looks))
    whole = run(data)
    assert whole.progress.stop == "energy"
    fields, snapshot, best = run.checkpoints[-1]
    for joules in (lambda: 0.0, lambda: None):
        again = Run(kit, **options)
        again.trainer._meter = Said(joules)
        again.learner.restore(snapshot)
        ended = again(data, Progress(**copy.deepcopy(fields)), best)
        assert (ended.progress.stop, ended.progress.step) == ("energy", whole.progress.step)
        assert ended.progress.curve == whole.progress.curve
        assert ended.adapter["w"].tobytes() == whole.adapter["w"].tobytes()


def test_without_a_budget_an_unknown_energy_stops_nothing(kit):
    run = Run(kit, epochs=3, early_stopping={"patience": 99})
    p = run(lesson(kit)).progress
    assert (p.stop, p.joules) == ("epochs", None)


def test_an_update_that_a_gap_falls_into_is_unknown_and_the_next_is_measured(kit):
    run, looks = Run(kit, epochs=1, early_stopping={"patience": 99}), itertools.count()
    # One silent look, and back before the update ends.
    run.trainer._meter = Said(lambda: None if (n := next(looks)) == 3 else 2.0 * n)
    data = lesson(kit)
    first = run(data).progress
    after = next(looks)
    assert after > 5
    second = run(data, Progress(job=2)).progress
    assert (first.joules, first.stop) == (None, "epochs")
    assert second.joules == 2.0 * (next(looks) - after - 2)


def test_a_gap_that_somebody_else_saw_makes_an_update_unknown(kit):
    """Between two looks of the trainer, as of a condition that asks the meter too."""
    run = Run(kit, epochs=1, early_stopping={"patience": 99})
    meter = run.trainer._meter = Said(lambda: 2.0 * run.learner.steps)
    step = run.learner.step

    def gap(x, y):
        if run.learner.steps == 2:
            meter._gap("silent")
        return step(x, y)

    run.learner.step = gap
    assert run(lesson(kit)).progress.joules is None
    assert run(lesson(kit), Progress(job=2)).progress.joules == 10.0


def test_a_budget_of_energy_is_counted_again_after_a_gap(kit):
    run = Run(kit, epochs=3, early_stopping={"patience": 99}, max_energy="10 J")
    silent = [True]
    run.trainer._meter = Said(lambda: None if silent[0] else 2.0 * run.learner.steps)
    first = run(lesson(kit)).progress
    assert (first.stop, first.step, first.joules) == ("energy", 0, None)
    silent[0] = False
    second = run(lesson(kit), Progress(job=2)).progress
    assert (second.stop, second.step, second.joules) == ("energy", 5, 10.0)


def metered(kit, snapshot=None, **train):
    """A run that takes two joules a step, with a meter that begins at 0 with it."""
    run = Run(kit, epochs=3, early_stopping={"patience": 99}, checkpoint_every=1, **train)
    if snapshot is not None:
        run.learner.restore(snapshot)
    before = run.learner.steps
    run.trainer._meter = Said(lambda: 2.0 * (run.learner.steps - before))
    return run


@pytest.mark.parametrize("limit", [{"max_steps": 7}, {"max_flops": 650}, {"max_energy": "13 J"}])
def test_a_limit_ends_a_resumed_update_with_the_same_bits(kit, limit):
    """From every checkpoint, with counters that begin again."""
    data = lesson(kit)
    first = metered(kit, **limit)
    whole = first(data)
    want = whole.progress
    assert (want.step, want.flops, want.joules) == (7, 700, 14.0)
    assert want.step % 5, "the limit should cut an epoch"
    best = None
    for fields, snapshot, new_best in first.checkpoints:
        best = new_best or best
        ended = metered(kit, snapshot, **limit)(data, Progress(**copy.deepcopy(fields)), best)
        p = ended.progress
        assert (p.stop, p.step, p.flops, p.joules) == (want.stop, 7, 700, 14.0)
        assert p.curve == want.curve
        assert ended.adapter["w"].tobytes() == whole.adapter["w"].tobytes()


def test_energy_that_a_checkpoint_forgot_would_move_the_limit(kit):
    """The control of the one above: what was used before the checkpoint counts."""
    data = lesson(kit)
    first = metered(kit, max_energy="13 J")
    assert first(data).progress.step == 7
    fields, snapshot, best = first.checkpoints[3]
    again = metered(kit, snapshot, max_energy="13 J")
    assert again(data, Progress(**fields | {"joules": 0.0}), best).progress.step == 11
