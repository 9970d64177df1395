"""The report of a run: one self-contained HTML page drawn from the files that training left behind."""

from trainer.report.page import write_report

__all__ = ["write_report"]
