"""Describes a run to whatever starts it: this machine, Docker, Kubernetes, Slurm."""
