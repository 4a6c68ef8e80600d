"""One job at a time, in order; those that nobody waits for end; and a model that nobody asks is unloaded."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mufun_jax.errors import UserError
from mufun_jax.serve.worker import BusyError, ClosedError, Worker
from tests.serve.served import wait_for


class Model(SimpleNamespace):
    def __init__(self):
        super().__init__(engine=SimpleNamespace(on_compile=None))


def working(load: Any = Model, idle_seconds: float = 600, most_waiting: int = 3) -> Worker:
    worker = Worker(load, most_waiting=most_waiting, idle_seconds=idle_seconds)
    worker.start()
    return worker


class Blocking:
    """A job that says "one", and "two" when it is let on."""

    def __init__(self):
        self.begun, self.on, self.closed = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, model):
        try:
            yield "one"
            self.begun.set()
            assert self.on.wait(20)
            yield "two"
            yield "three"
        finally:
            self.closed.set()


async def all_of(job) -> list[Any]:
    return [item async for item in job]


def run(scenario, **options) -> None:
    worker = working(**options)
    try:
        asyncio.run(asyncio.wait_for(scenario(worker), 60))
    finally:
        worker.close()
    assert worker.running is None


def test_jobs_come_one_after_another_and_the_model_is_loaded_once():
    loads, order = [], []

    def load():
        loads.append(1)
        return Model()

    async def scenario(worker):
        assert not worker.loaded
        jobs = [worker.submit(lambda model, n=n: iter([n, -n]), lambda n=n: order.append(n)) for n in (1, 2, 3)]
        assert [await all_of(job) for job in jobs] == [[1, -1], [2, -2], [3, -3]]
        assert (order, loads) == ([1, 2, 3], [1])

    run(scenario, load=load)


def test_a_full_line_takes_no_more():
    async def scenario(worker):
        first = Blocking()
        running = worker.submit(first)
        await asyncio.to_thread(first.begun.wait, 20)
        waiting = [worker.submit(lambda model: iter([1])) for _ in range(2)]
        with pytest.raises(BusyError, match="2 questions are waiting"):
            worker.submit(lambda model: iter([1]))
        assert [worker.doing(job) for job in (*waiting, running)] == [
            "Waiting for 1 other",
            "Waiting for 2 others",
            "Listening",
        ]
        first.on.set()
        assert await all_of(running) == ["one", "two", "three"]
        assert [await all_of(job) for job in waiting] == [[1], [1]]

    run(scenario, most_waiting=2)


def test_a_cancelled_job_ends_with_its_next_piece_and_is_closed():
    async def scenario(worker):
        work, after = Blocking(), threading.Event()
        job = worker.submit(work, after.set)
        await asyncio.to_thread(work.begun.wait, 20)
        worker.cancel(job)
        work.on.set()
        assert await all_of(job) == ["one", "two"]
        assert work.closed.is_set()
        assert after.is_set()
        worker.cancel(job)

    run(scenario)


def test_a_job_that_is_cancelled_in_the_line_ends_at_once_and_leaves_its_place():
    async def scenario(worker):
        first, after = Blocking(), threading.Event()
        running = worker.submit(first)
        await asyncio.to_thread(first.begun.wait, 20)
        waiting = worker.submit(lambda model: pytest.fail("it was not to run"), after.set)
        worker.cancel(waiting)
        assert await all_of(waiting) == []
        assert after.is_set()
        assert worker.waiting == 0
        first.on.set()
        await all_of(running)

    run(scenario)


def test_whoever_waits_for_a_job_gets_its_error_and_the_next_one_runs():
    def fails(model):
        yield "one"
        raise UserError("no song")

    async def scenario(worker):
        job = worker.submit(fails)
        with pytest.raises(UserError, match="no song"):
            await all_of(job)
        assert await all_of(worker.submit(lambda model: iter([2]))) == [2]

    run(scenario)


def test_a_model_that_cannot_be_loaded_is_tried_again():
    loads = []

    def load():
        loads.append(1)
        if len(loads) == 1:
            raise UserError("/secret/folder: damaged")
        return Model()

    async def scenario(worker):
        with pytest.raises(ClosedError, match=r"cannot be loaded; the server's log says why$"):
            await all_of(worker.submit(lambda model: iter([1])))
        assert await all_of(worker.submit(lambda model: iter([2]))) == [2]

    run(scenario, load=load)


def test_an_idle_model_is_unloaded_and_loaded_again():
    loads = []

    async def scenario(worker):
        for times in (1, 2):
            assert await all_of(worker.submit(lambda model: iter([1]))) == [1]
            await asyncio.to_thread(wait_for, lambda: not worker.loaded)
            assert len(loads) == times

    run(scenario, load=lambda: loads.append(1) or Model(), idle_seconds=0.05)


def test_a_model_that_is_asked_is_not_unloaded():
    async def scenario(worker):
        work = Blocking()
        job = worker.submit(work)
        await asyncio.to_thread(work.begun.wait, 20)
        await asyncio.sleep(0.1)
        assert worker.loaded
        work.on.set()
        await all_of(job)

    run(scenario, idle_seconds=0.02)


def test_what_is_compiled_is_told():
    async def scenario(worker):
        first, second = Blocking(), Blocking()

        def work(model):
            model.engine.on_compile("songs of 4 s", None)
            yield from first(model)
            model.engine.on_compile("songs of 4 s", 0.1)
            yield from second(model)

        job = worker.submit(work)
        await asyncio.to_thread(first.begun.wait, 20)
        assert worker.doing(job) == "Compiling, once, for songs of 4 s"
        first.on.set()
        await asyncio.to_thread(second.begun.wait, 20)
        assert worker.doing(job) == "Listening"
        second.on.set()

    run(scenario)


def test_what_nothing_comes_of_is_told_at_a_pace():
    async def scenario(worker):
        work = Blocking()
        items = worker.submit(work).paced(0.01)
        assert await anext(items) == "one"
        assert [await anext(items) for _ in range(3)] == [None] * 3
        work.on.set()
        assert [item async for item in items if item] == ["two", "three"]

    run(scenario)


def test_a_server_that_goes_down_ends_what_runs_and_refuses_what_waits():
    async def scenario(worker):
        work, after = Blocking(), threading.Event()
        running, waiting = worker.submit(work), worker.submit(lambda model: iter([1]), after.set)
        await asyncio.to_thread(work.begun.wait, 20)
        closing = asyncio.create_task(asyncio.to_thread(worker.close))
        with pytest.raises(ClosedError, match="going down"):
            await all_of(waiting)
        work.on.set()
        assert await all_of(running) == ["one", "two"]
        await closing
        assert after.is_set()
        with pytest.raises(ClosedError, match="going down"):
            worker.submit(lambda model: iter([1]))

    run(scenario)
