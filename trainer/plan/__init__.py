"""What a run would need and take, computed before there is any hardware: ``pfc plan``."""
