"""Chunks of a tensor that has a row for each class, or for each row in motion."""

from collections.abc import Collection

import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata

from trainer.checkpoint.storage import DamagedCheckpointError, RawReader


def row_chunks(
    reader: RawReader, name: str, embedding_dim: int, dtypes: Collection[torch.dtype] = (torch.float32,)
) -> list[ChunkStorageMetadata]:
    """Of the [n, D] tensor ``name``, of one of the ``dtypes``, by their first row: together every row once.

    Raises DamagedCheckpointError where they are not.
    """
    saved = reader.metadata.state_dict_metadata.get(name)
    if (
        not isinstance(saved, TensorStorageMetadata)
        or saved.properties.dtype not in dtypes
        or len(saved.size) != 2
        or saved.size[1] != embedding_dim
        or any(chunk.sizes[1] != embedding_dim for chunk in saved.chunks)
    ):
        kinds = " or ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise DamagedCheckpointError(f"{name} is not rows of {embedding_dim} {kinds}; use another checkpoint")
    chunks = sorted(saved.chunks, key=lambda chunk: chunk.offsets[0])
    end = 0
    for chunk in chunks:
        if chunk.offsets[0] != end:
            raise DamagedCheckpointError(f"{name} lacks row {end}, or has it twice; use another checkpoint")
        end += chunk.sizes[0]
    return chunks
