"""What `mufun plan` does: compiles, prints what that says, and refuses what does not fit."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from mufun_jax.commands import show
from mufun_jax.errors import UserError
from mufun_jax.progress import progress_bar

if TYPE_CHECKING:
    from mufun_jax.config import RunConfig
    from mufun_jax.plan.plan import Request


def plan(
    run: "RunConfig",
    stage: str | None,
    topology: str,
    *,
    slices: int = 1,
    program: Literal["train", "prefill", "decode"] = "train",
    weights: Literal["bfloat16", "int8"] = "bfloat16",
    rows: int = 1,
    search: bool = False,
    tries: int = 6,
    as_json: bool = False,
) -> None:
    """Compiles for a topology and prints what that says. Raises UserError, after that, for what does not fit."""
    from mufun_jax.plan.plan import Request, make_plan
    from mufun_jax.plan.report import does_not_fit, plan_json, plan_report
    from mufun_jax.plan.search import nearest_fit
    from mufun_jax.plan.topology import parse_topology

    stage = stage if stage is not None else run.curriculum[-1]
    request = Request(run, stage, parse_topology(topology, slices), program, weights, rows)
    request.check()
    if search:
        _search_plans(request, tries, as_json=as_json)
        return
    with Console(stderr=True).status(f"Compiling for {request.topology.name} (minutes for a large model)"):
        made = make_plan(request)
    nearest = None
    if not made.fits and program == "train" and tries:
        with progress_bar("Looking for the nearest that fits", stays=False) as advance:
            nearest = nearest_fit(made, tries, advance)
    if as_json:
        refused = {} if made.fits else {"nearest": nearest and plan_json(nearest)}
        print(json.dumps(plan_json(made) | refused))
    else:
        show(plan_report(made))
    if not made.fits:
        raise UserError(does_not_fit(made, nearest))


def _search_plans(request: "Request", tries: int, *, as_json: bool) -> None:
    from mufun_jax.plan.report import search_json, search_report
    from mufun_jax.plan.search import search

    with progress_bar("Compiling") as advance:
        found = search(request, tries, advance)
    if as_json:
        print(json.dumps(search_json(found)))
    else:
        show(search_report(found))
    if found.best is None:
        raise UserError(
            f"none of the {len(found.plans)} that were compiled fits {request.topology.name}; raise --tries"
        )


def predict_benchmark(run: "RunConfig", *, as_json: bool) -> None:
    """Prints how long all of MuCUE's questions are predicted to take, on each machine, if answers are short or long."""
    from mufun_jax.evaluate.benchmarks.published import published
    from mufun_jax.evaluate.predicted_time import (
        MACHINES,
        BenchmarkSet,
        Workload,
        predict_sets,
        predicted_table,
        read_seconds,
    )

    sets = [BenchmarkSet(each.name, each.questions, read_seconds(each.audio)) for each in published().sets]
    short = Workload()
    longest = replace(short, decoded=1.0)
    found = {}
    for machine in MACHINES:
        times = predict_sets(run.model, machine, sets, short)
        at_most = sum(time.seconds for time in predict_sets(run.model, machine, sets, longest))
        found[machine.name] = {
            "questions": sum(time.questions for time in times),
            "weights": machine.weights,
            "seconds": sum(time.seconds for time in times),
            "seconds_if_all_tokens_are_decoded": at_most,
            "sets": {time.name: time.seconds for time in times},
        }
        if not as_json:
            decoded = f"{short.decoded * short.new_tokens:.0f} of {short.new_tokens} tokens decoded"
            title = f"{machine.name}, {machine.weights} weights, {decoded}; with all of them {at_most / 60:.1f} min"
            show([title, predicted_table(times)])
    if as_json:
        print(json.dumps(found))
