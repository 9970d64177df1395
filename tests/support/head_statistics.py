"""Statistics of a head as a step might have them, for tests that need some."""

from partial_fc import HeadStats

STATS = HeadStats(
    mode="dense",
    active_pairs=12,
    error=0.0,
    cut=0.015625,
    loss=-3.0,
    loss_intra=-5.0,
    loss_inter=2.0,
    theta_positive=1.0,
    theta_negative=1.5,
    theta_negative_std=0.1,
    bytes_moved=1000,
    samples=8,
    gradient_norm=2.5,
)
