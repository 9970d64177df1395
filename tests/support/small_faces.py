"""A small data set for tests: drawn faces, real JPEG RecordIO, pairs of unseen identities."""

from pathlib import Path

from data_pipeline.synthetic import synthesize


def make_small_faces(folder: Path, *, identities: int = 9, images_per_identity: int = 7) -> Path:
    synthesize(
        folder,
        identities=identities,
        images_per_identity=images_per_identity,
        unseen_identities=8,
        pairs=40,
        image_size=48,
        seed=3,
        workers=1,
    )
    return folder


RUN = """
[run]
output = "{output}"
seed = 5
device = "cpu"
timeout_seconds = 60
[data]
records = "{faces}"
image_size = 32
batch_size = {batch_size}
[backbone]
embedding_dim = 16
dropout = 0.2
[optimizer]
lr = 0.05
[schedule]
warmup = 3
[train]
steps = {steps}
[evaluation]
pairs = ["{faces}/verification.bin"]
[checkpoint]
every_steps = 5
keep = 3
[log]
every_steps = 1
"""


def write_run(path: Path, *, output: Path, faces: Path, steps: int = 24, batch_size: int = 8) -> Path:
    path.write_text(RUN.format(output=output, faces=faces, steps=steps, batch_size=batch_size))
    return path
