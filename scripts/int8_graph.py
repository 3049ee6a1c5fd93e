"""What is done to a network's graph around its quantization, by quantize.py.

Before: a convolution of a concatenation becomes one for each part.
After: only convolutions read rounded values, and their biases make good what they lose on average.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import package


def convolutions(model):
    """The graph's convolutions."""
    return [node for node in model.graph.node if node.op_type == "Conv"]


def split_concatenations(model):
    """Makes every convolution of a concatenation, in place, a sum of one convolution for each of its parts.

    What comes up through the network and what comes across are of other sizes, and one scale for both would waste the
    levels of the smaller. Where a norm stands between, it has made them alike; so this is about shortcuts.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    channels = part_channels(model)
    nodes = []
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "Conv" else None
        concatenates = maker is not None and maker.op_type == "Concat" and maker.attribute[0].i == 1
        if not concatenates or node.input[1] not in weights or any(a.name == "group" and a.i != 1 for a in node.attribute):
            nodes.append(node)
            continue
        weight = weights.pop(node.input[1])
        array = numpy_helper.to_array(weight)
        graph.initializer.remove(weight)
        cuts = np.cumsum([channels[part] for part in maker.input])[:-1]
        results = []
        for index, (part, own) in enumerate(zip(maker.input, np.split(array, cuts, axis=1))):
            name = f"{weight.name.removesuffix('.weight')}.{index}"
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(own), f"{name}.weight"))
            bias = node.input[2:] if index == 0 else []
            results.append(f"{node.output[0]}.{index}")
            own_node = helper.make_node("Conv", [part, f"{name}.weight", *bias], [results[-1]], name=f"{node.name}.{index}")
            own_node.attribute.extend(node.attribute)
            nodes.append(own_node)
        for index in range(1, len(results)):
            total = node.output[0] if index == len(results) - 1 else f"{node.output[0]}.sum{index}"
            nodes.append(helper.make_node("Add", [results[0], results[index]], [total], name=f"{node.name}.sum{index}"))
            results[0] = total
    del graph.node[:]
    graph.node.extend(nodes)


def part_channels(model):
    """The channels (axis 1) of every value of a graph whose shape can be told."""
    shapes = onnx.shape_inference.infer_shapes(model).graph
    values = [*shapes.value_info, *shapes.input, *shapes.output]
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    return {name: shape[1] for name, shape in sizes.items() if len(shape) > 1}


def round_for_convolutions_alone(model):
    """Gives whoever reads a rounded value and is no convolution of levels the float value again, in place.

    The quantizer makes norms, residuals, concatenations and convolutions that stay float read what was rounded for
    another convolution; they compute in float and need not.
    """
    makers = {output: node for node in model.graph.node for output in node.output}

    def unrounded(name):
        maker = makers.get(name)
        source = makers.get(maker.input[0]) if maker is not None and maker.op_type == "DequantizeLinear" else None
        return source.input[0] if source is not None and source.op_type == "QuantizeLinear" else name

    for node in model.graph.node:
        weights = makers.get(node.input[1]) if node.op_type == "Conv" else None
        of_levels = weights is not None and weights.op_type == "DequantizeLinear"
        if not of_levels and node.op_type not in ("DequantizeLinear", "QuantizeLinear"):
            node.input[:] = [unrounded(name) for name in node.input]


def lost_means(source, quantized, inputs):
    """What the answer of every quantized convolution lacks on average, per channel: by its name, float64 `[c]`.

    `source` is the float network and `quantized` its QDQ form, in which the convolutions have the same names. Each is
    asked at the float network's own values, so that what others lost is not counted again.
    """
    model, graph = onnx.load(source), onnx.load(quantized).graph
    makers = {output: node for node in graph.node for output in node.output}
    of_levels = {node.name: node for node in graph.node if node.op_type == "Conv" and node.input[1] in makers}
    wanted, losses = set(), []
    for node in convolutions(model):
        if node.name not in of_levels:
            continue
        back, weights = (makers[name] for name in of_levels[node.name].input[:2])
        rounded, again, answer, loss = (f"{node.name}.{part}" for part in ("rounded", "again", "answer", "loss"))
        levels = makers[back.input[0]]
        copies = [
            helper.make_node("QuantizeLinear", [node.input[0], *levels.input[1:]], [rounded]),
            helper.make_node("DequantizeLinear", [rounded, *back.input[1:]], [again]),
            helper.make_node("DequantizeLinear", weights.input, [f"{node.name}.weights"], axis=0),
            helper.make_node("Conv", [again, f"{node.name}.weights", *node.input[2:]], [answer]),
            helper.make_node("Sub", [node.output[0], answer], [f"{node.name}.difference"]),
            helper.make_node("ReduceMean", [f"{node.name}.difference"], [loss], axes=[0, 2, 3], keepdims=0),
        ]
        copies[3].attribute.extend(node.attribute)
        model.graph.node.extend(copies)
        model.graph.output.append(helper.make_tensor_value_info(loss, TensorProto.FLOAT, None))
        wanted.update([*levels.input[1:], *back.input[1:], *weights.input])
        losses.append((node.name, loss))
    model.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in wanted)
    session = package.session(model.SerializeToString())
    answers = [session.run([loss for _, loss in losses], feed) for feed in inputs]
    return {name: np.mean(found, axis=0, dtype=np.float64) for (name, _), found in zip(losses, zip(*answers))}


def give_back(model, means):
    """Adds to the biases of convolutions, in place, what they would lose on average; `means` as of `lost_means`.

    What a picture loses on average in all its pixels, no later step takes for noise.
    """
    biases = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in convolutions(model):
        if node.name not in means:
            continue
        own = numpy_helper.to_array(biases[node.input[2]]) if len(node.input) > 2 else 0.0
        name = f"{node.name}.bias"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(own + means[node.name]), name))
        node.input[2:] = [name]
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
