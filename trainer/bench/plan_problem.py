"""What ``pfc bench plan`` measures, and what it makes of it."""

from dataclasses import dataclass

MEMORY_WITHIN, STEP_WITHIN = 0.10, 0.25


@dataclass(frozen=True)
class Size:
    """One real training. classes: C. batch: per rank. zero: stage of DeepSpeed's ZeRO, None: without DeepSpeed.
    saves: checkpoints are written beside the training, from a copy in memory.
    """

    backbone: str
    classes: int
    ranks: int
    batch: int
    precision: str = "float32"
    zero: int | None = None
    saves: bool = False

    def __str__(self) -> str:
        options = [self.precision] if self.precision != "float32" else []
        options += [f"ZeRO {self.zero}"] if self.zero is not None else []
        options += ["saving"] if self.saves else []
        return ", ".join([self.backbone, *options, f"{self.classes:,}", f"{self.ranks} x {self.batch}"])


SIZES = (
    Size("mobilefacenet", 10_000, 1, 16),
    Size("mobilefacenet", 100_000, 1, 16),
    Size("mobilefacenet", 300_000, 1, 16),
    Size("iresnet18", 100_000, 1, 8),
    Size("mobilefacenet", 10_000, 2, 8),
    Size("mobilefacenet", 100_000, 2, 8),
    Size("iresnet18", 10_000, 2, 4),
    Size("mobilefacenet", 100_000, 1, 16, saves=True),
    Size("iresnet18", 10_000, 2, 4, precision="bfloat16"),
    Size("iresnet18", 10_000, 2, 4, zero=1),
    Size("iresnet18", 10_000, 2, 4, zero=2),
    Size("iresnet18", 10_000, 2, 4, zero=3),
    # Networks, batches and settings that calibration does not train with.
    Size("mobilefacenet", 10_000, 1, 32),
    Size("iresnet34", 10_000, 2, 4),
    Size("iresnet34", 10_000, 2, 4, zero=2),
    Size("iresnet34", 10_000, 2, 4, zero=3),
    Size("mobilefacenet", 10_000, 2, 4, precision="bfloat16"),
    Size("vit_t", 10_000, 2, 4, precision="bfloat16"),
)
"""Small enough for all of them to be measured in some minutes on two cores."""


@dataclass(frozen=True)
class Compared:
    """Predicted and measured: seconds of a step, bytes of rank 0's largest resident size.

    modes: how the head went about the steps. parts: seconds by phase of the loop, predicted and measured,
    where the wall's clock told them.
    """

    size: Size
    modes: str
    step: float
    measured_step: float
    memory: float
    measured_memory: float
    parts: dict[str, tuple[float, float]]

    @property
    def step_error(self) -> float:
        """Relative to what was measured."""
        return self.step / self.measured_step - 1.0

    @property
    def memory_error(self) -> float:
        """Relative to what was measured."""
        return self.memory / self.measured_memory - 1.0


def format_compared(found: list[Compared]) -> str:
    """A Markdown table, then the largest errors."""
    with_parts = any(each.parts for each in found)
    lines = [
        "| backbone, options, classes, ranks x batch | head | step ms: predicted, measured | error "
        "| peak MiB: predicted, measured | error |" + (" parts ms: predicted/measured |" if with_parts else ""),
        "| --- |" + " --- |" * (6 if with_parts else 5),
    ]
    for each in found:
        size = each.size
        parts = ", ".join(f"{name} {1000 * one:.0f}/{1000 * other:.0f}" for name, (one, other) in each.parts.items())
        lines.append(
            f"| {size} | {each.modes} "
            f"| {1000 * each.step:,.0f}, {1000 * each.measured_step:,.0f} | {each.step_error:+.0%} "
            f"| {each.memory / (1 << 20):,.0f}, "
            f"{each.measured_memory / (1 << 20):,.0f} | {each.memory_error:+.0%} |"
            + (f" {parts} |" if with_parts else "")
        )
    step = max(abs(each.step_error) for each in found)
    memory = max(abs(each.memory_error) for each in found)
    lines += [
        "",
        f"largest error: step {step:.0%} (asked: {STEP_WITHIN:.0%}), memory {memory:.0%} (asked: {MEMORY_WITHIN:.0%})",
    ]
    return "\n".join(lines)
