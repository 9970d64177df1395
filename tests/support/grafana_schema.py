"""The part of Grafana's dashboard schema (version 39) that ours use; any other key or type is an error."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Source(Strict):
    type: Literal["prometheus"]
    uid: Literal["${datasource}"]


class GridPos(Strict):
    x: Annotated[int, Field(ge=0, le=23)]
    y: Annotated[int, Field(ge=0)]
    w: Annotated[int, Field(ge=1, le=24)]
    h: Annotated[int, Field(ge=1)]


class Target(Strict):
    datasource: Source
    editorMode: Literal["code"]  # noqa: N815
    expr: Annotated[str, Field(min_length=1)]
    format: Literal["time_series", "table", "heatmap"]
    instant: bool
    legendFormat: Annotated[str, Field(min_length=1)]  # noqa: N815
    range: bool
    refId: Annotated[str, Field(pattern="^[A-Z]$")]  # noqa: N815


class Step(Strict):
    color: str
    value: float | None


class Thresholds(Strict):
    mode: Literal["absolute"]
    steps: Annotated[list[Step], Field(min_length=1)]


class Defaults(Strict):
    color: dict[str, str]
    custom: dict[str, object]
    mappings: list[object]
    thresholds: Thresholds
    unit: Annotated[str, Field(min_length=1)]
    min: float | None = None
    max: float | None = None
    decimals: int | None = None


class Matcher(Strict):
    id: Literal["byName"]
    options: str


class Property(Strict):
    id: Literal["unit", "decimals", "links"]
    value: object


class Override(Strict):
    matcher: Matcher
    properties: list[Property]


class FieldConfig(Strict):
    defaults: Defaults
    overrides: list[Override]


class Transformation(Strict):
    id: Literal["merge", "organize"]
    options: dict[str, object]


class Panel(Strict):
    id: Annotated[int, Field(ge=1)]
    type: Literal["timeseries", "stat", "bargauge", "table", "heatmap"]
    title: Annotated[str, Field(min_length=1)]
    description: Annotated[str, Field(pattern=r"(?s).+\n\nGood: .+")]
    datasource: Source
    fieldConfig: FieldConfig  # noqa: N815
    gridPos: GridPos  # noqa: N815
    options: dict[str, object]
    targets: Annotated[list[Target], Field(min_length=1)]
    transformations: list[Transformation] = []


class Row(Strict):
    id: Annotated[int, Field(ge=1)]
    type: Literal["row"]
    title: Annotated[str, Field(min_length=1)]
    collapsed: Literal[False]
    gridPos: GridPos  # noqa: N815
    panels: Annotated[list[object], Field(max_length=0)]


class Annotation(Strict):
    datasource: Source
    enable: bool
    expr: Annotated[str, Field(min_length=1)]
    iconColor: str  # noqa: N815
    name: str
    step: str
    tagKeys: str  # noqa: N815
    textFormat: str  # noqa: N815
    titleFormat: str  # noqa: N815
    useValueForTime: bool  # noqa: N815


class Annotations(Strict):
    list: list[Annotation]


class SourceVariable(Strict):
    name: Literal["datasource"]
    type: Literal["datasource"]
    query: Literal["prometheus"]
    label: str
    current: dict[str, object]
    hide: Literal[0]
    includeAll: Literal[False]  # noqa: N815
    multi: Literal[False]
    options: list[object]
    refresh: Literal[1]
    regex: str


class VariableQuery(Strict):
    qryType: Literal[1]  # noqa: N815
    query: str
    refId: str  # noqa: N815


class QueryVariable(Strict):
    name: Literal["job", "rank"]
    type: Literal["query"]
    label: str
    datasource: Source
    definition: str
    query: VariableQuery
    allValue: str | None = None  # noqa: N815
    current: dict[str, object]
    hide: Literal[0]
    includeAll: bool  # noqa: N815
    multi: bool
    options: list[object]
    refresh: Literal[2]
    regex: str
    sort: Literal[1, 3]


class Templating(Strict):
    list: list[Annotated[SourceVariable | QueryVariable, Field(discriminator="type")]]


class Link(Strict):
    type: Literal["dashboards"]
    title: str
    tags: Annotated[list[str], Field(min_length=1)]
    includeVars: Literal[True]  # noqa: N815
    keepTime: Literal[True]  # noqa: N815
    asDropdown: bool  # noqa: N815
    icon: str
    targetBlank: bool  # noqa: N815
    tooltip: str
    url: str


class Span(Strict):
    from_: Annotated[str, Field(alias="from")]
    to: str


class Dashboard(Strict):
    id: None  # Grafana gives one
    uid: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    title: Annotated[str, Field(min_length=1)]
    description: Annotated[str, Field(min_length=1)]
    schemaVersion: Literal[39]  # noqa: N815
    version: Literal[1]
    tags: Annotated[list[str], Field(min_length=1)]
    annotations: Annotations
    editable: bool
    fiscalYearStartMonth: Literal[0]  # noqa: N815
    graphTooltip: Literal[0, 1, 2]  # noqa: N815
    links: Annotated[list[Link], Field(min_length=1)]
    panels: list[Annotated[Panel | Row, Field(discriminator="type")]]
    refresh: str
    templating: Templating
    time: Span
    timepicker: dict[str, object]
    timezone: str
    weekStart: str  # noqa: N815

    @property
    def drawn(self) -> list[Panel]:
        """All but the rows' titles."""
        return [panel for panel in self.panels if isinstance(panel, Panel)]
