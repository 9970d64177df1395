"""Grafana's dashboards as pictures, for people without Grafana: the same panels, drawn from Prometheus itself."""

from trainer.dashboards.draw import Request, draw_dashboards

__all__ = ["Request", "draw_dashboards"]
