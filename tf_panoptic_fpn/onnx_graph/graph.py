"""ONNX graphs by calls: a call is a node, what it returns a `Value` with operators."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18  # the first with everything that is used; runtimes of 2023 know it
IR_VERSION = 8
DTYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
Operand = Any  # a `Value`, or what `Graph.constant` takes
Dims = Sequence[int | str | None]


class Value:
    """An output of a node. Operators make nodes; numbers become constants of the default dtype."""

    def __init__(self, graph: "Graph", name: str) -> None:
        self.graph = graph
        self.name = name

    def __add__(self, other: Operand) -> "Value":
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Operand) -> "Value":
        return self.graph.op("Sub", self, other)

    def __rsub__(self, other: Operand) -> "Value":
        return self.graph.op("Sub", other, self)

    def __mul__(self, other: Operand) -> "Value":
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other: Operand) -> "Value":
        return self.graph.op("Div", self, other)

    def __floordiv__(self, other: Operand) -> "Value":
        return self.graph.op("Div", self, other)  # whole numbers, which are not negative here

    def __mod__(self, other: Operand) -> "Value":
        return self.graph.op("Mod", self, other)

    def __gt__(self, other: Operand) -> "Value":
        return self.graph.op("Greater", self, other)

    def __ge__(self, other: Operand) -> "Value":
        return self.graph.op("GreaterOrEqual", self, other)

    def __le__(self, other: Operand) -> "Value":
        return self.graph.op("LessOrEqual", self, other)

    def __and__(self, other: Operand) -> "Value":
        return self.graph.op("And", self, other)

    def equals(self, other: Operand) -> "Value":
        return self.graph.op("Equal", self, other)

    def cast(self, dtype: str) -> "Value":
        return self.graph.op("Cast", self, to=DTYPES[dtype])


class Graph:
    """A graph that is written from its inputs to its outputs.

    Within the body of a `loop` nodes go to the body, which may read everything outside.
    """

    def __init__(self) -> None:
        self._scopes: list[list[onnx.NodeProto]] = [[]]
        self._initializers: list[onnx.TensorProto] = []
        self._known: dict[tuple, Value] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, dtype: str, dims: Dims, default: Any = None) -> Value:
        """Adds an input; with a `default` it may be left out."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], dims))
        if default is not None:
            self._initializers.append(numpy_helper.from_array(np.array(default, dtype), name))
        return Value(self, name)

    def output(self, value: Value, name: str, dtype: str, dims: Dims) -> None:
        self._scopes[-1].append(helper.make_node("Identity", [value.name], [name], name))
        self._outputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], dims))

    def constant(self, value: Any) -> Value:
        """Returns a constant: ints are int64, floats float32, arrays keep their dtype."""
        if not isinstance(value, (np.ndarray, np.generic)):
            value = np.array(value)
            if value.dtype == np.float64:
                value = value.astype(np.float32)
        key = (value.dtype.str, value.shape, value.tobytes()) if value.size < 64 else None
        if key is None or key not in self._known:
            result = Value(self, self._name("constant"))
            array = np.ascontiguousarray(value).reshape(value.shape)
            self._initializers.append(numpy_helper.from_array(array, result.name))
            if key is None:
                return result
            self._known[key] = result
        return self._known[key]

    def op(self, kind: str, *inputs: Operand, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; an input of None is left out.

        Returns:
            Its `Value`, or a list of them if `outputs` is above 1.
        """
        names = [self._name_of(value) for value in inputs]
        while len(names) > 2 and not names[-1]:  # a loop needs two
            names.pop()
        values = [Value(self, self._name(kind)) for _ in range(outputs)]
        results = [value.name for value in values]
        self._scopes[-1].append(helper.make_node(kind, names, results, results[0], **attributes))
        return values[0] if outputs == 1 else values

    def loop(
        self,
        count: Value,
        body: Callable[..., tuple[Sequence[Value], Sequence[Value]]],
        states: Sequence[Operand] = (),
        scans: int = 0,
    ) -> list[Value]:
        """Adds a loop.

        Args:
            count: int64 `[]`, how often the body runs.
            body: called with the iteration, int64 `[]`, and the states; returns the new states and
                `scans` values, which are stacked.
            states: what the first iteration is given.
            scans: int.

        Returns:
            List of the last states and of the stacks.
        """
        given = [self.op("Identity", state) for state in states]
        iteration, keep_on, *inner = (
            Value(self, self._name("loop")) for _ in range(2 + len(given))
        )
        self._scopes.append([])
        new_states, stacked = body(iteration, *inner)
        on = self.op("Identity", keep_on)
        # An output of a body must come from a node of its own.
        results = [self.op("Identity", value) for value in (*new_states, *stacked)]
        assert len(new_states) == len(given) and len(stacked) == scans
        nodes = self._scopes.pop()
        inputs = [
            helper.make_tensor_value_info(iteration.name, TensorProto.INT64, []),
            helper.make_tensor_value_info(keep_on.name, TensorProto.BOOL, []),
            *(onnx.ValueInfoProto(name=value.name) for value in inner),
        ]
        outputs = [
            helper.make_tensor_value_info(on.name, TensorProto.BOOL, []),
            *(onnx.ValueInfoProto(name=value.name) for value in results),
        ]
        graph = helper.make_graph(nodes, self._name("body"), inputs, outputs)
        found = self.op("Loop", count, None, *given, outputs=len(results), body=graph)
        return found if isinstance(found, list) else [found]

    def model(self, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """Returns the model, with the strings of `metadata` in it."""
        (nodes,) = self._scopes
        graph = helper.make_graph(nodes, name, self._inputs, self._outputs, self._initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        helper.set_model_props(model, metadata)
        return model

    # What is said often.

    def size(self, x: Value, axis: int) -> Value:
        """The length of an axis, int64 `[1]`."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def concat(self, values: Sequence[Operand], axis: int = 0) -> Value:
        return self.op("Concat", *values, axis=axis)

    def shape(self, *sides: Any) -> Value:
        """A shape of ints and of int64 `[1]`."""
        return self.concat([side if isinstance(side, Value) else [side] for side in sides])

    def reshape(self, x: Value, *sides: Any) -> Value:
        return self.op("Reshape", x, self.shape(*sides))

    def full(self, value: Any, *sides: Any) -> Value:
        """A tensor of one number, a scalar of numpy."""
        return self._filled(value, self.shape(*sides))

    def full_like(self, x: Value, value: Any) -> Value:
        return self._filled(value, self.op("Shape", x))

    def _filled(self, value: Any, shape: Value) -> Value:
        return self.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([value])))

    def slice(self, x: Value, start: Operand, end: Operand, axis: int) -> Value:
        """`x[start:end]` along an axis; start and end are ints or int64 `[1]`."""
        ends = [side if isinstance(side, Value) else [side] for side in (start, end)]
        return self.op("Slice", x, *ends, [axis])

    def range(self, count: Value, dtype: str = "int64") -> Value:
        """0, 1, ... below an int64 `[1]`."""
        return self.op("Range", 0, self.op("Squeeze", count, [0]), 1).cast(dtype)

    def where(self, condition: Value, x: Operand, y: Operand) -> Value:
        return self.op("Where", condition, x, y)

    def sum(self, x: Value, *axes: int) -> Value:
        return self.op("ReduceSum", x, list(axes), keepdims=0)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"

    def _name_of(self, value: Operand) -> str:
        if value is None:
            return ""
        return value.name if isinstance(value, Value) else self.constant(value).name
