"""The walk over a source graph: finds each node's converter, inlines functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx
import onnx_ir as ir

from qconvert.errors import ModelFormatError, Problem, QconvertError
from qconvert.frontends.onnx import control
from qconvert.frontends.onnx.builder import known_shape
from qconvert.frontends.onnx.call import Call
from qconvert.frontends.onnx.ops import CONVERTERS, Refused
from qconvert.frontends.onnx.scope import REFUSED, Scope
from qconvert.frontends.onnx.standard import copy, why_not_standard
from qconvert.graph import OPSET, PLACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.frontends.onnx.builder import Builder

__all__ = ["Walk"]

OLDEST: Final = 6
_MAX_NODES: Final = 50_000
_MAX_DEPTH: Final = 60


class Walk:
    """Converts nodes one after the other.

    Args:
        builder: Of the new graph.
        model: The source, for its functions.
        file: For messages.
    """

    def __init__(self, builder: Builder, model: ir.Model, file: str) -> None:
        self.builder = builder
        self.problems: list[Problem] = []
        self._functions = model.functions
        self._file = file
        self._seen = 0

    def initializers(self, graph: ir.Graph, scope: Scope) -> None:
        """Take over the constants of a graph."""
        for value in graph.initializers.values():
            if value.const_value is not None:
                name = scope.prefix + str(value.name)
                scope.env[value] = self.builder.constant(value.const_value, name)

    def nodes(self, nodes: Sequence[ir.Node] | ir.Graph | ir.Function, scope: Scope) -> None:
        """Convert a body; refused nodes are collected in `problems`."""
        if scope.depth > _MAX_DEPTH:
            raise ModelFormatError("functions or branches are nested too deeply", at=self._file)
        for node in nodes:
            self._seen += 1
            if self._seen > _MAX_NODES:
                raise ModelFormatError(
                    "the model unfolds into too many nodes",
                    at=self._file,
                    why=f"more than {_MAX_NODES} after inlining loops and functions",
                )
            self._node(node, scope)

    def _node(self, node: ir.Node, scope: Scope) -> None:
        """Convert one node and note what its outputs became."""
        label = node.name or f"{node.op_type}_{node.outputs[0].name if node.outputs else ''}"
        where = f"node '{scope.prefix}{label}' ({self._file})"
        placed = len(self.builder.nodes)
        try:
            results = self._results(node, scope, scope.prefix + label)
        except Refused as refusal:
            self._refuse(node, scope, Problem(_title(node), where, str(refusal)))
            return
        except QconvertError:
            raise
        except (MemoryError, RecursionError):
            raise
        except Exception as error:
            # Whatever a hostile node provokes in a converter, the node is to blame.
            raise ModelFormatError(
                f"{_title(node)} cannot be understood",
                at=where,
                why=f"{type(error).__name__}: {error}".splitlines()[0],
            ) from error
        for fresh in self.builder.nodes[placed:]:
            fresh.metadata_props.setdefault(PLACE, where_of(self._file, label))
            self._require_shapes(fresh, where)
        for output, result in zip(node.outputs, results, strict=False):
            scope.env[output] = result

    def _refuse(self, node: ir.Node, scope: Scope, problem: Problem) -> None:
        """Note a problem; what depends on the node is passed over."""
        self.problems.append(problem)
        for output in node.outputs:
            scope.env[output] = REFUSED

    def _results(self, node: ir.Node, scope: Scope, name: str) -> Sequence[ir.Value | None]:
        """What the outputs of a node become."""
        inputs = [
            None if value is None else self._read(value, node, scope) for value in node.inputs
        ]
        if any(value is REFUSED for value in inputs):
            return [REFUSED] * len(node.outputs)
        attributes = _resolved(node, scope)
        wanted = [scope.name_of(value) for value in node.outputs]
        domain = "" if node.domain == "ai.onnx" else node.domain
        function = self._functions.get(node.op_identifier())
        if function is not None:
            return self._inline(function, inputs, attributes, scope, name, wanted)
        if domain == "" and node.op_type in control.OPERATORS:
            return control.run(self, node, inputs, scope, name)
        call = Call(
            self.builder,
            node.op_type,
            domain,
            scope.version(domain),
            name,
            inputs,
            attributes,
            wanted,
        )
        return self._converted(call, scope)

    def _converted(self, call: Call, scope: Scope) -> Sequence[ir.Value | None]:
        """The results of an operator that is not a model-local function."""
        if call.domain == "" and call.version < OLDEST:
            raise Refused(f"opset {call.version} is older than {OLDEST}")
        converter = CONVERTERS.get((call.domain, call.op_type))
        if converter is not None:
            return converter(call)
        if call.domain == "" and call.version > OPSET:
            body = _schema_function(call)
            if body is not None:
                return self._inline(
                    body, call.inputs, call.attributes, scope, call.name, call.outputs
                )
        reason = why_not_standard(call)
        if reason is not None:
            raise Refused(reason)
        try:
            return copy(call)
        except ModelFormatError as error:
            if call.version <= OPSET:
                raise
            raise Refused(f"opset {OPSET} has no equal: {error.why}") from error

    def _read(self, value: ir.Value, node: ir.Node, scope: Scope) -> ir.Value | None:
        """The new value behind an input."""
        if value not in scope.env:
            raise ModelFormatError(
                f"node '{node.name}' ({node.op_type}) reads '{value.name}'",
                at=self._file,
                why="nothing produces that value",
            )
        return scope.env[value]

    def _inline(
        self,
        function: ir.Function,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, ir.Attr],
        scope: Scope,
        name: str,
        outputs: Sequence[str],
    ) -> list[ir.Value | None]:
        """Convert the body of a function in the place of its call."""
        # Recursion ends at the depth limit; a body may be walked many times, never changed.
        body = Scope(
            function.opset_imports or scope.opsets,
            attributes={**dict(_defaults(function)), **attributes},
            names={v: n for v, n in zip(function.outputs, outputs, strict=False) if n},
            prefix=f"{name}/",
            depth=scope.depth + 1,
        )
        given = [*inputs, *[None] * (len(function.inputs) - len(inputs))]
        for parameter, value in zip(function.inputs, given, strict=True):
            body.env[parameter] = value
        self.nodes(function, body)
        return [body.env.get(value) for value in function.outputs]

    def _require_shapes(self, node: ir.Node, where: str) -> None:
        """Refuse a node whose output shapes cannot be told before it runs."""
        if self.builder.depends_on_data(node):
            return
        for value in node.outputs:
            if value.name and known_shape(value) is None:
                self.problems.append(
                    Problem(_title(node), where, f"the shape of '{value.name}' depends on data")
                )
                return


def where_of(file: str, label: str) -> str:
    """The place of a node in its source."""
    return f"{file}, node '{label}'"


def _title(node: ir.Node) -> str:
    """How messages call a node's operator."""
    domain = f"{node.domain}::" if node.domain not in {"", "ai.onnx"} else ""
    return f"operator '{domain}{node.op_type}'"


def _resolved(node: ir.Node, scope: Scope) -> dict[str, ir.Attr]:
    """The attributes, those that refer to the surrounding function's replaced."""
    resolved = {}
    for key, attribute in node.attributes.items():
        if not attribute.is_ref():
            resolved[key] = attribute
            continue
        source = scope.attributes.get(attribute.ref_attr_name or "")
        if source is not None:
            resolved[key] = ir.Attr(key, source.type, source.value)
    return resolved


def _defaults(function: ir.Function) -> list[tuple[str, ir.Attr]]:
    """A function's attributes that have a default."""
    return [
        (key, attribute)
        for key, attribute in function.attributes.items()
        if attribute.value is not None
    ]


def _schema_function(call: Call) -> ir.Function | None:
    """The body that the standard gives for an operator younger than our opset."""
    try:
        onnx.defs.get_schema(call.op_type, OPSET, "")
    except onnx.defs.SchemaError:
        pass
    else:
        return None
    try:
        schema = onnx.defs.get_schema(call.op_type, call.version, "")
    except onnx.defs.SchemaError:
        return None
    return control.schema_body(schema, call)
