"""Grafana dashboards: ``panels.toml`` describes them, ``generate`` writes the JSON files that Grafana imports."""
