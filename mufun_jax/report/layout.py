"""What all figures look like, as a Plotly layout."""

from typing import Any

from mufun_jax.report.palette import AXIS, GRID, INK, QUIET, SURFACE

CLEAR = "rgba(0,0,0,0)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
AXIS_LINES = {"linecolor": AXIS, "tickcolor": AXIS, "gridcolor": GRID}


def base_layout(height: int, *, left: int, right: int, top: int, bottom: int) -> dict[str, Any]:
    """The layout that a figure's own is merged into; sizes in pixels, the last four of the margins.

    Legends are the page's own, and the page draws colours of the palette in the theme of the reader.
    """
    return {
        "template": {},
        "height": height,
        "margin": {"l": left, "r": right, "t": top, "b": bottom},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": FONT, "size": 12, "color": QUIET},
        "hoverlabel": {"bgcolor": SURFACE, "bordercolor": AXIS, "font": {"color": INK, "family": FONT, "size": 12}},
        "hovermode": "closest",
        "showlegend": False,
        "modebar": {"bgcolor": CLEAR, "color": QUIET, "activecolor": INK},
    }
