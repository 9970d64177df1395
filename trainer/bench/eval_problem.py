"""What ``pfc bench eval`` measures, and what a measurement says."""

from dataclasses import dataclass

EXTRACTION = "extraction"  # the evaluation's embeddings against the bare backbone on the same images, in memory
COMPARISON = "comparison"  # the evaluation's search against the bare float32 product
METHODS = (EXTRACTION, COMPARISON)


@dataclass(frozen=True)
class EvalEffort:
    """How to measure. images: embedded in a round.  probes, gallery: rows compared in a round, k: best ones kept."""

    backbone: str
    image_size: int
    embedding_dim: int
    batch_size: int
    images: int
    decoder: str
    threads: int
    probes: int
    gallery: int
    k: int
    repetitions: int
    seed: int


@dataclass(frozen=True)
class EvalRow:
    """One measurement: medians and quartiles over rounds in which both took turns.

    unit: what is counted a second.  rate: of ours, bare: of the bare one.  ratio: time of ours / bare, round by round,
    by the wall clock; cpu_ratio: by the processor's time of this process.
    """

    method: str
    unit: str
    rate: float
    bare: float
    ratio: float
    ratio_q1: float
    ratio_q3: float
    cpu_ratio: float
    cpu_ratio_q1: float
    cpu_ratio_q3: float
    repetitions: int
