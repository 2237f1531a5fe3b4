import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.fixture
def build():
    """build(nodes, inputs, outputs, weights, opset=17): a ModelProto from short arguments."""

    def make(nodes, inputs, outputs, weights=None, *, opset=17, ml=False, functions=()):
        def infos(spec):
            return [v if isinstance(v, onnx.ValueInfoProto) else value(*v) for v in spec]

        graph = helper.make_graph(
            nodes, "g", infos(inputs), infos(outputs),
            [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()],
        )
        imports = [helper.make_opsetid("", opset)]
        if ml:
            imports.append(helper.make_opsetid("ai.onnx.ml", 1))
        imports += [helper.make_opsetid(f.domain, 1) for f in functions]
        return helper.make_model(
            graph, opset_imports=imports, functions=list(functions), ir_version=10,
            producer_name="test",
        )

    return make


@pytest.fixture
def agrees():
    """agrees(model, batch, shapes): interpreter and ONNX Runtime agree on random inputs."""
    import onnxruntime as ort

    from edgeloop.importer import load_model
    from edgeloop.ops import evaluate

    def check(model, batch, shapes=None, oracle=None):
        imported = load_model(model, batch=batch, shapes=shapes)
        rng = np.random.default_rng(5)
        feeds = {
            n: rng.standard_normal(t.shape).astype(np.float32) for n, t in imported.inputs.items()
        }
        env = evaluate(imported.graph, feeds)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Optimized, ONNX Runtime computes some products of quantized weights in int8.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        oracle = model if oracle is None else oracle
        data = oracle.SerializeToString() if isinstance(oracle, onnx.ModelProto) else str(oracle)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        rows = {i.name: i.shape[0] for i in session.get_inputs()}
        size = {n: r if isinstance(r, int) else batch for n, r in rows.items()}
        count = {len(a) // size[n] for n, a in feeds.items()}.pop()
        for out, v in zip(imported.outputs, imported.graph.outputs, strict=True):
            parts = []
            for k in range(count):
                rows = {n: a[k * size[n]:(k + 1) * size[n]] for n, a in feeds.items()}
                parts += session.run([out], rows)
            expected = np.concatenate(parts)
            assert env[v].shape == expected.shape
            assert np.abs(env[v] - expected).max() <= 1e-5 * np.abs(expected).max()
        return imported

    return check
