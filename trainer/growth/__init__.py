"""A new run grown from an older one: its backbone, and its centers by the names of the identities.

From the older run's checkpoint come the backbone, the centers of all identities that both data sets know, and their
momentum; centers of new identities from the mean embedding of their images. The result is the new run's checkpoint of
step 0, so from there on it resumes like any run, without the older one.
"""

from trainer.growth.grow import Growth, GrowthStoppedError
from trainer.growth.grown import Grown

__all__ = ["Grown", "Growth", "GrowthStoppedError"]
