"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients expect them. Errors have OpenAI's shape too."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mufun_jax.errors import UserError
from mufun_jax.generate.answer import Answer
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.question import Question
from mufun_jax.serve.chat_request import ChatRequest, question_of, without_folder
from mufun_jax.serve.limits import Limits
from mufun_jax.serve.worker import BusyError, ClosedError, Job, Worker

_MODEL = "mufun"
_FINISH = {"stop": "stop", "length": "length", "repetition": "stop"}
_GONE = 499  # the client has gone; nobody reads it
_log = logging.getLogger(__name__)

Item = str | dict[str, Any]  # pieces of text, and at the end the answer


def api(worker: Worker, limits: Limits) -> FastAPI:
    """What is below /v1."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    started = int(time.time())

    @app.get("/models")
    def models() -> Any:
        one = {"id": _MODEL, "object": "model", "created": started, "owned_by": "mufun_jax"}
        return {"object": "list", "data": [one]}

    @app.post("/chat/completions")
    async def completions(request: Request) -> Response:
        try:
            asked = ChatRequest.model_validate_json(await request.body())
            items = _items_for(request, worker, await _submitted(asked, worker, limits))
            head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": _MODEL}
            return await (_streamed if asked.stream else _whole)(items, head, asked)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001  every kind has its answer
            return failure(*_told(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return failure(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    return app


def failure(status: int, message: str) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    headers = {"Retry-After": "5"} if status in (429, 503) else None
    return JSONResponse({"error": _error(status, message)}, status, headers)


def _error(status: int, message: str) -> dict[str, Any]:
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": message, "type": kind, "param": None, "code": None}


def _told(error: Exception) -> tuple[int, str]:
    """The status of an error, and what the client is told."""
    match error:
        case BusyError():
            return 429, str(error)
        case ClosedError():
            return 503, str(error)
        case ValidationError():
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            fault = max(faults, key=lambda one: len(one["loc"]))  # of alternatives, the one that was meant
            place = ".".join(str(part) for part in fault["loc"])
            return 400, f"{place}: {fault['msg']}" if place else fault["msg"]
        case UserError():
            return 400, str(error)
    _log.error("a question was not answered", exc_info=error)
    return 500, "the server has failed; its log says how"


async def _submitted(asked: ChatRequest, worker: Worker, limits: Limits) -> Job[Item]:
    """The job of a request. What is wrong with it and can be known without the model is raised here."""
    folder = TemporaryDirectory(prefix="mufun-")
    try:
        question = await asyncio.to_thread(question_of, asked, limits, Path(folder.name))
        return worker.submit(_work(asked, question, Path(folder.name), limits), folder.cleanup)
    except BaseException as error:
        folder.cleanup()
        if isinstance(error, UserError):
            raise type(error)(without_folder(str(error), Path(folder.name))) from None
        raise


def _work(asked: ChatRequest, question: Question, folder: Path, limits: Limits) -> Callable[[MuFun], Iterator[Item]]:
    """What the model's thread does."""
    options: dict[str, Any] = {
        "max_new_tokens": asked.new_tokens(limits),
        "sampling": asked.sampling,
        "seed": asked.sampling_seed,
        "stop": asked.stops,
        "constraint": asked.constraint,
    }

    def work(model: MuFun) -> Iterator[Item]:
        try:
            prompt = model.listener.prompt(question)
            for piece in model.stream_answer(question, **options):
                yield _last(model, piece, len(prompt.spliced.tokens), folder) if isinstance(piece, Answer) else piece
        except UserError as error:
            raise UserError(without_folder(str(error), folder)) from None

    return work


def _last(model: MuFun, answer: Answer, prompt_tokens: int, folder: Path) -> dict[str, Any]:
    heard = [
        {**one.__dict__, "file": Path(one.file).name, "warnings": [without_folder(w, folder) for w in one.warnings]}
        for one in answer.heard
    ]
    texts = [model.tokenizer.bytes_of(token) for token in answer.tokens]
    log_probabilities = [
        {"token": text.decode(errors="replace"), "logprob": value, "bytes": list(text), "top_logprobs": []}
        for text, value in zip(texts, answer.log_probabilities, strict=True)
    ]
    count = len(answer.tokens)
    return {
        "text": answer.text,
        "finish_reason": _FINISH[answer.finish],
        "logprobs": {"content": log_probabilities, "refusal": None},
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count},
        "mufun": {"heard": heard, "finish": answer.finish},
    }


async def _items_for(request: Request, worker: Worker, job: Job[Item]) -> AsyncIterator[Item]:
    """What comes of a job. It is cancelled when the client goes away, which ends this."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        worker.cancel(job)

    watching = asyncio.create_task(watch())
    try:
        async for item in job:
            if item:
                yield item
    finally:
        watching.cancel()
        worker.cancel(job)


async def _whole(items: AsyncIterator[Item], head: dict[str, Any], asked: ChatRequest) -> Response:
    """The answer in one piece."""
    last: Item = ""
    async for item in items:
        last = item
    if isinstance(last, str):
        raise ClientDisconnect
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": last["text"], "refusal": None},
        "finish_reason": last["finish_reason"],
        "logprobs": last["logprobs"] if asked.logprobs else None,
    }
    body = {**head, "object": "chat.completion", "choices": [choice], "usage": last["usage"], "mufun": last["mufun"]}
    return JSONResponse(body)


async def _streamed(items: AsyncIterator[Item], head: dict[str, Any], asked: ChatRequest) -> Response:
    """Server-sent events. What fails before the first piece is an answer with an error's status."""
    head = {**head, "object": "chat.completion.chunk"}
    first = await anext(items, None)
    if first is None:
        raise ClientDisconnect

    def chunk(delta: dict[str, Any], **more: Any) -> str:
        return _event(
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None} | more]}
        )

    async def events() -> AsyncIterator[str]:
        yield chunk({"role": "assistant", "content": ""})
        item: Item | None = first
        while isinstance(item, str):
            yield chunk({"content": item})
            item = await anext(items, None)
        if item is None:
            return
        if asked.logprobs:
            yield chunk({}, logprobs=item["logprobs"])
        yield chunk({}, finish_reason=item["finish_reason"])
        if asked.stream_options is not None and asked.stream_options.include_usage:
            yield _event({**head, "choices": [], "usage": item["usage"], "mufun": item["mufun"]})
        yield "data: [DONE]\n\n"

    async def told() -> AsyncIterator[str]:
        try:
            async for event in events():
                yield event
        except Exception as error:  # noqa: BLE001  the status has been sent: an event tells it
            yield _event({"error": _error(*_told(error))})
        finally:
            await items.aclose()  # pyright: ignore[reportAttributeAccessIssue]  a generator

    return StreamingResponse(told(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
