"""Numbers and strangers' names as the page shows them."""

import html
import math

_LONGEST_NAME = 48  # characters, in a figure


def plain(text: str) -> str:
    """Text with what cannot be printed as escapes: control characters, marks that turn the direction of writing."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def for_figure(text: str) -> str:
    """A name for Plotly, which reads some HTML in all text: shown as it is, on one line, and cut where it is long."""
    shown = plain(text.replace("\n", " "))
    if len(shown) > _LONGEST_NAME:
        shown = shown[: _LONGEST_NAME - 1] + "…"
    return html.escape(shown, quote=False)


def duration(seconds: float) -> str:
    """The two largest units: `4 d 7 h`, `3 h 12 min`, `8 min 5 s`; of minutes from 10 on, and of seconds, one."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    for size, unit, smaller, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller if size > 60 or left < 600 else 0
            return f"{left // size:,} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{left} s"


def percent(share: float) -> str:
    """`41.2 %`, `50 %`."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def short(value: float) -> str:
    """A number in a few characters: `0.4183`, `12.3`, `184 k`, `1.25 M`, `2e-05`."""
    if not math.isfinite(value):
        return "–"
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == " k" else size)
            return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:,.0f}{unit}"
    return f"{value:.4g}"


def counted(count: int, noun: str) -> str:
    """`1 song`, `2,000 songs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
