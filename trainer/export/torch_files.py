"""Files for torch itself: a state dict in InsightFace's names, or a whole program that needs no pfc to run."""

import io
import json
from typing import Any

import torch

from trainer.export.quiet import quiet
from trainer.export.sample_images import SampleImages
from trainer.export.self_check import Check, compare, expected_embeddings
from trainer.export.source import Source, source_of_state
from trainer.export.targets import Target

EXTRA_FILE = "pfc.json"
"""Name of the metadata within a ``.pt2``: ``torch.export.load(path, extra_files={"pfc.json": ""})`` fills it in."""


def state_dict_bytes(source: Source) -> bytes:
    """``.pt``: what ``torch.load(path, weights_only=True)`` returns is the flat state dict, float32."""
    stream = io.BytesIO()
    torch.save(dict(source.network.state_dict()), stream)
    return stream.getvalue()


def program_bytes(target: Target, described: dict[str, Any]) -> bytes:
    """``.pt2``: what ``torch.export.load(path).module()`` returns maps [N, 3, S, S] to [N, D]."""
    images = torch.zeros(2, 3, target.size, target.size)
    stream = io.BytesIO()
    with quiet(), torch.no_grad():
        program = torch.export.export(target.module, (images,), dynamic_shapes=({0: torch.export.Dim("N")},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # tells of this machine's folders
        torch.export.save(program, stream, extra_files={EXTRA_FILE: json.dumps(described)})
    return stream.getvalue()


def check_torch(content: bytes, suffix: str, source: Source, target: Target, samples: SampleImages) -> Check:
    """Load it again and compare. Raises ExportError where embeddings differ."""
    expected = expected_embeddings(target, samples)
    images = target.to_input(samples.images)
    with quiet(), torch.inference_mode():
        if suffix == ".pt2":
            found = torch.export.load(io.BytesIO(content)).module()(images)
        else:
            state = torch.load(io.BytesIO(content), weights_only=True)
            found = source_of_state(state, source.path).network(images)
    return compare(f"torch {torch.__version__}", found.numpy(), expected)
