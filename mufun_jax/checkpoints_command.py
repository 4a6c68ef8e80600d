"""What `mufun checkpoints` does: a table of a run's checkpoints, and whether they verify."""

import json
import logging
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table

from mufun_jax import commands
from mufun_jax.progress import progress_bar


def checkpoints(workdir: Path, *, as_json: bool) -> bool:
    """Prints the checkpoints of a run; returns whether all of them verify, as far as they were sealed."""
    from mufun_jax.train.checkpoint_list import list_checkpoints

    logging.getLogger("absl").setLevel(logging.ERROR)
    with progress_bar("Verifying", stays=False) as advance:
        listed = list_checkpoints(workdir, advance)
    if as_json:
        print(json.dumps([one.to_json() for one in listed]))
        return all(one.fault is None for one in listed)
    evaluated = any(one.evaluation_loss is not None for one in listed)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("step", "stage, step", "loss", *(("evaluation",) if evaluated else ()), "saved", "size", "verifies"):
        right = name in ("step", "loss", "evaluation", "size")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for one in listed:
        losses = [one.loss, one.evaluation_loss] if evaluated else [one.loss]
        table.add_row(
            str(one.global_step),
            "?" if one.stage is None else f"{one.stage}, {one.step}",
            *("" if loss is None else f"{loss:.4f}" for loss in losses),
            "?" if one.saved is None else one.saved[:16].replace("T", " "),
            decimal(one.size),
            {True: "yes", False: "NO", None: "not sealed"}[one.verifies],
        )
    notes = [f"step {one.global_step}: {one.fault}" for one in listed if one.fault is not None]
    if any(one.verifies is None for one in listed):
        notes.append("not sealed: the run was killed just after the save; its arrays are checked when it is restored")
    commands.show([table, *notes])
    return all(one.fault is None for one in listed)
