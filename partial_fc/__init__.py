"""Class centers split over all ranks: the PartialFC head, its losses and its optimizer."""

from partial_fc.angle_survey import QUANTILES, AngleSurvey, survey_angles
from partial_fc.center_sgd import CenterSGD
from partial_fc.class_shard import ClassShard, class_shard, partition
from partial_fc.collective_use import CollectiveUse
from partial_fc.gradient_scale import scale_gradient
from partial_fc.head import PartialFC
from partial_fc.margins import ArcFace, CombinedMargin, CosFace
from partial_fc.memory_use import memory_use
from partial_fc.row_gradient import RowGradient
from partial_fc.sface import SFace
from partial_fc.state import center_state, load_center_state
from partial_fc.stats import HeadStats, combined_stats

__all__ = [
    "QUANTILES",
    "AngleSurvey",
    "ArcFace",
    "CenterSGD",
    "ClassShard",
    "CollectiveUse",
    "CombinedMargin",
    "CosFace",
    "HeadStats",
    "PartialFC",
    "RowGradient",
    "SFace",
    "center_state",
    "class_shard",
    "combined_stats",
    "load_center_state",
    "memory_use",
    "partition",
    "scale_gradient",
    "survey_angles",
]
