"""TensorBoard's event files, in its own format, whole at any time.

TensorBoard's own writer hands events to a thread with a buffer: a killed run loses what is in it, and on a full disk
the thread ends and leaves half a record, behind which no reader gets. Here a record is in the file when ``append``
returns, or waits in memory as a whole.
"""

import io
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from trainer.line_file import AppendedFile


class EventFile:
    """A new event file in ``folder``. purge_step: readers forget what earlier files say of this step and later."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        folder.mkdir(exist_ok=True)
        # Readers take files in the order of their names.
        self._file = AppendedFile(folder / f"events.out.tfevents.{time.time():017.6f}.pfc")
        now = time.time()
        self._append(
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=purge_step, session_log=SessionLog(status=SessionLog.START)),
        )

    @property
    def problem(self) -> OSError | None:
        """Why events wait; None while all is well."""
        return self._file.problem

    def append_scalars(self, curves: Mapping[str, float], *, step: int, wall_time: float) -> None:
        """One event with a point of each curve."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in curves.items()]
        self._append(Event(wall_time=wall_time, step=step, summary=Summary(value=values)))

    def append_text(self, name: str, text: str) -> None:
        """Shown as it is; Markdown's indented block."""
        block = "\n".join(f"    {line}" for line in text.splitlines())
        plugin = SummaryMetadata.PluginData(plugin_name="text", content=TextPluginData().SerializeToString())
        value = Summary.Value(
            tag=f"{name}/text_summary",
            metadata=SummaryMetadata(plugin_data=plugin),
            tensor=TensorProto(dtype=DT_STRING, string_val=[block.encode()]),
        )
        self._append(Event(wall_time=time.time(), step=0, summary=Summary(value=[value])))

    def _append(self, *events: Event) -> None:
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        self._file.append_bytes(records.getvalue())
