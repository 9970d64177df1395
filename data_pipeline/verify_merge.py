"""Puts what the chunks of one shard hold together, and compares it with the index."""

from data_pipeline.verify_chunk import ChunkResult
from data_pipeline.verify_index import FoundIndex
from data_pipeline.verify_ranges import RangeCheck
from data_pipeline.verify_report import BadRecord, ShardReport, VerifyReport


class ChunkMerge:
    """Takes the chunks of one shard in their order; each damage becomes one finding of the report."""

    def __init__(self, report: VerifyReport, shard: ShardReport, index: FoundIndex) -> None:
        self._index = index
        self._report = report
        self._shard = shard
        self._ranges = RangeCheck()
        self._end: int | None = 0  # behind the last record; None behind a damaged one
        self._unmatched: dict[int, int] = {}  # offsets in the index, and keys, where no record was found so far
        self._index_is_sound = not index.findings

        for finding in index.findings:
            self._bad(*finding)
        for reason, number in index.unlisted.items():
            report.count(reason, number)

    def add(self, result: ChunkResult, start: int, stop: int) -> None:
        """Take the next chunk, of the bytes [start, stop)."""
        findings = list(result.findings)
        if result.begin is not None:
            if self._end is not None and result.begin > self._end:
                findings.append((self._end, "bad_record", f"{result.begin - self._end} bytes hold no record"))
            self._end = result.end
        keys, offsets = self._index.between(start, stop)
        key_at = dict(zip(offsets.tolist(), keys.tolist(), strict=True))
        for offset, reason, message in sorted(findings):
            self._unmatched.pop(offset, None)  # a gap that an earlier chunk began
            self._bad(key_at.get(offset, self._key(offset)), offset, reason, message)
        if result.begin is not None:
            self._tell_unmatched()
        for reason, number in result.unlisted.items():
            self._report.count(reason, number)
        self._compare(result, key_at, {offset for offset, _, _ in findings})
        self._shard.images += len(result.images)
        self._shard.records += len(result.images) + len(result.headers)
        self._report.sizes.update(result.sizes)
        self._report.formats.update(result.formats)
        for offset, key, identity in result.images:
            self._ranges.add_image(key_at.get(offset, key), identity)
        for offset, key, first, second in result.headers:
            self._ranges.add_header(offset, key_at.get(offset, key), first, second)

    def finish(self, size: int) -> None:
        """Tell what only the whole file of ``size`` bytes tells."""
        if self._end is not None and self._end < size:
            reason = "truncated" if self._end else "bad_record"
            self._bad(self._key(self._end), self._end, reason, f"the last {size - self._end} bytes hold no record")
            self._unmatched.pop(self._end, None)
        self._tell_unmatched()
        if not self._index_is_sound:
            return  # ranges speak of the index's keys
        for key, offset, message in self._ranges.findings():
            self._bad(key, offset, "bad_range", message)

    def _compare(self, result: ChunkResult, key_at: dict[int, int], reported: set[int]) -> None:
        """The index's offsets of a chunk against those of its records."""
        images = {offset for offset, _, _ in result.images}
        known = images | {offset for offset, *_ in result.headers} | reported
        if result.unlisted:
            return  # what was found where is no longer known
        for offset, key in key_at.items():
            if offset not in known and offset % 4 == 0:
                self._unmatched[offset] = key
        if self._shard.has_index:
            for offset in sorted(images - key_at.keys()):
                self._index_is_sound = False
                self._bad(None, offset, "not_in_index", "the index does not name this image")

    def _tell_unmatched(self) -> None:
        for offset, key in self._unmatched.items():
            self._index_is_sound = False
            self._bad(key, offset, "no_record", "no record starts there")
        self._unmatched.clear()

    def _key(self, offset: int) -> int | None:
        keys, _ = self._index.between(offset, offset + 1)
        return int(keys[0]) if len(keys) else None

    def _bad(self, key: int | None, offset: int | None, reason: str, message: str) -> None:
        self._report.add(BadRecord(self._shard.path, key, offset, reason, message))
