"""Face records in, batches out: RecordIO files, their order, decoding, packing and synthetic data.

from data_pipeline import RecordReader, RecordWriter, make_loader
"""

from typing import TYPE_CHECKING, Any

from data_pipeline.augmentation import Augmentation
from data_pipeline.errors import BadRecordError, DataError
from data_pipeline.properties import Properties, read_properties, write_properties
from data_pipeline.reader import RecordReader, check_identities
from data_pipeline.record import Record
from data_pipeline.writer import RecordWriter

if TYPE_CHECKING:
    from data_pipeline.batch import Batch
    from data_pipeline.loader import Loader
    from data_pipeline.loading import make_loader

__all__ = [
    "Augmentation",
    "BadRecordError",
    "Batch",
    "DataError",
    "Loader",
    "Properties",
    "Record",
    "RecordReader",
    "RecordWriter",
    "check_identities",
    "make_loader",
    "read_properties",
    "write_properties",
]


def __getattr__(name: str) -> Any:
    # What needs torch comes when it is asked for: packing and synthesis run in many processes without it.
    if name == "Loader":
        from data_pipeline.loader import Loader

        return Loader
    if name == "make_loader":
        from data_pipeline.loading import make_loader

        return make_loader
    if name == "Batch":
        from data_pipeline.batch import Batch

        return Batch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
