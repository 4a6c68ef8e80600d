"""An inspection as tables for the terminal."""

from collections.abc import Iterator

from rich.table import Table

from mufun_jax.convert.inspect import Inspection


def inspection_tables(found: Inspection, *, tensors: bool) -> Iterator[str | Table]:
    """What a folder is, its parts, its sizes, where it is from, and with `tensors` each tensor."""
    files = {row.file for row in found.tensors}
    yield (
        f"{found.folder}: {found.kind}, {len(found.tensors)} tensors, {found.parameters:,} parameters, "
        f"{found.nbytes / 1e9:.2f} GB in {len(files)} {'file' if len(files) == 1 else 'files'}; each has its place"
    )
    parts = Table("part", box=None)
    for heading in ("tensors", "parameters", "dtype"):
        parts.add_column(heading, justify="right")
    for name, part in found.parts.items():
        parts.add_row(name, str(part["tensors"]), f"{part['parameters']:,}", ", ".join(part["dtypes"]))
    yield parts
    sizes = Table("size", "value", box=None)
    for key, value in _flat(found.sizes):
        sizes.add_row(key, str(value))
    yield sizes
    for base in found.origin.base_models:
        yield f"from {base.name}: {', '.join(base.parts)} (licence {base.license or 'not known'})"
    for stage in found.origin.stages:
        yield f"trained: {stage.name}, {stage.steps:,} steps of {', '.join(stage.trained_parts)}"
    if tensors:
        yield from _tensor_lines(found)


def _tensor_lines(found: Inspection) -> Iterator[str]:
    """A line a tensor, whole: name, shape, dtype, file, and which layer of which parameter it is."""
    cells = [(row.name, " x ".join(map(str, row.shape)), row.dtype, row.file) for row in found.tensors]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, words in zip(found.tensors, cells, strict=True):
        padded = "  ".join(f"{word:<{width}}" for word, width in zip(words, widths, strict=True))
        yield f"{padded}  {row.parameter}" + ("" if row.layer is None else f"[{row.layer}]")


def _flat(sizes: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in sizes.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
