"""Measurements a user can repeat: ``pfc bench ...``. Ratios within one run, because machines are shared and noisy."""
