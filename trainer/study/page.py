"""The study's page: chart, tables, what they say, and with which settings; one file, nothing to load."""

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.study.results import difference_rows, table_rows, verdicts


def study_page(numbers: dict[str, Any], chart: bytes) -> str:
    """HTML of results.json's numbers and their chart (PNG)."""
    environment = Environment(
        loader=PackageLoader("trainer.study", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        numbers=numbers,
        chart="data:image/png;base64," + base64.b64encode(chart).decode("ascii"),
        tables=[table_rows(numbers), difference_rows(numbers)] if numbers["difference"] else [table_rows(numbers)],
        verdicts=verdicts(numbers),
    )
