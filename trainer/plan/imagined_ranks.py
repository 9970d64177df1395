"""Every rank's share of the centers, made on the meta device: shapes and sizes without memory or hardware."""

from dataclasses import dataclass

from torch import Tensor

from partial_fc import CenterSGD, PartialFC
from partial_fc.collectives import Collectives
from partial_fc.memory_use import memory_use
from trainer.config import Config
from trainer.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """A rank's classes [start, stop), and the bytes of its head before the first step."""

    rank: int
    start: int
    stop: int
    nbytes: int


class ImaginedRank(Collectives):
    """A rank of a world that is not there: it knows its place, and can exchange nothing."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self._rank, self._world_size = rank, world_size

    @property
    def world_size(self) -> int:
        """W."""
        return self._world_size

    @property
    def rank(self) -> int:
        """Of the imagined process."""
        return self._rank


def imagined_shares(config: Config, identities: int, ranks: int) -> list[Share]:
    """The head and its optimizer of every rank, made as a run makes them, one after the other.

    Raises ConfigError where a rank's cannot be made, or where they do not cover all classes once.
    """
    chosen, shares = config.optimizer, []
    for rank in range(ranks):
        try:
            head = PartialFC(
                identities,
                config.backbone.embedding_dim,
                config.head.build(),
                tolerance=config.head.tolerance,
                sample_rate=config.head.sample_rate,
                group=ImaginedRank(rank, ranks),
                device="meta",
                seed=config.run.seed,
                center_dtype=config.head.center_dtype,
                center_memory=config.head.center_memory,
            )
            optimizer = CenterSGD(head, chosen.lr * chosen.center_lr_share, chosen.momentum, chosen.decay_of_centers)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"rank {rank} of {ranks} cannot be made: {error}") from None
        shard = head.class_shard
        if head.stored_centers.shape != (len(shard), head.embedding_dim):
            raise ConfigError(
                f"rank {rank} of {ranks}: centers {list(head.stored_centers.shape)} for {len(shard)} classes"
            )
        seen: Tensor = head.seen.state()
        shares.append(Share(rank, shard.start, shard.stop, sum(memory_use(head, optimizer).values()) + seen.nbytes))
    edges = [0, *(share.stop for share in shares)]
    if [share.start for share in shares] != edges[:-1] or edges[-1] != identities:
        raise ConfigError(f"{ranks} ranks do not hold {identities} classes once each")
    return shares
