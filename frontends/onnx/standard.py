"""Operators that are the same in our opset as in the source's, and those that are not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx

from qconvert.graph import OPSET

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__ = ["copy", "standard_operators", "why_not_standard"]

_NOT_READ: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
         "RandomUniformLike"),
        "it draws random numbers, so no two runs agree",
    ),
    **dict.fromkeys(
        ("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
         "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence",
         "Optional", "OptionalGetElement", "OptionalHasElement"),
        "it works on sequences, not on tensors",
    ),
    **dict.fromkeys(
        ("ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit",
         "TfIdfVectorizer"),
        "it works on strings or encoded images",
    ),
    **dict.fromkeys(
        ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), "it belongs to training"
    ),
    "Scan": "it is a recurrence over a sequence",
}  # fmt: skip


def standard_operators() -> list[str]:
    """The operators of our opset that are read."""
    names = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.since_version <= OPSET
    }
    return sorted(name for name in names - set(_NOT_READ) if _schema(name, OPSET) is not None)


def why_not_standard(call: Call) -> str | None:
    """Why a call cannot be copied into our opset; None when it can."""
    if call.domain != "":
        return f"'{call.domain}' is not the standard operator set"
    if call.op_type in _NOT_READ:
        return _NOT_READ[call.op_type]
    theirs, ours = _schema(call.op_type, call.version), _schema(call.op_type, OPSET)
    if theirs is None:
        return f"there is no such operator in opset {call.version}"
    if ours is None:
        return f"it is of opset {theirs.since_version}, and has no equal in opset {OPSET}"
    for key, attribute in call.attributes.items():
        if key not in ours.attributes and not _is_default(theirs, key, attribute):
            return f"its attribute '{key}' has no equal in opset {OPSET}"
    return None


def copy(call: Call) -> Sequence[ir.Value]:
    """The same node; attributes our opset lacks have their default value and go."""
    ours, theirs = _schema(call.op_type, OPSET), _schema(call.op_type, call.version)
    gone = set() if ours is None or theirs is None else {*theirs.attributes} - {*ours.attributes}
    unknown = [key for key in call.attributes if key in gone]
    return call.emit(call.inputs, call.plain(*unknown))


def _schema(op_type: str, version: int) -> onnx.defs.OpSchema | None:
    """The schema an operator has in an opset; None when it has none, or is deprecated."""
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else schema


def _is_default(schema: onnx.defs.OpSchema, key: str, attribute: ir.Attr) -> bool:
    """Whether an attribute has the value it would have when absent."""
    declared = schema.attributes.get(key)
    if declared is None:
        return False
    default = declared.default_value
    if default.type == onnx.AttributeProto.INT:
        return bool(attribute.value == default.i)
    if default.type == onnx.AttributeProto.FLOAT:
        return bool(attribute.value == default.f)
    if default.type == onnx.AttributeProto.STRING:
        return bool(attribute.value == default.s.decode())
    return False
