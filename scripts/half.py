"""Weights as fp16: half the file, cast back to fp32 where they are used; by export.py and quantize.py."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import package

PRODUCTS = ("Conv", "Gemm", "MatMul", "Gather")  # what reads a weight; an embedding is a Gather


def store(source, path):
    """Stores the fp32 weights of convolutions, linear layers and embeddings as fp16, cast back to fp32 where they are used.

    Biases and norms stay fp32, and so does every constant that is no weight: the time embedding's frequencies are
    multiplied by t, and would turn its waves by 0.08 rad at t = 999.
    """
    model = onnx.load(source)
    graph, casts = model.graph, []
    read = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    for tensor in graph.initializer:
        if tensor.name not in read or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_fp16")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    package.save_onnx(model, path)


def widen(source, path):
    """`store` backwards: an ONNX file whose fp16 weights become fp32 of the same values."""
    model = onnx.load(source)
    graph = model.graph
    half = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in half:
            tensor = half.pop(node.input[0])
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        else:
            kept.append(node)
    assert not half, f"{source}: {', '.join(half)} is fp16 and not cast to fp32"
    del graph.node[:]
    graph.node.extend(kept)
    package.save_onnx(model, path)
