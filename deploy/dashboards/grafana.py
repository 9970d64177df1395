"""A described dashboard as Grafana's JSON (schema version 39: Grafana 11 and 12)."""

from typing import Any

from deploy.dashboards.description import Annotation, Dashboard, Description, Panel, Query
from deploy.dashboards.layout import Flow, Place, size

Json = dict[str, Any]

SCHEMA_VERSION = 39
TAG = "pfc"
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
ANNOTATION_STEP = "15s"  # checkpoints closer than this are drawn as one


def dashboard_json(dashboard: Dashboard, description: Description) -> Json:
    """What Grafana imports, provisions and exports."""
    found: Json = {
        "annotations": {"list": [_annotation(each) for each in description.annotations.values()]},
        "description": dashboard.description,
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,  # one cross hair through all panels
        "id": None,
        "links": [
            {
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "tags": [TAG],
                "targetBlank": False,
                "title": "pfc",
                "tooltip": "",
                "type": "dashboards",
                "url": "",
            }
        ],
        "panels": _panels(dashboard),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": [TAG],
        "templating": {"list": _variables(dashboard)},
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": dashboard.title,
        "uid": dashboard.uid,
        "version": 1,
        "weekStart": "",
    }
    for holder in [*found["annotations"]["list"], *(t for p in found["panels"] for t in p.get("targets", []))]:
        holder["expr"] = _selecting(dashboard, holder["expr"])
    return found


def _selecting(dashboard: Dashboard, expression: str) -> str:
    """Grafana escapes a variable for a regular expression only where several values may be picked: a dot in the name of
    a single job would match anything.
    """
    return expression if dashboard.jobs == "many" else expression.replace('job=~"$job"', 'job="$job"')


def _annotation(annotation: Annotation) -> Json:
    return {
        "datasource": SOURCE,
        "enable": True,
        "expr": annotation.expr,
        "iconColor": annotation.color,
        "name": annotation.title,
        "step": ANNOTATION_STEP,
        "tagKeys": "job",
        "textFormat": "{{job}}",
        "titleFormat": annotation.title,
        "useValueForTime": annotation.value_is_time,
    }


def _variables(dashboard: Dashboard) -> list[Json]:
    several = dashboard.jobs == "many"
    found = [
        {
            "current": {},
            "hide": 0,
            "includeAll": False,
            "label": "Data source",
            "multi": False,
            "name": "datasource",
            "options": [],
            "query": "prometheus",
            "refresh": 1,
            "regex": "",
            "type": "datasource",
        },
        _variable("job", "Job", "label_values(pfc_step, job)", several=several, sort=1),
    ]
    if dashboard.ranks:
        found.append(_variable("rank", "Rank", 'label_values(pfc_step{job="$job"}, rank)', several=True, sort=3))
    return found


def _variable(name: str, label: str, query: str, *, several: bool, sort: int) -> Json:
    return {
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if several else {},
        "datasource": SOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": several,
        "label": label,
        "multi": several,
        "name": name,
        "options": [],
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,  # when the time range changes: jobs come and go
        "regex": "",
        "sort": sort,
        "type": "query",
    } | ({"allValue": ".*"} if several else {})


def _panels(dashboard: Dashboard) -> list[Json]:
    found: list[Json] = []
    flow = Flow()
    for row in dashboard.row:
        title: Json = {"collapsed": False, "gridPos": flow.title(), "panels": [], "title": row.title, "type": "row"}
        places = flow.panels([size(panel) for panel in row.panel])
        found += [title, *(_panel(panel, place) for panel, place in zip(row.panel, places, strict=True))]
    return [{"id": number} | panel for number, panel in enumerate(found, start=1)]


def _panel(panel: Panel, place: Place) -> Json:
    common: Json = {
        "datasource": SOURCE,
        "description": f"{panel.shows}\n\nGood: {panel.good}",
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "gridPos": place,
        "options": _options(panel),
        "targets": [_target(panel, query, number) for number, query in enumerate(panel.queries)],
        "title": panel.title,
        "type": panel.type,
    }
    if panel.type == "table":
        common["fieldConfig"]["overrides"] = _column_overrides(panel)
        common["transformations"] = _one_line_each(panel)
    return common


def _ref(number: int) -> str:
    return chr(ord("A") + number)


def _target(panel: Panel, query: Query, number: int) -> Json:
    instant = query.instant or panel.type == "table"
    return {
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "format": panel.type if panel.type in ("table", "heatmap") else "time_series",
        "instant": instant,
        "legendFormat": query.legend or "__auto",
        "range": not instant,
        "refId": _ref(number),
    }


def _defaults(panel: Panel) -> Json:
    steps = [{"color": panel.base, "value": None}, *({"color": c, "value": v} for v, c in panel.thresholds)]
    by_value = panel.type == "stat" and panel.thresholds
    colors: Json = {"mode": "palette-classic"}
    if panel.type in ("stat", "bargauge"):
        colors = {"mode": "thresholds"} if by_value else {"mode": "fixed", "fixedColor": "blue"}
    found: Json = {
        "color": colors,
        "custom": _custom(panel),
        "mappings": [],
        "thresholds": {"mode": "absolute", "steps": steps},
        "unit": panel.unit,
    }
    bounds = {"min": panel.min, "max": panel.max, "decimals": panel.decimals}
    return found | {key: value for key, value in bounds.items() if value is not None}


def _custom(panel: Panel) -> Json:
    if panel.type == "table":
        return {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}
    if panel.type != "timeseries":
        return {}
    return {
        "drawStyle": "line",
        "fillOpacity": 30 if panel.stack else 5,
        "lineInterpolation": "stepAfter" if panel.steps else "linear",
        "lineWidth": 1,
        "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if panel.stack else "none"},
        "thresholdsStyle": {"mode": "dashed" if panel.thresholds else "off"},
    }


def _options(panel: Panel) -> Json:
    last: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.type == "timeseries":
        return {
            "legend": {"calcs": ["lastNotNull"], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.type == "stat":
        return {"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "reduceOptions": last}
    if panel.type == "bargauge":
        return {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": last, "showUnfilled": True}
    if panel.type == "table":
        return {"cellHeight": "sm", "showHeader": True}
    return {
        "calculate": False,
        "cellGap": 0,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "reverse": False},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"unit": panel.unit},
    }


def _column_overrides(panel: Panel) -> list[Json]:
    overrides = []
    for query in panel.queries:
        if query.column:
            properties: list[Json] = [{"id": "unit", "value": query.unit}]
            if query.decimals is not None:
                properties.append({"id": "decimals", "value": query.decimals})
            overrides.append({"matcher": {"id": "byName", "options": query.column}, "properties": properties})
    if panel.link:
        url = f"/d/{panel.link}?var-{panel.labels[0][0]}=${{__value.raw}}&var-datasource=${{datasource}}"
        link = {"title": "Open ${__value.raw}", "url": url + "&${__url_time_range}"}
        matcher = {"id": "byName", "options": panel.labels[0][1]}
        overrides.append({"matcher": matcher, "properties": [{"id": "links", "value": [link]}]})
    return overrides


def _one_line_each(panel: Panel) -> list[Json]:
    """Join the queries by their labels, drop what is no column, and name and order the rest."""
    values = {f"Value #{_ref(number)}": query.column for number, query in enumerate(panel.queries)}
    names = dict(panel.labels) | {value: column for value, column in values.items() if column}
    hidden = ["Time", *(value for value, column in values.items() if not column)]
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: place for place, name in enumerate(names)},
        "renameByName": names,
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
