"""What the command says when a file is written."""

from trainer.export.exporting import Exported
from trainer.export.thresholds import Calibration, distance_of

MIB = 1 << 20


def told(exported: Exported) -> str:
    """A few lines: what it is, how it was checked, thresholds, and what is missing."""
    described = exported.described
    origin = f"step {described['step']:,}" if "step" in described else "state dict"
    lines = [
        f"{exported.files[-1]}  {described['backbone']}, {origin}, {exported.nbytes / MIB:.1f} MiB",
        f"input   {described['input']}",
        f"output  {described['output']}",
    ]
    for check in exported.checks:
        if check.difference is None:
            lines.append(f"NOT checked in {check.program}: it is not installed")
        else:
            lines.append(
                f"checked in {check.program} on {exported.samples.origin}: embeddings differ by at most "
                f"{check.difference:.1e} of their length"
            )
    for calibration in exported.calibrations:
        lines += _thresholds(calibration)
    if not exported.calibrations:
        lines.append("no thresholds: give --pairs FILE.bin to calibrate them")
    if described["target"] == "torch" and exported.files[-1].suffix != ".pt2":
        lines.append(_arcface_torch(described.get("arcface_torch"), described["embedding_dim"]))
    return "\n".join(lines)


def _arcface_torch(name: str | None, embedding_dim: int) -> str:
    if name is None:
        return (
            "arcface_torch has no such network (112x112, batch norm, patches of 9 alone): for pfc, or export NAME.pt2"
        )
    return f"loads into InsightFace's arcface_torch: get_model({name!r}, num_features={embedding_dim})"


def _thresholds(calibration: Calibration) -> list[str]:
    views = "flip test; the file gives one view: --pairs calibrates for that" if calibration.flip_test else "one view"
    pairs = f"{calibration.pairs} ({calibration.number_of_pairs:,} pairs, accuracy {calibration.accuracy:.2%}, {views})"
    return [
        f"thresholds on {pairs}:",
        f"  best      cosine {calibration.best:.4f}  distance {distance_of(calibration.best):.4f}",
        *(
            f"  FAR {each.far}  cosine {each.cosine:.4f}  distance {each.distance:.4f}  TAR {each.tar:.2%}"
            for each in calibration.at_far
        ),
    ]
