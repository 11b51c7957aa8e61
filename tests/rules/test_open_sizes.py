"""Models whose shapes nobody declared: channels leave, and the result is right at every size.

Each case is a way in which exporters and optimizers leave shapes open. What is expected comes from
the original model with zeros in its weights, so that nothing of the package takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net, assert_close, run, weight_shape

GONE = (1, 2, 5)
Shape = Sequence[int | str]


@dataclass(frozen=True)
class OpenCase:
    """A model with a reader of which some input channels are masked.

    Attributes:
        build: Makes the model; the masked layer is called "reader".
        inputs: Shapes of its inputs.
        opset: Its operator set.
        axis: Axis of the channels in the weight of the reader.
        places: How many places in a row of that axis belong to one channel.
        writer: A layer that loses these channels, and how many it then has.
        sizes: What the names stand for, each time it runs.
    """

    build: Callable[[Net], str]
    inputs: Mapping[str, Shape]
    writer: tuple[str, tuple[int, ...]]
    opset: int = 17
    axis: int = 0
    places: int = 1
    sizes: Sequence[Mapping[str, int]] = ({"n": 1, "s": 5, "h": 8, "w": 8}, {"n": 3, "s": 7})


def model_of(case: OpenCase) -> onnx.ModelProto:
    net = Net(case.opset, 0, **case.inputs)
    out = case.build(net)
    graph = helper.make_graph(net.nodes, "net", net.inputs, [], net.initializers)
    graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, None))
    imports = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def zeroed(model: onnx.ModelProto, axis: int, gone: list[int]) -> onnx.ModelProto:
    """The model with the masked slices of the reader's weight zeroed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    reader = next(node for node in copy.graph.node if node.name == "reader")
    for tensor in copy.graph.initializer:
        if tensor.name == reader.input[1]:
            values = numpy_helper.to_array(tensor).copy()
            values[(slice(None),) * axis + (gone,)] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def feed(case: OpenCase, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(sum(sizes.values()))
    first = case.sizes[0]
    return {
        name: rng.standard_normal(
            [size if isinstance(size, int) else sizes.get(size, first[size]) for size in shape]
        ).astype(np.float32)
        for name, shape in case.inputs.items()
    }


def size_of(net: Net, x: str, axis: int, opset: int) -> str:
    """The size of an axis as torch's exporter writes it, as a vector."""
    size = net("Gather", net("Shape", x), np.array(axis, np.int64), axis=0)
    return net("Unsqueeze", size, net.ints(0)) if opset >= 13 else net("Unsqueeze", size, axes=[0])


def sized(net: Net, x: str, *sizes: int | str) -> str:
    """A Reshape; a text is a vector that holds a size."""
    parts = [each if isinstance(each, str) else net.ints(each) for each in sizes]
    return net("Reshape", x, net("Concat", *parts, axis=0))


def view(opset: int) -> Callable[[Net], str]:
    """`x.view(x.size(0), -1)` before a Linear, which reads 9 places of each channel."""

    def build(net: Net) -> str:
        hidden = net(
            "Relu", net("Conv", "x", net.random(8, 3, 3, 3), name="writer", strides=[2, 2])
        )
        flat = sized(net, hidden, size_of(net, hidden, 0, opset), -1)
        made = net("Gemm", flat, net.random(72, 6), net.random(6), name="reader")
        return net("Gemm", made, net.random(6, 2), net.random(2))

    return build


def flattened(net: Net) -> str:
    """Only its weight tells that a Linear reads a single place of each channel."""
    hidden = net("Relu", net("Conv", "x", net.random(8, 3, 1, 1), name="writer"))
    flat = sized(net, hidden, size_of(net, hidden, 0, 17), -1)
    return net("Gemm", flat, net.random(8, 2), net.random(2), name="reader")


def tokens(net: Net, x: str, channels: int = 8) -> str:
    """(n, s, C) from an input of any size."""
    return net("MatMul", x, net.random(4, channels), name="tokens")


def heads(net: Net) -> str:
    """Another tensor is viewed in heads of `C // 4`, which is computed at run time."""
    x = net("Relu", net("MatMul", "x", net.random(4, 8), name="writer"))
    n, s, c = (size_of(net, x, axis, 17) for axis in range(3))
    split = sized(net, tokens(net, "x"), n, s, 4, net("Div", c, net.ints(4)))
    turned = net("Transpose", split, perm=[0, 2, 1, 3])
    scores = net("Softmax", net("MatMul", turned, net("Transpose", turned, perm=[0, 1, 3, 2])))
    back = net("Transpose", net("MatMul", scores, turned), perm=[0, 2, 1, 3])
    whole = net("MatMul", sized(net, back, n, s, c), net.random(8, 2))
    return net("Add", whole, net("MatMul", x, net.random(8, 2), name="reader"))


def borrowed(operator: str) -> Callable[[Net], str]:
    """A tensor without channels gets a size that is read from channels that leave."""

    def build(net: Net) -> str:
        x = net("Relu", net("MatMul", "x", net.random(4, 8), name="writer"))
        n, s, c = (size_of(net, x, axis, 17) for axis in range(3))
        if operator == "Reshape":
            other = sized(net, net("Concat", "x", "x", axis=2), n, s, c)
        else:
            pooled = net("ReduceMean", "x", axes=[2])
            other = net("Expand", pooled, net("Concat", n, s, c, axis=0))
        seen = net("ReduceMax", other, axes=[2])
        return net("Add", seen, net("MatMul", x, net.random(8, 2), name="reader"))

    return build


def mlp(net: Net, x: str) -> str:
    hidden = net("Relu", net("MatMul", x, net.random(8, 8), name="writer"))
    return net("MatMul", hidden, net.random(8, 2), name="reader")


def conv1d(net: Net) -> str:
    """GPT-2's Conv1D: a matrix product on rows, and the view back."""
    x = tokens(net, "x")
    n, s, c = (size_of(net, x, axis, 17) for axis in range(3))
    rows = net("Reshape", x, net("Concat", net.ints(-1), c, axis=0))
    hidden = net("Gemm", rows, net.random(8, 8), net.random(8), name="writer")
    wide = net("Tanh", sized(net, hidden, n, s, 8))
    rows = sized(net, wide, -1, size_of(net, wide, 2, 17))
    made = net("Gemm", rows, net.random(8, 2), net.random(2), name="reader")
    return sized(net, made, n, s, 2)


def old_arithmetic(opset: int) -> Callable[[Net], str]:
    """A matrix product behind views of older operator sets, whose shapes onnx does not follow."""

    def build(net: Net) -> str:
        x = net("Reshape", "x", net.ints(0, 0, 4, 2))
        parts = [size_of(net, x, axis, opset) for axis in (0, 1)]
        return mlp(net, sized(net, net("Relu", x), *parts, -1))

    return build


def image_and_back(net: Net) -> str:
    """Tokens become an image whose sides are both open, as in SegFormer."""
    image = net("Conv", "x", net.random(4, 3, 1, 1))
    n, h, w = (size_of(net, image, axis, net.opset) for axis in (0, 2, 3))
    rows = net("Transpose", sized(net, image, n, 4, -1), perm=[0, 2, 1])
    hidden = net("Transpose", net("MatMul", rows, net.random(4, 8), name="writer"), perm=[0, 2, 1])
    wide = net("Relu", sized(net, hidden, n, 8, h, w))
    return net("Conv", wide, net.random(2, 8, 3, 3), name="reader", pads=[1] * 4)


def token_in_front(net: Net) -> str:
    """A learned token, expanded as torch writes it: -1 stands for the size that is there."""
    x = net("MatMul", "x", net.random(4, 8), name="writer")
    n = size_of(net, x, 0, 17)
    wanted = net("Concat", n, net.ints(-1), net.ints(-1), axis=0)
    ones = net("ConstantOfShape", net("Shape", wanted), value=ones_of(1))
    minus = net("Mul", ones, net.ints(-1))
    shape = net("Where", net("Equal", wanted, minus), ones, wanted)
    token = net("Expand", net.random(1, 1, 8), shape)
    both = net("Concat", token, x, axis=1)
    return net("MatMul", net("Relu", both), net.random(8, 2), name="reader")


def ones_of(value: int) -> TensorProto:
    return numpy_helper.from_array(np.array([value], np.int64))


def windows(net: Net) -> str:
    """What is cut off and padded is computed from sizes, as in Swin."""
    image = net("Relu", net("Conv", "x", net.random(8, 3, 1, 1), name="writer"))
    side = size_of(net, image, 2, 17)
    lacks = net("Mod", net("Sub", net.ints(5), net("Mod", side, net.ints(5))), net.ints(5))
    pads = net("Concat", net.ints(0, 0, 0, 0, 0, 0), lacks, net.ints(0), axis=0)
    padded = net("Pad", image, pads)
    cut = net("Slice", padded, net.ints(0), side, net.ints(2))
    return net("Conv", cut, net.random(2, 8, 1, 1), name="reader")


def sized_scale(net: Net) -> str:
    """The count of channels is a factor: it stays what it was though channels leave."""
    hidden = net("Relu", net("MatMul", "x", net.random(4, 8), name="writer"))
    count = net("Cast", net("Gather", net("Shape", hidden), np.array(2, np.int64)), to=1)
    scaled = net("Div", hidden, net("Sqrt", count))
    return net("MatMul", scaled, net.random(8, 2), name="reader")


def group_norm(net: Net) -> str:
    first = net("Conv", "x", net.random(4, 3, 1, 1))
    normed = net("GroupNormalization", first, net.random(4), net.random(4), num_groups=2)
    hidden = net("Relu", net("Conv", normed, net.random(8, 4, 1, 1), name="writer"))
    return net("Conv", hidden, net.random(2, 8, 1, 1), name="reader")


def fused(net: Net) -> str:
    """As onnxruntime's optimizer leaves it: operators that onnx does not know."""
    scale = net.random(4)
    normed = net("SkipLayerNormalization", "x", "x", scale, scale, domain="com.microsoft")
    hidden = net("Relu", net("MatMul", normed, net.random(4, 8), name="writer"))
    return net("MatMul", hidden, net.random(8, 2), name="reader")


def seen_running(net: Net) -> str:
    """Only a run shows what an operator makes that neither onnx nor a table knows."""
    turned = net("FusedMatMul", "x", net.random(4, 4), domain="com.microsoft", transB=1)
    hidden = net("Relu", net("MatMul", turned, net.random(4, 8), name="writer"))
    return net("MatMul", hidden, net.random(8, 2), name="reader")


def position_table(net: Net) -> str:
    """A network on constant coordinates makes a table that is added to what depends on inputs."""
    grid = net.random(5, 2)
    hidden = net(
        "Relu", net("Add", net("MatMul", grid, net.random(2, 8), name="writer"), net.random(8))
    )
    table = net("MatMul", hidden, net.random(8, 4), name="reader")
    rows = net("Gather", table, net.ints(0, 3, 4), axis=0)
    return net("Add", net("Slice", "x", net.ints(0), net.ints(3), net.ints(1)), rows)


X = {"x": ("n", 3, 8, 8)}
OPEN = {"x": ("n", 3, "h", "w")}
TOKENS = {"x": ("n", "s", 4)}
CASES = {
    **{
        f"view-{opset}": OpenCase(view(opset), X, ("writer", (5, 3, 3, 3)), opset, places=9)
        for opset in (9, 11, 12, 13, 17)
    },
    "view-open": OpenCase(
        view(17),
        OPEN,
        ("writer", (5, 3, 3, 3)),
        places=9,
        sizes=({"n": 1, "h": 8, "w": 8}, {"n": 4, "h": 7}),
    ),
    "flattened": OpenCase(
        flattened, OPEN, ("writer", (5, 3, 1, 1)), sizes=({"n": 1, "h": 1, "w": 1}, {"n": 4})
    ),
    "heads": OpenCase(heads, TOKENS, ("writer", (4, 5))),
    "borrowed-Reshape": OpenCase(borrowed("Reshape"), TOKENS, ("writer", (4, 5))),
    "borrowed-Expand": OpenCase(borrowed("Expand"), TOKENS, ("writer", (4, 5))),
    "conv1d": OpenCase(conv1d, TOKENS, ("writer", (8, 5))),
    **{
        f"older-{opset}": OpenCase(
            old_arithmetic(opset), {"x": ("n", "s", 8)}, ("writer", (8, 5)), opset
        )
        for opset in (9, 11, 12)
    },
    "image-and-back": OpenCase(
        image_and_back,
        OPEN,
        ("writer", (4, 5)),
        axis=1,
        sizes=({"n": 1, "h": 8, "w": 6}, {"n": 2, "h": 5, "w": 9}),
    ),
    # Before operator set 9 nothing can put a size beside others that only a run shows.
    **{
        f"image-and-back-{opset}": OpenCase(
            image_and_back,
            OPEN,
            ("writer", (4, 8 if opset < 9 else 5)),
            opset,
            axis=1,
            sizes=({"n": 1, "h": 8, "w": 6}, {"n": 2, "h": 5, "w": 9}),
        )
        for opset in (8, 9)
    },
    "token": OpenCase(token_in_front, TOKENS, ("writer", (4, 5))),
    "windows": OpenCase(windows, {"x": ("n", 3, 8, 6)}, ("writer", (5, 3, 1, 1)), axis=1),
    "windows-open": OpenCase(
        windows,
        OPEN,
        ("writer", (8, 3, 1, 1)),
        axis=1,
        sizes=({"n": 1, "h": 7, "w": 6}, {"n": 2, "h": 9}),
    ),
    "scale": OpenCase(sized_scale, TOKENS, ("writer", (4, 5))),
    "group-norm-18": OpenCase(
        lambda net: group_norm_18(net), X, ("writer", (5, 4, 1, 1)), 18, axis=1
    ),
    "group-norm-21": OpenCase(group_norm, X, ("writer", (5, 4, 1, 1)), 21, axis=1),
    "fused": OpenCase(fused, TOKENS, ("writer", (4, 5))),
    "seen-running": OpenCase(seen_running, TOKENS, ("writer", (4, 5))),
    "position-table": OpenCase(position_table, {"x": ("n", "s", 4)}, ("writer", (2, 5))),
}


def group_norm_18(net: Net) -> str:
    first = net("Conv", "x", net.random(4, 3, 1, 1))
    normed = net("GroupNormalization", first, net.random(2), net.random(2), num_groups=2)
    hidden = net("Relu", net("Conv", normed, net.random(8, 4, 1, 1), name="writer"))
    return net("Conv", hidden, net.random(2, 8, 1, 1), name="reader")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("strategy", ["gather", "auto"])
def test_channels_leave_and_every_size_is_right(name: str, strategy: str) -> None:
    case = CASES[name]
    model = model_of(case)
    gone = [channel * case.places + place for channel in GONE for place in range(case.places)]
    masks = {"version": 1, "masks": {"reader": {"input": gone}}}
    inputs = {key: tuple(value.shape) for key, value in feed(case, case.sizes[0]).items()}
    result = onnx_upscale.optimize(model, masks, strategy=strategy, inputs=inputs)
    if strategy == "gather":
        writer, shape = case.writer
        assert weight_shape(result.model, writer) == shape
    expected = zeroed(model, case.axis, gone)
    for sizes in case.sizes:
        values = feed(case, sizes)
        assert_close(run(expected, values), run(result.model, values), f"{name} at {sizes}")
