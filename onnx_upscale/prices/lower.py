"""From nodes to kernels, as onnxruntime's CPU provider fuses them and changes layouts.

1. What only renames or reshapes runs as no more than a call.
2. Activations, constant affine operators and sums that follow a convolution are part of it.
3. x * Sigmoid(x) is one kernel.
4. Convolutions and pooling make blocked tensors where their counts let them; elementwise nodes and
   Concat keep the layout where all that they read is blocked; everything else reads plain tensors.
5. Recurrent layers run as two products: with what they read, and with what they made a step before.
6. Whoever wants the other layout has the tensor reordered, once for all who want it.
7. Between quantized layers bytes go on as they are, with channels last: QuantizeLinear and
   DequantizeLinear are no kernels there, a Slice takes parts of rows, and a tensor is turned for a
   Gather, and turned back. Nodes that must have real numbers have them decoded, once for all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import chain

from onnx_upscale.prices.kernels import BLOCKED, Kernel, Widths, byte_convolution, convolution
from onnx_upscale.prices.program import Program, Shape, Step

_FREE = frozenset({"Constant", "Shape", "ConstantOfShape", "Range"})
_CALLS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast"})
# What convolutions take over; the second kind also stays blocked by itself.
_ACTIVATIONS = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"})
BOUNDS = frozenset({"Clip", "LeakyRelu"})
"""Those that blocked kernels leave to a pass of its own, and others do as they add the bias."""
_BLOCKED_ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Gelu", "QuickGelu"})
_COSTLY = frozenset(
    {"Sigmoid", "Tanh", "Gelu", "QuickGelu", "Erf", "Exp", "Softmax", "HardSigmoid", "HardSwish",
     "LayerNormalization", "GroupNormalization", "InstanceNormalization", "Pow", "Sqrt", "Elu"}
)  # fmt: skip
_BINARY = frozenset({"Add", "Mul", "Sub", "Div", "Sum"})
_ELEMENTWISE = _BINARY | _BLOCKED_ACTIVATIONS | {"BatchNormalization"}
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_BLOCKABLE = frozenset(
    {"Conv", "Concat", "BatchNormalization", *_POOLS, *_BLOCKED_ACTIVATIONS, *_FREE}
)
# What runs on 8-bit numbers between quantized layers.
_ON_BYTES = frozenset(
    {"Add", "Mul", "Concat", "LeakyRelu", "Sigmoid", "Softmax", "Relu", "Clip", "Resize", "Split",
     "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Where", *_POOLS}
)  # fmt: skip
_COPIES = {"Slice": "slice", "Pad": "slice", "Split": "slice", "Gather": "gather"}


def works_on_blocks(op: str, alike: bool, behind_convolution: bool) -> bool:
    """Whether a node leaves tensors in the blocked layout.

    Args:
        op: Its operator.
        alike: Whether it reads several tensors, all of one shape.
        behind_convolution: Whether it reads one, from a convolution, and is all that does.
    """
    if op in _BLOCKABLE or (op in _BINARY and alike):
        return True
    return behind_convolution and (op in _ACTIVATIONS or op in _BINARY)


def passing_family(op: str, operands: int) -> str:
    """The family of kernels of a node that works on each position by itself.

    Args:
        op: Its operator.
        operands: How many tensors it reads that are not constant.
    """
    if op in _BINARY and operands > 1:
        return "binary"
    return "costly" if op in _COSTLY else "scale" if op == "BatchNormalization" else "simple"


def _simple(step: Step, source: Shape, made: Shape) -> Kernel:
    return Kernel("simple", 1, 1, math.prod(made))


def _costly(step: Step, source: Shape, made: Shape) -> Kernel:
    return Kernel("costly", 1, 1, math.prod(made))


def _call(step: Step, source: Shape, made: Shape) -> Kernel:
    return Kernel("overhead", 1, 1, 1)


def _copy(step: Step, source: Shape, made: Shape) -> Kernel:
    axis = step.axis % max(len(made), 1)
    inputs, outputs = (shape[axis] if axis < len(shape) else 1 for shape in (source, made))
    family = _COPIES[step.op] + ("_last" if axis == len(made) - 1 else "")
    return Kernel(family, inputs, outputs, math.prod(made) // max(outputs, 1))


def _reduction(step: Step, source: Shape, made: Shape) -> Kernel:
    channels = source[1] if len(source) > 1 else 1
    elements = max(math.prod(made), 1)
    places = max(elements // max(channels, 1), 1)
    return Kernel("reduce", channels, channels, places, window=math.prod(source) // elements)


def _other_convolution(step: Step, source: Shape, made: Shape) -> Kernel:
    """One that is transposed, or not two-dimensional, or whose weight is no constant."""
    outputs = max(made[1] if len(made) > 1 else 1, 1)
    family = "unrolled" if step.groups == 1 else "grouped_plain"
    inputs, places = source[1] if len(source) > 1 else 1, math.prod(made) // outputs
    return Kernel(family, inputs, outputs, places, step.window, step.stride, step.groups)


_PLAIN: dict[str, Callable[[Step, Shape, Shape], Kernel]] = {
    **dict.fromkeys(_CALLS, _call),
    **dict.fromkeys(_COPIES, _copy),
    **dict.fromkeys(_COSTLY, _costly),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"), _reduction),
    **dict.fromkeys(("Conv", "ConvTranspose"), _other_convolution),
}


class _Lowering:
    """Kernels so far, and which tensors are where in which layout."""

    def __init__(self, program: Program, widths: Widths, on_bytes: bool) -> None:
        self.kernels: list[Kernel] = []
        self._shapes, self._widths = program.shapes, widths
        self._uses = Counter(chain.from_iterable(step.inputs for step in program.steps))
        self._blocked: set[str] = set()
        self._reordered: set[str] = set()
        self._convolved: set[str] = set()
        self._on_bytes = on_bytes
        self._bytes: set[str] = set()
        self._maker = {name: step for step in program.steps for name in step.outputs}

    def add(self, step: Step) -> None:
        """Takes one more node."""
        if step.op in _FREE or not step.inputs or not step.outputs:
            return
        if self._on_bytes and self._in_bytes(step):
            self._bytes.update(step.outputs)
            return
        self._decode(step)
        if step.weighted and step.op == "Conv" and self._rank(step.inputs[0]) == 4:
            self._convolution(step)
        elif step.op in ("MatMul", "Gemm"):
            self._product(step)
        elif step.weighted and step.op in _RECURRENT:
            self._recurrent(step)
        elif self._fused(step):
            self._alias(step)
        elif step.op in _POOLS and self._rank(step.inputs[0]) == 4:
            self._pool(step)
        elif step.op in _ELEMENTWISE:
            self._elementwise(step)
        elif step.op == "Concat":
            self._concat(step)
        else:
            self._plain(step)

    def _in_bytes(self, step: Step) -> bool:
        """Takes a node if bytes are all that it needs."""
        source, made = step.inputs[0], step.outputs[0]
        if step.op == "DequantizeLinear":
            return True
        if step.op == "QuantizeLinear":
            if source not in self._bytes:
                self._plain(step)
            return True
        if step.in_bytes:
            self.kernels.append(self._byte_layer(step))
            return True
        if not self._bytes.issuperset(step.inputs):
            return False
        if step.op not in _ON_BYTES and not step.op.startswith("QLinear"):
            return False
        kernel = _PLAIN.get(step.op, _simple)(step, self._shape(source), self._shape(made))
        if step.op in _COPIES and self._rank(source) == 4 and step.axis == 1:
            kernel = self._byte_copy(source, made, kernel)
        self.kernels.append(kernel)
        return True

    def _byte_layer(self, step: Step) -> Kernel:
        if step.op not in ("Conv", "QLinearConv", "ConvInteger"):
            return self._product_kernel("bytes_product", step)
        source, made = step.inputs[0], step.outputs[0]
        return byte_convolution(
            self._size(source)[0], *self._size(made),
            step.window, step.stride, step.groups, step.op != "ConvInteger",
        )  # fmt: skip

    def _byte_copy(self, source: str, made: str, kernel: Kernel) -> Kernel:
        if kernel.family != "gather":
            return kernel._replace(family="slice_last")
        for name, family in ((source, "reorder_out"), (made, "reorder_in")):
            self.kernels.append(self._passing(family, name))
        return kernel

    def _decode(self, step: Step) -> None:
        """Has what is bytes made into real numbers for a node that must have these."""
        for name in step.inputs if self._bytes else ():
            if name not in self._bytes:
                continue
            self._bytes.discard(name)
            self.kernels.append(Kernel("simple", 1, 1, math.prod(self._shape(name))))

    def _convolution(self, step: Step) -> None:
        source, made = step.inputs[0], step.outputs[0]
        kernel = convolution(
            self._size(source)[0], *self._size(made),
            step.window, step.stride, step.groups, self._widths,
        )  # fmt: skip
        blocked = kernel.family in (*BLOCKED, "scale")
        self._read(source, blocked and not kernel.family.startswith("few"))
        self._emit(kernel, made, blocked)
        self._convolved.add(made)

    def _product(self, step: Step) -> None:
        for name in step.inputs:
            self._read(name, False)
        self._emit(self._product_kernel("product", step), step.outputs[0], False)
        self._convolved.add(step.outputs[0])

    def _product_kernel(self, family: str, step: Step) -> Kernel:
        source, made = self._shape(step.inputs[0]), self._shape(step.outputs[0])
        inputs = source[step.axis] if step.weighted and step.axis < len(source) else source[-1]
        axis = step.made_axis if step.weighted and step.made_axis < len(made) else len(made) - 1
        return Kernel(family, inputs, made[axis], math.prod(made) // max(made[axis], 1))

    def _recurrent(self, step: Step) -> None:
        """Products with what is read at all steps, and with what was made one step before."""
        for name in step.inputs:
            self._read(name, False)
        source, units = self._shape(step.inputs[0]), self._shape(step.outputs[0])[-1]
        rows, places = units * step.window, math.prod(source) // max(source[-1], 1)
        self.kernels += [Kernel("product", inputs, rows, places) for inputs in (source[-1], units)]

    def _fused(self, step: Step) -> bool:
        """Whether the kernel before does a node's work as well."""
        made = [name for name in step.inputs if name in self._convolved and self._uses[name] == 1]
        if not made:
            return False
        alone = len(step.inputs) == 1
        maker = self._maker[made[0]].op
        if maker in ("MatMul", "Gemm"):
            return alone and step.op == "Add"
        if alone:
            return step.op in _ACTIVATIONS or step.op in (*_BINARY, "BatchNormalization")
        layouts = {name in self._blocked for name in step.inputs}
        same = len({self._shape(name) for name in step.inputs}) == 1
        return step.op == "Add" and len(layouts) == 1 and same

    def _alias(self, step: Step) -> None:
        """What is fused leaves its result where the convolution's would be."""
        own = next(n for n in step.inputs if n in self._convolved and self._uses[n] == 1)
        made = step.outputs[0]
        self._convolved.add(made)
        self._maker[made] = self._maker[own]
        if own in self._blocked:
            self._blocked.add(made)
        # Kernels for any count add the bias in a pass of its own, and bound values in it; blocked
        # ones do Relu as they go, and anything else in one more pass.
        free = {"Relu"} if own in self._blocked else {"Relu", *BOUNDS}
        if step.op in _ACTIVATIONS - free:
            self.kernels.append(self._passing("fused", made))

    def _pool(self, step: Step) -> None:
        source, made = step.inputs[0], step.outputs[0]
        channels, window = self._size(source)
        blocked = channels % self._widths.block == 0
        if not step.op.startswith("Global"):
            window = step.window
        self._read(source, blocked)
        family, places = "pool" if blocked else "pool_plain", self._size(made)[1]
        self._emit(Kernel(family, channels, channels, places, window, step.stride), made, blocked)

    def _elementwise(self, step: Step) -> None:
        names, op = step.inputs, step.op
        made = step.outputs[0]
        blocked = all(name in self._blocked for name in names)
        if op == "Mul" and len(names) == 2 and self._gated(names):
            # One kernel with the Sigmoid, which was counted where it stood.
            self._blocked |= {made} if blocked else set()
            return
        blocked &= len({self._shape(name) for name in names}) == 1
        blocked &= op not in _BINARY or len(names) > 1
        for name in names:
            self._read(name, blocked)
        self._emit(self._passing(passing_family(op, len(names)), made), made, blocked)
        if op == "BatchNormalization" and blocked:
            self._convolved.add(made)  # It is a convolution there, and takes over what follows.

    def _gated(self, names: tuple[str, ...]) -> bool:
        """Whether one factor is the Sigmoid of the other, and of nobody else's concern."""
        for one, other in (names, names[::-1]):
            maker = self._maker.get(one)
            if maker is not None and maker.op == "Sigmoid" and maker.inputs == (other,):
                return self._uses[one] == 1
        return False

    def _concat(self, step: Step) -> None:
        made = step.outputs[0]
        blocked = step.axis == 1 and all(
            name in self._blocked and self._size(name)[0] % self._widths.block == 0
            for name in step.inputs
        )
        for name in step.inputs:
            self._read(name, blocked)
        self._emit(self._passing("concat", made), made, blocked)

    def _plain(self, step: Step) -> None:
        """Anything else: copies, reductions, and what there are no prices of its own for."""
        for name in step.inputs:
            self._read(name, False)
        source, made = self._shape(step.inputs[0]), self._shape(step.outputs[0])
        self._emit(_PLAIN.get(step.op, _simple)(step, source, made), step.outputs[0], False)

    def _emit(self, kernel: Kernel, made: str, blocked: bool) -> None:
        self.kernels.append(kernel)
        if blocked:
            self._blocked.add(made)

    def _read(self, name: str, blocked: bool) -> None:
        """Has a tensor reordered if it is in the other layout and was not before."""
        if (name in self._blocked) == blocked or name in self._reordered:
            return
        self._reordered.add(name)
        self.kernels.append(self._passing("reorder_in" if blocked else "reorder_out", name))

    def _shape(self, name: str) -> Shape:
        return self._shapes.get(name) or (1,)

    def _rank(self, name: str) -> int:
        return len(self._shape(name))

    def _size(self, name: str) -> tuple[int, int]:
        """The channels of a tensor, and the positions of each."""
        shape = self._shape(name)
        channels = shape[1] if len(shape) > 1 else 1
        return channels, max(math.prod(shape) // max(channels, 1), 1)

    def _passing(self, family: str, name: str) -> Kernel:
        """A kernel that does the same to every channel of a tensor."""
        channels, places = self._size(name)
        return Kernel(family, channels, channels, places)


def lower(program: Program, widths: Widths, on_bytes: bool = True) -> tuple[Kernel, ...]:
    """The kernels that a program runs as.

    Args:
        program: The nodes.
        widths: The counts that fast convolutions take.
        on_bytes: Whether quantized layers run on 8-bit numbers.

    Returns:
        The kernels in their order.
    """
    lowering = _Lowering(program, widths, on_bytes)
    for step in program.steps:
        lowering.add(step)
    return tuple(lowering.kernels)
