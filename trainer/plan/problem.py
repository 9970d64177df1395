"""What is planned: a run's configuration, the size of its data, and the machines it would have.

Shape letters: C classes, W ranks, R = C / W classes of a rank, B images of a rank, N = B * W, D embedding size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from partial_fc import class_shard
from trainer.config import Config
from trainer.deepspeed_config import zero_stage
from trainer.errors import ConfigError


@dataclass(frozen=True)
class Problem:
    """identities: C. images: of an epoch, None: not known. ranks: W. ranks_per_node: that share a machine's links.

    config: everything else; its run.world_size is not looked at.
    """

    config: Config
    identities: int
    images: int | None
    ranks: int
    ranks_per_node: int

    def __post_init__(self) -> None:
        """Raises ConfigError for numbers that no run can have."""
        for name, value in (("identities", self.identities), ("ranks", self.ranks)):
            if value < 1:
                raise ConfigError(f"--{name} {value}: must be at least 1")
        if self.ranks_per_node < 1:
            raise ConfigError(f"--ranks-per-node {self.ranks_per_node}: must be at least 1")
        if self.identities < self.ranks:
            raise ConfigError(
                f"{self.identities} identities for {self.ranks} ranks: some would hold no class center; "
                "plan fewer ranks"
            )
        if self.images is not None and self.images < 1:
            raise ConfigError(f"--images {self.images}: must be at least 1")

    @property
    def rows(self) -> int:
        """R, of the rank with most."""
        return len(class_shard(self.identities, self.ranks, 0))

    @property
    def center_bytes(self) -> int:
        """Of a number of a center, as stored."""
        return 2 if self.config.head.center_dtype == "bfloat16" else 4

    @property
    def dim(self) -> int:
        """D."""
        return self.config.backbone.embedding_dim

    @property
    def batch(self) -> int:
        """B."""
        return self.config.data.batch_size

    @property
    def micro_batch(self) -> int:
        """Images that pass the backbone together, at most."""
        return -(-self.batch // self.config.train.micro_batches)

    @property
    def global_micro_batch(self) -> int:
        """Samples that the head sees together."""
        return self.micro_batch * self.ranks

    @property
    def zero_stage(self) -> int | None:
        """None: not DeepSpeed."""
        return None if self.config.train.engine == "ddp" else zero_stage(self.config.deepspeed)

    @property
    def head_kind(self) -> str:
        """ "full": SFace over all classes; "softmax", "sampled"."""
        head = self.config.head
        if head.sample_rate < 1.0:
            return "sampled"
        return "full" if head.loss == "sface" else "softmax"

    def with_tables(self, **changes: Mapping[str, object]) -> "Problem":
        """Some keys of the configuration's tables changed."""
        tables = {name: getattr(self.config, name).model_copy(update=keys) for name, keys in changes.items()}
        return replace(self, config=self.config.model_copy(update=tables))
