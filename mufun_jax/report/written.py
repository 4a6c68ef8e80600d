"""Reports as files: each whole or not at all, in the place that was asked for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from mufun_jax.errors import UserError


def check_libraries(what: str) -> None:
    """Raises UserError where what draws pages is not installed, before `what` has computed for hours."""
    for library, name in (("plotly", "Plotly"), ("jinja2", "Jinja2")):
        if find_spec(library) is None:
            raise UserError(f"{what} needs {name}, which is not installed: pip install 'mufun_jax[report]'")


def made_at(now: float) -> str:
    """When a report was made, from seconds since 1970."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Writes files to `folder`, each whole or not at all, and returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        aside = folder / f"{name}.partial"
        aside.write_text(text, encoding="utf-8")
        aside.rename(folder / name)
    return [folder / name for name in texts]
