"""Where a data set is cut into record shards."""

from dataclasses import dataclass

from data_pipeline.errors import DataError

MIN_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCut:
    """At most one of: a number of shards of equal size, or the most images or bytes that one shard holds.

    None of them: one shard. ``max_bytes`` bounds the ``.rec`` file; a single larger image exceeds it,
    and a last one that holds RecordIO's magic number may, by what escaping that takes.
    """

    shards: int | None = None
    max_images: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.shards, self.max_images, self.max_bytes)) > 1:
            raise DataError("give one of the number of shards, images per shard and bytes per shard")
        for name, value, low in (
            ("the number of shards", self.shards, 1),
            ("images per shard", self.max_images, 1),
            ("bytes per shard", self.max_bytes, MIN_BYTES),
        ):
            if value is not None and value < low:
                raise DataError(f"{name} is {value}: it must be at least {low}")

    def check_total(self, total: int) -> None:
        """Refuse more shards than there are images (``total``).

        Raises:
            DataError: so it is.
        """
        if self.shards is not None and self.shards > total:
            raise DataError(f"{total} images cannot fill {self.shards} shards: ask for at most {total}")

    def group(self, item: int, total: int) -> int:
        """The part of ``total`` items that ``item`` falls into when there is a number of shards, else 0."""
        return 0 if self.shards is None else ((item + 1) * self.shards - 1) // total

    def is_full(self, images: int, bytes_with_next: int) -> bool:
        """Whether a shard of ``images`` images takes no more; with one more it would have ``bytes_with_next``."""
        if self.max_images is not None:
            return images >= self.max_images
        return self.max_bytes is not None and bytes_with_next > self.max_bytes
