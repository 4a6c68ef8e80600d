"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients expect them."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError

from mufun_jax.errors import UserError
from mufun_jax.generate.answer import Answer
from mufun_jax.generate.chat import MuFun
from mufun_jax.serve.chat_request import ChatRequest, question_of
from mufun_jax.serve.limits import Limits
from mufun_jax.serve.worker import BusyError, ClosedError, Job, Worker

_MODEL = "mufun"
_DEFAULT_NEW_TOKENS = 256
_LOOK = 0.25  # seconds between two looks at whether the client is still there
_FINISH = {"stop": "stop", "length": "length", "repetition": "stop"}
_NO_ANSWER = 499  # the client has gone; nobody reads it


def router(worker: Worker, limits: Limits) -> APIRouter:
    """The routes below /v1."""
    routes = APIRouter(prefix="/v1")
    started = int(time.time())

    @routes.get("/models")
    def models() -> Any:
        one = {"id": _MODEL, "object": "model", "created": started, "owned_by": "mufun_jax"}
        return {"object": "list", "data": [one]}

    @routes.post("/chat/completions")
    async def completions(request: Request) -> Response:
        try:
            asked = ChatRequest.model_validate_json(await request.body())
            wanted = asked.new_tokens or min(_DEFAULT_NEW_TOKENS, limits.new_tokens)
            if wanted > limits.new_tokens:
                return failure(400, f"max_tokens {wanted}: at most {limits.new_tokens} are given")
            job = worker.submit(_work(asked, wanted, limits))
        except ValidationError as error:
            return failure(400, _first_fault(error))
        except BusyError as error:
            return failure(429, str(error), {"Retry-After": "5"})
        except ClosedError as error:
            return failure(503, str(error))
        except UserError as error:
            return failure(400, str(error))
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": _MODEL}
        if asked.stream:
            return await _streamed(job, head, asked)
        return await _whole(request, job, head, asked)

    return routes


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 429 else "rate_limit_error" if status == 429 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status, headers)


def _work(asked: ChatRequest, new_tokens: int, limits: Limits) -> Callable[[MuFun], Iterator[dict[str, Any] | str]]:
    """What the model's thread does. The last item is the answer with its log-probabilities.

    What is wrong with the request and can be known without the model is raised here.
    """
    constraint, sampling, stops = asked.constraint, asked.sampling, asked.stops
    with question_of(asked, limits):
        pass

    def work(model: MuFun) -> Iterator[dict[str, Any] | str]:
        with question_of(asked, limits) as question:
            names = {str(path): path.name for path in question.audio_files}
            try:
                prompt = model.listener.prompt(question)
                pieces = model.stream_answer(
                    question,
                    max_new_tokens=new_tokens,
                    sampling=sampling,
                    seed=(asked.seed or 0) % 2**32,
                    stop=stops,
                    constraint=constraint,
                )
                for piece in pieces:
                    yield _last(model, piece, len(prompt.spliced.tokens), names) if isinstance(piece, Answer) else piece
            except UserError as error:  # with the file's name here, which the client has never heard of
                raise UserError(_without_paths(str(error), names)) from None

    return work


def _last(model: MuFun, answer: Answer, prompt_tokens: int, names: dict[str, str]) -> dict[str, Any]:
    heard = [{**one.__dict__, "file": names[one.file]} for one in answer.heard]
    for one in heard:
        one["warnings"] = [_without_paths(warning, names) for warning in one["warnings"]]
    texts = [model.tokenizer.bytes_of(token) for token in answer.tokens]
    log_probabilities = [
        {"token": text.decode(errors="replace"), "logprob": value, "bytes": list(text), "top_logprobs": []}
        for text, value in zip(texts, answer.log_probabilities, strict=True)
    ]
    count = len(answer.tokens)
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}
    return {
        "text": answer.text,
        "finish_reason": _FINISH[answer.finish],
        "logprobs": {"content": log_probabilities, "refusal": None},
        "usage": usage,
        "mufun": {"heard": heard, "finish": answer.finish},
    }


def _without_paths(text: str, names: dict[str, str]) -> str:
    for path, name in names.items():
        text = text.replace(path, name)
    return text


async def _whole(request: Request, job: Job[Any], head: dict[str, Any], asked: ChatRequest) -> Response:
    """The answer in one piece. A client that goes away ends the job."""
    ending = asyncio.ensure_future(asyncio.to_thread(lambda: [item for item in job][-1:]))
    try:
        while not ending.done():
            await asyncio.wait([ending], timeout=_LOOK)
            if not ending.done() and await request.is_disconnected():
                job.cancel()
                return Response(status_code=_NO_ANSWER)
        try:
            (last,) = ending.result()
        except Exception as error:  # noqa: BLE001  every kind has its answer
            return _failed(error)
    finally:
        job.cancel()
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": last["text"], "refusal": None},
        "finish_reason": last["finish_reason"],
        "logprobs": last["logprobs"] if asked.logprobs else None,
    }
    body = {**head, "object": "chat.completion", "choices": [choice], "usage": last["usage"], "mufun": last["mufun"]}
    return JSONResponse(body)


async def _streamed(job: Job[Any], head: dict[str, Any], asked: ChatRequest) -> Response:
    """Server-sent events. What fails before the first piece is an answer with an error's status."""
    items = iter(job)
    try:
        first = await asyncio.to_thread(next, items, None)
    except Exception as error:  # noqa: BLE001  every kind has its answer
        return _failed(error)

    def event(delta: dict[str, Any], **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None} | more
        return _event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    async def events() -> AsyncIterator[str]:
        item = first
        try:
            yield event({"role": "assistant", "content": ""})
            while isinstance(item, str):
                yield event({"content": item})
                item = await asyncio.to_thread(next, items, None)
            if item is not None:
                if asked.logprobs:
                    yield event({}, logprobs=item["logprobs"])
                yield event({}, finish_reason=item["finish_reason"])
                if asked.stream_options is not None and asked.stream_options.include_usage:
                    chunk = {**head, "object": "chat.completion.chunk", "choices": [], "usage": item["usage"]}
                    yield _event({**chunk, "mufun": item["mufun"]})
            yield "data: [DONE]\n\n"
        except UserError as error:
            yield _event({"error": {"message": str(error), "type": "invalid_request_error"}})
        finally:
            job.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _failed(error: Exception) -> JSONResponse:
    if isinstance(error, ClosedError):
        return failure(503, str(error))
    if isinstance(error, UserError):
        return failure(400, str(error))
    raise error


def _first_fault(error: ValidationError) -> str:
    """Pydantic's first complaint, without the input."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else fault["msg"]
