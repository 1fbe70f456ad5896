"""Interactive figures: book/_static/chart.js draws them with Plotly, which the book brings along."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from html import escape
from typing import Any, Dict, Mapping, Optional, Sequence

from matplotlib.figure import Figure


class Chart:
    """A figure that readers can press and move. data, layout: Plotly's. still: a picture of it for
    paper and for where there is no script; without one, the figure is on screens only."""

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        layout: Mapping[str, Any],
        caption: str,
        alt: str,
        still: Optional[Figure] = None,
    ) -> None:
        self.chart: Dict[str, Any] = {"data": data, "layout": {**_LAYOUT, **layout}}
        self.caption, self.alt, self.still = caption, alt, ""
        if still is not None:
            file = io.BytesIO()
            still.savefig(file, format="svg")
            self.still = b64encode(file.getvalue()).decode()

    def _repr_html_(self) -> str:
        chart, alt = json.dumps(self.chart).replace("</", "<\\/"), escape(self.alt, quote=True)
        picture = f'<img class="still" alt="{alt}" src="data:image/svg+xml;base64,{self.still}">'
        return (
            f'<figure class="chart{"" if self.still else " moving"}">'
            f'<div class="plot" role="img" aria-label="{alt}"></div>'
            f'<script type="application/json">{chart}</script>{picture if self.still else ""}'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )

    def __repr__(self) -> str:
        return f"Chart: {self.caption}"


_LAYOUT: Dict[str, Any] = {"margin": {"l": 55, "r": 10, "t": 50, "b": 50}, "hovermode": "closest"}


def slider(
    name: str, steps: Mapping[str, Sequence[Mapping[str, Any]]], active: int
) -> dict[str, Any]:
    """The part of a `layout` with a slider and the text above the panels. steps: label -> what
    changes (of the traces, of the layout), as Plotly's `update` takes it; the layout's
    "annotations[0].text" is that text. active: the step that is drawn first."""
    [_, first] = list(steps.values())[active]
    text = {
        "text": first["annotations[0].text"],
        "showarrow": False,
        "align": "left",
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 1.02,
        "yref": "paper",
        "yanchor": "bottom",
    }
    moved = {
        "active": active,
        "currentvalue": {"prefix": f"{name}: "},
        "pad": {"t": 45},
        "steps": [
            {"label": label, "method": "update", "args": list(changes)}
            for label, changes in steps.items()
        ],
    }
    return {"annotations": [text], "sliders": [moved]}
