"""The files that a study leaves: each whole or not at all, results.json last."""

from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.study.chart import noise_chart
from trainer.study.noise_study import Findings
from trainer.study.page import study_page
from trainer.study.results import markdown, result_numbers, result_text


def write_study(output: Path, findings: Findings) -> str:
    """Write noise.png, report.html, table.md and results.json into ``output``; returns what to print."""
    numbers = result_numbers(findings)
    picture = noise_chart(numbers)
    table = markdown(numbers)
    write_file(output / "noise.png", picture)
    write_file(output / "report.html", study_page(numbers, picture))
    write_file(output / "table.md", table)
    write_file(output / "results.json", result_text(numbers))
    return f"{table}\n{output / 'report.html'}"
