"""The page's colours, light and dark. Figures are made in the light ones; the page turns them dark."""

INK, QUIET, AXIS, GRID, SURFACE = "#0b0b0b", "#6b6a66", "#c3c2b7", "#e6e5de", "#fdfdfc"
GOOD, WARNING, BAD, IDLE = "#188a42", "#c77700", "#d23b3b", "#a9a8a1"

# Neighbours differ in hue and lightness, so that they are told apart without colour vision too.
SERIES = ("#2a78d6", "#12a070", "#c08400", "#7a4fd0", "#e34948", "#0893a8", "#d55b97", "#6b8e23")

DARK = {
    INK: "#f4f4f2",
    QUIET: "#9d9c95",
    AXIS: "#4a4a46",
    GRID: "#2b2b29",
    SURFACE: "#1b1b1a",
    GOOD: "#3fbf6f",
    WARNING: "#f0a83a",
    BAD: "#f06a6a",
    IDLE: "#6b6a65",
    "#2a78d6": "#5a9df0",
    "#12a070": "#36c596",
    "#c08400": "#e0aa35",
    "#7a4fd0": "#a58bf0",
    "#e34948": "#f07c7a",
    "#0893a8": "#3bbdd0",
    "#d55b97": "#ea86b6",
    "#6b8e23": "#a3c25a",
}


def series(number: int) -> str:
    """The colour of the stage, set or part with this number; they come again after the last."""
    return SERIES[number % len(SERIES)]


def css_variables(*, dark: bool) -> str:
    """The colours as CSS variables: --ink, …, --series-0, …"""
    names = {
        "ink": INK,
        "quiet": QUIET,
        "axis": AXIS,
        "grid": GRID,
        "surface": SURFACE,
        "good": GOOD,
        "warning": WARNING,
        "bad": BAD,
        "idle": IDLE,
    } | {f"series-{number}": colour for number, colour in enumerate(SERIES)}
    return " ".join(f"--{name}: {DARK[colour] if dark else colour};" for name, colour in names.items())
