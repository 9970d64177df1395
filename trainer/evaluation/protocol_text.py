"""Results of protocols as text for the terminal."""

from collections.abc import Sequence

from trainer.evaluation.protocol_result import TextTable
from trainer.evaluation.table import align


def format_tables(tables: Sequence[TextTable]) -> str:
    """Each table under its title, an empty line between them; tables without rows are a title alone."""
    return "\n\n".join(
        "\n".join([table.title, *(align([table.heading, *table.rows]) if table.rows else [])]) for table in tables
    )
