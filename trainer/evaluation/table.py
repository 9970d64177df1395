"""Verification results as an aligned table for the terminal."""

from collections.abc import Sequence

from trainer.evaluation.verification import VerificationResult


def format_table(results: Sequence[VerificationResult]) -> str:
    """One line per set, a heading above; a FAR that no set can measure has no column. Rates in percent."""
    targets = [target for target in results[0].tar_at_far if any(r.tar_at_far[target] is not None for r in results)]
    heading = ["set", "pairs", "accuracy %", "threshold", "AUC", "EER %", *(f"TAR % @ FAR {t}" for t in targets)]
    rows = [heading]
    for result in results:
        rates = [result.tar_at_far[target] for target in targets]
        rows.append(
            [
                result.name,
                str(result.pairs),
                f"{100 * result.accuracy_mean:.2f} ± {100 * result.accuracy_std:.2f}",
                f"{result.threshold:.4f}",
                f"{result.auc:.4f}",
                f"{100 * result.equal_error_rate:.2f}",
                *("-" if rate is None else f"{100 * rate:.2f}" for rate in rates),
            ]
        )
    return "\n".join(align(rows))


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
