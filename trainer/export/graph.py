"""A network as an ONNX graph: torch's exporter, then made plain enough for every reader.

Opset 18 and IR 8 (onnx 1.13, 2022). With an open batch size at most one number of a shape is unknown: reshaping needs
no arithmetic about shapes in the graph, which OpenCV's importer would work out once, for its first batch.
"""

from typing import Any

import numpy as np
import torch

from trainer.export.errors import ExportError
from trainer.export.plain_operators import with_plain_operators
from trainer.export.quiet import quiet
from trainer.export.targets import INPUT, OUTPUT, Target

OPSET, IR_VERSION = 18, 8
SMALL = 1024  # bytes of a constant that may say a shape
PREPROCESSING = ("Sub", "Mul")
"""The first two operators of a graph that takes 0..255. InsightFace's ArcFaceONNX looks for nodes of these names among
the first eight: with both it feeds 0..255, else (value - 127.5) / 127.5."""


def make_graph(target: Target, *, graph_name: str, version: str) -> Any:
    """An ``onnx.ModelProto`` of ``target.module``: input ``data`` [N, 3, size, size], output ``fc1`` [N, D].

    Raises ExportError where torch cannot make one.
    """
    import onnx  # of the extra "export", like all that torch's exporter needs

    module = with_plain_operators(target.module)
    images = torch.zeros(2, 3, target.size, target.size)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module, (images,), dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: torch.export.Dim("N")},),
            )  # fmt: skip
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(f"torch {torch.__version__} cannot make an ONNX graph of it: {error}") from error
    assert program is not None
    model = program.model_proto
    _fix_reshapes(model)
    _drop_unused(model)
    _strip(model)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.graph.name = "pfc", version, graph_name
    _name_nodes(model, preprocessed=target.name == "opencv")
    onnx.checker.check_model(model)
    return model


def set_metadata(model: Any, values: dict[str, str]) -> None:
    """Write ``metadata_props``."""
    import onnx

    onnx.helper.set_model_props(model, values)


def _fix_reshapes(model: Any) -> None:
    """Shapes with one unknown number become constants with -1 in its place."""
    from onnx import numpy_helper

    shapes = _inferred_shapes(model)
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.output[0] not in shapes:
            continue
        shape = shapes[node.output[0]]
        if shape.count(-1) <= 1:
            name = f"{node.output[0]}_shape"
            model.graph.initializer.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), name))
            node.input[1] = name
            del node.attribute[:]


def _inferred_shapes(model: Any) -> dict[str, list[int]]:
    """By name of a value, -1 for what is open. Of weights the shapes alone take part: inference copies what it gets."""
    from onnx import helper, shape_inference

    graph = model.graph
    small = [constant for constant in graph.initializer if constant.ByteSize() <= SMALL]
    weights = [constant for constant in graph.initializer if constant.ByteSize() > SMALL]
    shown = [helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims) for weight in weights]
    light = helper.make_graph(
        graph.node, "shapes", [*graph.input, *shown], graph.output, small, value_info=graph.value_info
    )
    inferred = shape_inference.infer_shapes(helper.make_model(light, opset_imports=model.opset_import)).graph
    return {
        value.name: [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.value_info, *inferred.output]
    }


def _drop_unused(model: Any) -> None:
    """Nodes and constants that nothing leads to any more."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    constants = [constant for constant in model.graph.initializer if constant.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(constants)


def _strip(model: Any) -> None:
    """What the exporter tells of this machine: source lines and paths, in every node."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _name_nodes(model: Any, *, preprocessed: bool) -> None:
    for place, node in enumerate(model.graph.node):
        own = preprocessed and place < len(PREPROCESSING)
        assert not own or node.op_type == PREPROCESSING[place]
        node.name = f"{'' if own else 'network/'}{node.op_type}_{place}"
