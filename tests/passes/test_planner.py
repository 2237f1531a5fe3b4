"""Order, memory plan and code on random graphs, executed on bytes at the planned offsets."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Type, Value, verify
from edgeloop.ops import NO_GRAD, OPS, Attr, Builder, OpDef, evaluate
from edgeloop.passes import needs as needs_module
from edgeloop.passes import schedule as schedule_module
from edgeloop.passes.bounds import any_order_bound
from edgeloop.passes.encode import encode
from edgeloop.passes.lifetimes import buffers, live_bytes, memory, peak_bytes
from edgeloop.passes.needs import Needs
from edgeloop.passes.schedule import schedule

F = np.float32


def _op(name, reference, infer, **more):
    return OpDef(name=name, kernel=name, infer=infer, reference=reference, grad=NO_GRAD,
                 samples=lambda: (), **more)


def _update(w, g):
    return (w - F(0.5) * g).astype(F)


FAKES = [
    _op("t_scale", lambda x, by: (x * F(by)).astype(F), lambda x, by: x, inplace=(0,),
        attrs=(Attr("by", "f32", 1.0),)),
    _op("t_add", lambda a, b: a + b, lambda a, b: a, inplace=(0, 1)),
    _op("t_roll", lambda x: np.roll(x, 1), lambda x: x),
    _op("t_acc", lambda x, acc=None: np.roll(x, 2) + (0 if acc is None else acc),
        lambda x, acc=None: x, inplace=(1,)),
    _op("t_two", lambda x: (np.roll(x, 3), x.reshape(-1)[:1] * F(2)), lambda x: (x, Type((1,)))),
    _op("t_update", _update, lambda w, g: w, updates=((0, 0),)),
    _op("t_flat", lambda x: x.reshape(-1, 1), lambda x: Type((x.size, 1)), view=True),
    _op("t_back", lambda x: x.reshape(-1), lambda x: Type((x.size,)), view=True),
    _op("copy", lambda x: x.copy(), lambda x: x),
]


def _fake_need(op, types, strides, attrs, isa):
    """Some scratch, different for each operator, size and instruction set."""
    size = sum(t.nbytes for t in types if t is not None)
    return 1, zlib.crc32(f"{op.name}{size}{isa}".encode()) % 300 if size % 3 else 0


@pytest.fixture(autouse=True, scope="module")
def fakes():
    with pytest.MonkeyPatch.context() as patch:
        for op in FAKES:
            patch.setitem(OPS, op.name, op)
        patch.setattr(needs_module, "need", _fake_need)
        yield


def add(g, op, *inputs, **attrs):
    types = OPS[op].infer(*[None if v is None else v.type for v in inputs], **attrs)
    types = types if isinstance(types, tuple) else (types,)
    count = sum(len(n.outputs) for n in g.nodes)
    outs = tuple(Value(f"v{count + i}", t) for i, t in enumerate(types))
    g.nodes.append(Node(op, inputs, outs, attrs, ""))
    return outs


@st.composite
def graphs(draw, updates=True):
    """A random graph over vectors of one of three sizes, with params, constants and updates."""
    g = Graph()
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.sampled_from([0, 1, 16, 17, 100, 300]), min_size=1, max_size=3))
    pool = []
    for i, size in enumerate(sizes):
        for pool_of, name in ((g.constants, "c"), (g.params, "w")):
            v = Value(f"{name}{i}", Type((size,)))
            pool_of[v] = rng.standard_normal(size).astype(F)
            pool.append(v)
        v = Value(f"x{i}", Type((size,)))
        g.inputs.append(v)
        pool.append(v)
    for _ in range(draw(st.integers(1, 25))):
        name = draw(st.sampled_from([f.name for f in FAKES[:5]] + ["t_flat", "t_back"]))
        x = draw(st.sampled_from(pool))
        if name == "t_scale":
            pool += add(g, name, x, by=2.0)
        elif name in ("t_add", "t_acc"):
            other = draw(st.sampled_from([v for v in pool if v.type == x.type]))
            pool += add(g, name, x, other)
        elif name == "t_two" and not x.type.size:
            continue
        else:
            pool += add(g, name, x)
    if updates:
        m = memory(g)
        versions = {m.cell[w] for w in g.params}
        for w in list(g.params):
            grads = [v for v in pool if v.type == w.type and m.cell[v] not in versions]
            if grads and draw(st.booleans()):
                (g.updates[w],) = add(g, "t_update", w, draw(st.sampled_from(grads)))
    outs = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4, unique=True))
    g.outputs = [g.updates.get(v, v) for v in outs if _survives(g, v)]
    return verify(g)


def _survives(g, v):
    """Whether a value is no view of a param that gets updated."""
    m = memory(g)
    return m.cell[v] not in {m.cell[w] for w in g.updates} or v in g.updates


def decode(op, words):
    attrs = {}
    for a, w in zip(op.attrs, words, strict=True):
        attrs[a.name] = float(np.int32(w).view(F)) if a.kind == "f32" else w
    return attrs


def execute(spec, entry, memory_of):
    """Run one entry on poisoned bytes; return a reader of tensors by index."""
    by_kernel = {op.kernel: op for op in OPS.values() if op.kernel}
    arena = np.full(entry.arena_bytes, 0xFF, np.uint8)
    regions = {"arena": arena, **memory_of}

    def view(i):
        t = spec.tensors[i]
        nbytes = Type(t.shape, t.dtype).nbytes
        if t.region == "weights":
            return spec.weights[t.weight].reshape(t.shape)
        raw = regions[t.region][t.offset:t.offset + nbytes]
        assert raw.size == nbytes
        return raw.view({"f32": F, "i32": np.int32, "u8": np.uint8}[t.dtype]).reshape(t.shape)

    for s in entry.steps:
        op = by_kernel[s.kernel]
        block = arena[s.scratch_offset:s.scratch_offset + s.scratch_bytes * spec.threads]
        assert block.size == s.scratch_bytes * spec.threads
        block[:] = 0xFF
        operands = [None if i is None else view(i) for i in s.operands]
        count = len(operands) - (2 if s.kernel == "t_two" else 1)
        inputs, outputs = operands[:count], operands[count:]
        result = op.reference(*inputs, **decode(op, s.words))
        block[:] = 0xFE
        for o, r in zip(outputs, result if isinstance(result, tuple) else (result,), strict=True):
            o[...] = r
    return view


def run_and_compare(spec, graphs_by_name):
    state = {"params": np.zeros(spec.param_bytes, np.uint8),
             "state": np.zeros(spec.state_bytes, np.uint8)}
    rng = np.random.default_rng(3)
    for entry in spec.entries:
        g = graphs_by_name[entry.name]
        regions = {**state, "io": np.full(spec.io_bytes, 0xFF, np.uint8)}
        for name, i in spec.params.items():
            t = spec.tensors[i]
            a = np.ascontiguousarray(spec.initial[name])
            regions["params"][t.offset:t.offset + a.nbytes] = a.reshape(-1).view(np.uint8)
        feeds = {v.name: rng.standard_normal(v.type.shape).astype(F) for v in g.inputs}
        for name, i in [*entry.inputs.items(), *((n, i) for n, (i, _) in spec.scalars.items())]:
            if name in feeds:
                t = spec.tensors[i]
                raw = feeds[name].reshape(-1).view(np.uint8)
                regions["io"][t.offset:t.offset + raw.size] = raw
        view = execute(spec, entry, regions)
        env = evaluate(g, feeds)
        for v in g.outputs:
            np.testing.assert_array_equal(view(entry.outputs[v.name]), env[v])
        for w in g.params:
            want = env[g.updates.get(w, w)]
            np.testing.assert_array_equal(view(spec.params[w.name]), want)


SLOW = settings(max_examples=100, deadline=None, derandomize=True,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck))


@SLOW
@given(graphs(), st.sampled_from([1, 3]))
def test_planned_bytes_compute_what_the_interpreter_computes(g, threads):
    spec = encode({"train": g}, threads=threads, isa="ref")
    run_and_compare(spec, {"train": g})
    entry = spec.entries[0]
    assert entry.any_order_bound_bytes <= entry.lower_bound_bytes <= entry.arena_bytes


@SLOW
@given(graphs())
def test_schedule_keeps_results_and_never_needs_more(g):
    needs = Needs(2, "ref")
    out = verify(schedule(g, scratch=needs.scratch))
    assert peak_bytes(out, needs.scratch) <= peak_bytes(g, needs.scratch)
    assert any_order_bound(memory(g, needs.scratch)) <= peak_bytes(out, needs.scratch)
    assert any_order_bound(memory(g)) == any_order_bound(memory(out))
    run_and_compare(encode({"a": out}, threads=2, isa="ref"), {"a": g})


@SLOW
@given(graphs())
def test_live_bytes_are_the_sum_of_the_buffers(g):
    needs = Needs(2, "ref")
    m = memory(g, needs.scratch)
    want = [0] * len(g.nodes)
    for b in buffers(m):
        if not b.output:
            for t in range(b.first, b.last + 1):
                want[t] += b.size
    assert live_bytes(m) == want


@SLOW
@given(graphs(), graphs(updates=False))
def test_entries_share_params_and_scalars(train, predict):
    """Two entries over the same params: the second one reads what the first one may update."""
    renamed = {v: w for v, w in zip(predict.params, train.params, strict=False)
               if v.type == w.type}
    for n in predict.nodes:
        n.inputs = tuple(renamed.get(v, v) for v in n.inputs)
    predict.outputs = [renamed.get(v, v) for v in predict.outputs]
    predict.params = {w: train.params[w] for w in renamed.values()}
    wanted = {v for n in predict.nodes for v in n.inputs} | set(predict.outputs)
    for v in set(wanted) - {v for n in predict.nodes for v in n.outputs}:
        if v not in predict.params and v not in predict.constants and v not in predict.inputs:
            predict.constants[v] = np.ones(v.type.shape, F)
    lr = Value("lr", Type((1,)))
    predict.inputs.append(lr)
    train.inputs.append(Value("lr", Type((1,))))
    verify(predict)
    spec = encode({"train": train, "predict": predict}, isa="ref", scalars={"lr": 0.5})
    run_and_compare(spec, {"train": train, "predict": predict})
    assert spec.tensors[spec.scalars["lr"][0]].offset == 0
    assert all("lr" not in e.inputs for e in spec.entries)


def chain():
    g = Graph()
    x = Value("x", Type((32,)))
    g.inputs.append(x)
    (a,) = add(g, "t_roll", x)
    (b,) = add(g, "t_scale", a, by=2.0)
    (c,) = add(g, "t_roll", b)
    g.outputs = [c]
    return g


def test_the_search_ends_where_there_is_but_one_order(monkeypatch):
    rounds = []
    plain = schedule_module._search

    def counted(*args):
        rounds.append(args)
        assert len(rounds) < 1000
        return plain(*args)

    monkeypatch.setattr(schedule_module, "any_order_bound", lambda m: 0)
    monkeypatch.setattr(schedule_module, "_search", counted)
    g = Graph()
    b = Builder(g)
    a = b.op("exp", b.input("x", Type((4,))), out="a")
    g.outputs = [b.op("reduce_sum", a, axes=(0,), keepdims=0, out="y")]
    assert [n.output.name for n in schedule(verify(g)).nodes] == ["a", "y"]
    assert rounds


def test_in_place_chain_takes_one_buffer():
    m = memory(chain())
    assert [(b.first, b.last, b.output) for b in buffers(m)] == [(0, 2, False), (2, 3, True)]
    assert live_bytes(m) == [128, 128, 128]


def test_update_runs_as_soon_as_every_read_of_the_old_version_is_done():
    g = Graph()
    x, w = Value("x", Type((64,))), Value("w", Type((64,)))
    g.inputs, g.params = [x], {w: np.ones(64, F)}
    (grad,) = add(g, "t_roll", x)
    (flat,) = add(g, "t_flat", w)
    (late,) = add(g, "t_roll", flat)
    (back,) = add(g, "t_back", late)
    (far,) = add(g, "t_roll", back)
    (out,) = add(g, "t_roll", far)
    (g.updates[w],) = add(g, "t_update", w, grad)
    g.outputs = [out]
    place = {n.output: k for k, n in enumerate(schedule(verify(g)).nodes)}
    read, made, update = place[late], place[grad], place[g.updates[w]]
    assert max(read, made) < update <= max(read, made) + 2  # at most a view in between


def test_recomputation_is_moved_to_where_it_is_read():
    g = Graph()
    x = Value("x", Type((256,)))
    g.inputs = [x]
    (early,) = add(g, "t_roll", x)
    v = x
    for _ in range(6):
        (v,) = add(g, "t_roll", v)
    (y,) = add(g, "t_add", v, early)
    (out,) = add(g, "t_roll", y)
    g.outputs = [out]
    before, after = peak_bytes(g), peak_bytes(schedule(verify(g)))
    assert (before, after) == (3 * 1024, 2 * 1024)


def test_outputs_that_are_inputs_constants_params_and_twice_the_same():
    g = Graph()
    x, w, c = (Value(n, Type((20,))) for n in "xwc")
    g.inputs, g.params, g.constants = [x], {w: np.ones(20, F)}, {c: np.full(20, 3, F)}
    (flat,) = add(g, "t_flat", c)
    (y,) = add(g, "t_roll", x)
    (g.updates[w],) = add(g, "t_update", w, y)
    (again,) = add(g, "t_flat", y)
    g.outputs = [x, g.updates[w], c, flat, y, again]
    spec = encode({"e": verify(g)}, isa="ref")
    run_and_compare(spec, {"e": g})
    tensors = [spec.tensors[i] for i in spec.entries[0].outputs.values()]
    assert {t.region for t in tensors} == {"io"}
    assert tensors[4].offset == tensors[5].offset


def test_equal_constants_are_stored_once_in_execution_order():
    g = Graph()
    a, b, c, unused = (Value(n, Type((20,))) for n in "abcu")
    x = Value("x", Type((20,)))
    g.inputs = [x]
    g.constants = {unused: np.ones(20, F), a: np.full(20, 2, F), b: np.full(20, 3, F),
                   c: np.full(20, 2, F)}
    (y,) = add(g, "t_add", x, b)
    (y,) = add(g, "t_add", y, a)
    (y,) = add(g, "t_add", y, c)
    g.outputs = [y]
    assert list(encode({"e": verify(g)}, isa="ref").weights) == ["b", "a"]


def test_scratch_is_the_maximum_over_instruction_sets_and_counts_for_each_thread(monkeypatch):
    sizes = {"ref": 10, "avx2": 200, "avx512": 130}
    monkeypatch.setattr(needs_module, "need", lambda op, t, s, a, isa: (1, sizes[isa]))
    one = encode({"e": chain()}, isa="avx512").entries[0]
    three = encode({"e": chain()}, isa="avx512", threads=3).entries[0]
    assert one.steps[0].scratch_bytes == 256
    assert three.arena_bytes == one.arena_bytes + 2 * 256


def test_chunks_that_depend_on_the_instruction_set_are_refused(monkeypatch):
    monkeypatch.setattr(needs_module, "need", lambda op, t, s, a, isa: (len(isa), 0))
    with pytest.raises(CompileError, match="chunks"):
        encode({"e": chain()}, isa="avx2")


def test_refusing_kernel_names_the_layer(monkeypatch):
    def refuse(*_):
        raise ValueError("t_roll: operands do not fit the kernel")

    monkeypatch.setattr(needs_module, "need", refuse)
    with pytest.raises(CompileError, match=r"refuses .*f32\[32\]"):
        encode({"e": chain()}, isa="ref")


def test_unknown_isa_is_refused():
    with pytest.raises(CompileError, match="isa='sse9'"):
        encode({"e": chain()}, isa="sse9")
