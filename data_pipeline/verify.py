"""Finds every bad record of a data set: all files, all bytes, in parallel."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import connection, get_context, parent_process
from os import _exit
from pathlib import Path

from data_pipeline.errors import BadRecordError, DataError
from data_pipeline.properties import read_properties
from data_pipeline.record import unpack_header
from data_pipeline.recordio import RecordFile
from data_pipeline.verify_chunk import Chunk, ChunkResult, verify_chunk
from data_pipeline.verify_index import FoundIndex, find_index
from data_pipeline.verify_merge import ChunkMerge
from data_pipeline.verify_report import ShardReport, VerifyReport

CHUNK_BYTES = 1 << 22
_AHEAD = 3  # chunks a worker may be ahead of what is merged

Progress = Callable[[int], object]  # takes the bytes done since the last call


def verify(
    paths: Sequence[Path], *, workers: int = 1, image_size: int | None = None, progress: Progress = lambda _: None
) -> VerifyReport:
    """Check framing, index, header and range records, labels and images of ``paths``.

    Memory: some chunks of CHUNK_BYTES a worker, 16 bytes a record for a shard's index, 56 bytes an identity.

    Args:
        paths: the ``.rec`` files; an index is looked for beside each.
        workers: processes that decode; 1: this one.
        image_size: height and width in pixels that every image must have; None: any.
        progress: called with the bytes checked since the last call.

    Raises:
        DataError: a file that cannot be opened or is empty, or an argument out of range.
        ChildProcessError: a worker was killed.
    """
    if workers < 1 or (image_size is not None and image_size < 1):
        raise DataError(f"workers {workers} with image size {image_size}: both must be at least 1")
    began = time.monotonic()
    report = VerifyReport(image_size)
    files = [_open(path) for path in paths]
    if workers == 1:
        for path, size in files:
            _verify_shard(path, size, report, partial(map, verify_chunk), progress)
    else:
        # Spawned, because a forked child of a process with threads (torch, DALI) may hang.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker)
        try:
            for path, size in files:
                _verify_shard(path, size, report, partial(_in_order, pool, workers * _AHEAD), progress)
        except BrokenProcessPool:
            raise ChildProcessError("a worker process was killed, perhaps for its memory: use fewer workers") from None
        finally:
            pool.shutdown(cancel_futures=True)
    report.seconds = time.monotonic() - began
    return report


def _open(path: Path) -> tuple[Path, int]:
    file = RecordFile(path)
    file.close()
    if not file.size:
        raise DataError(f"{path} is empty: there is nothing to verify")
    return path, file.size


def _chunks(path: Path, size: int, insightface: bool, image_size: int | None) -> Iterator[Chunk]:
    properties = read_properties(path.parent)
    for start in range(0, size, CHUNK_BYTES):
        yield Chunk(
            path, start, min(start + CHUNK_BYTES, size), insightface, image_size,
            properties.num_identities if properties else None,
        )  # fmt: skip


def _has_global_header(path: Path, index: FoundIndex | None) -> bool:
    """Whether record 0 is InsightFace's global header: two labels and no image. Without an index it is the first."""
    where = index.offsets[index.keys == 0].tolist() if index else [0]
    if not where or not 0 <= where[0] < path.stat().st_size:
        return False
    file = RecordFile(path)
    try:
        content = file.read(where[0], 0)
        header = unpack_header(content, str(path))
    except BadRecordError:
        return False
    finally:
        file.close()
    return header.flag == 2 and header.size == len(content)


def _in_order(pool: ProcessPoolExecutor, ahead: int, chunks: Iterator[Chunk]) -> Iterator[ChunkResult]:
    pending: deque[Future[ChunkResult]] = deque()
    for chunk in chunks:
        pending.append(pool.submit(verify_chunk, chunk))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _start_worker() -> None:
    """An interrupt is the parent's to answer; and a worker ends when its parent does, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        _exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _verify_shard(
    path: Path,
    size: int,
    report: VerifyReport,
    run: Callable[[Iterator[Chunk]], Iterator[ChunkResult]],
    progress: Progress,
) -> None:
    index = find_index(path, size)
    shard = ShardReport(str(path), size, has_index=index is not None)
    report.shards.append(shard)
    insightface = _has_global_header(path, index)
    shard.layout = "insightface" if insightface else "plain"
    merge = ChunkMerge(report, shard, index or FoundIndex())
    for number, result in enumerate(run(_chunks(path, size, insightface, report.image_size))):
        start = number * CHUNK_BYTES
        stop = min(start + CHUNK_BYTES, size)
        merge.add(result, start, stop)
        progress(stop - start)
    merge.finish(size)
