"""MuFun as a model of lmms-eval: `python -m lmms_eval --model mufun --model_args pretrained=FOLDER --tasks …`.

Only lmms-eval imports this (see `manifest`). It is written to the interface of lmms-eval 0.7.3.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]

from mufun_jax.errors import UserError, nearest
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.question import Audio, Question, make_question
from mufun_jax.generate.sample import Sampling
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER

DEFAULT_NEW_TOKENS = 256  # where a task names no limit
_GENERATION = (
    "until",
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "do_sample",
    "num_beams",
)
_Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Decoding:
    """How a task wants its answers made."""

    max_new_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]


class MuFunLmms(lmms):
    """`pretrained` is a model folder, ours or a released one, or a hub's owner/name.

    `batch_size` is the number of questions answered together; those about one song share what is computed of it.
    JAX chooses the device: `device` may only be left out. `prefix_memory` is in GiB, `seed` that of the sampling.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        dtype: _Dtype = "bfloat16",
        quantize: Literal["int8"] | None = None,
        prefix_memory: int | float = 2.0,
        seed: int = 0,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ):
        super().__init__()
        known = ["pretrained", "dtype", "quantize", "prefix_memory", "seed", "batch_size"]
        for name in unknown:
            raise UserError(f"model_args: no {name!r}{nearest(name, known)}; there are {', '.join(known)}")
        if dtype not in get_args(_Dtype):
            raise UserError(f"model_args: dtype {dtype!r} is none of {', '.join(get_args(_Dtype))}")
        if quantize not in (None, "int8"):
            raise UserError(f"model_args: quantize {quantize!r}: write int8, or leave it out")
        if device is not None or max_batch_size is not None:
            raise UserError(
                "JAX chooses the device, and batches are as large as --batch_size says: leave --device and "
                "--max_batch_size out"
            )
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise UserError(f"--batch_size {batch_size}: write a number from 1 on")
        self.batch_size = int(batch_size)
        self.seed = seed
        self.mufun = MuFun.from_pretrained(pretrained, dtype, quantize=quantize, prefix_memory=prefix_memory)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each request, in their order.

        `args` are (context, generation's settings, doc_to_visual, doc_id, task, split).

        Raises:
            UserError: a setting that is not known or not possible, or something else than audio to look at.
        """
        by_decoding: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            by_decoding.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        replies: dict[int, str] = {}
        for settings, places in by_decoding.items():
            decoding = read_decoding(json.loads(settings))
            for batch in _batches(places, self.batch_size):
                questions = [self._question(requests[place].args) for place in batch]
                answers = self.mufun.answer(
                    questions,
                    max_new_tokens=decoding.max_new_tokens,
                    sampling=decoding.sampling,
                    seed=self.seed,
                    stop=decoding.stop,
                )
                replies |= {place: answer.text for place, answer in zip(batch, answers, strict=True)}
        return [replies[place] for place in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """For each request its loss, and whether its continuation is what the model says greedily.

        Whatever its name says, lmms-eval's tasks take the option for which this is least (`acc`), or least by its
        length in characters (`acc_norm`). So it is the negative log-probability of the whole continuation, in nats, the
        end of the turn included, spaces around it left out. `args` are (context, continuation, doc_to_visual, doc_id,
        task, split); a continuation may be a function of the document.
        """
        by_question: dict[tuple[Any, ...], list[int]] = {}
        for place, request in enumerate(requests):
            context, _, _, doc_id, task, split = _six(request.args)
            by_question.setdefault((context, doc_id, task, split), []).append(place)
        found: dict[int, tuple[float, bool]] = {}
        for batch in _batches(list(by_question.values()), self.batch_size):
            questions = [self._question(requests[places[0]].args) for places in batch]
            options = [[self._continuation(requests[place].args) for place in places] for places in batch]
            scores = [self.mufun.score_options(*of_one) for of_one in zip(questions, options, strict=True)]
            longest = max(score.tokens for of_one in scores for score in of_one)
            greedy = self.mufun.answer(questions, max_new_tokens=longest)
            for places, of_one, said in zip(batch, scores, greedy, strict=True):
                for place, score in zip(places, of_one, strict=True):
                    is_greedy = said.finished and said.text.strip() == score.option
                    found[place] = (-score.log_probability, is_greedy)
        return [found[place] for place in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise UserError("MuFun's adapter for lmms-eval answers one round; choose tasks of one round")

    def _question(self, args: Sequence[Any]) -> Question:
        context, _, doc_to_visual, doc_id, task, split = _six(args)
        audio = [_audio(one) for one in doc_to_visual(self.task_dict[task][split][doc_id]) or ()]
        if audio and AUDIO_PLACEHOLDER not in context:
            context = f"{AUDIO_PLACEHOLDER}\n" * len(audio) + context
        return make_question(context, audio)

    def _continuation(self, args: Sequence[Any]) -> str:
        _, continuation, _, doc_id, task, split = _six(args)
        text = continuation(self.task_dict[task][split][doc_id]) if callable(continuation) else continuation
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"task {task}, document {doc_id}: the continuation {text!r} is no text")
        return text.strip()


def read_decoding(settings: Mapping[str, Any]) -> Decoding:
    """From a task's `generation_kwargs`; a setting that is null is as if left out.

    Greedy unless `do_sample` is true or, where that is left out, a temperature is above 0; top_p and top_k of a greedy
    answer mean nothing, and are not looked at.

    Raises:
        UserError: names a setting that is not known, or a value that is not possible.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in _GENERATION:
            raise UserError(
                f"generation_kwargs: no {name!r}{nearest(name, list(_GENERATION))}; there are {', '.join(_GENERATION)}"
            )
    until = given.get("until", ())
    stop = (until,) if isinstance(until, str) else tuple(until)
    if given.get("num_beams", 1) != 1:
        raise UserError(f"generation_kwargs: num_beams {given['num_beams']}: MuFun follows one; write 1")
    new_tokens = given.get("max_new_tokens", DEFAULT_NEW_TOKENS)
    if not isinstance(new_tokens, int) or isinstance(new_tokens, bool):
        raise UserError(f"generation_kwargs: max_new_tokens {new_tokens!r}: write a whole number")
    penalty = _number(given, "repetition_penalty", 1.0)
    temperature = _number(given, "temperature", 1.0 if given.get("do_sample", False) else 0.0)
    if temperature == 0 or not given.get("do_sample", True):
        return Decoding(new_tokens, Sampling(repetition_penalty=penalty), stop)
    top_k = int(_number(given, "top_k", 0))
    return Decoding(new_tokens, Sampling(temperature, _number(given, "top_p", 1.0), top_k, penalty), stop)


def _number(given: Mapping[str, Any], name: str, default: int | float) -> float:
    value = given.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"generation_kwargs: {name} {value!r}: write a number")
    return float(value)


def _six(args: Sequence[Any]) -> Sequence[Any]:
    """Raises UserError for a request without a document, such as lmms-eval makes for mutual information."""
    if len(args) != 6:
        raise UserError(f"a request with {len(args)} arguments and not 6; choose tasks without acc_mutual_info")
    return args


def _audio(given: Any) -> Audio:
    """A song of a document: decoded ({"array", "sampling_rate"}), not decoded ({"bytes"} or {"path"}), a path, or
    torchcodec's decoder, as newer versions of `datasets` give."""
    match given:
        case {"array": array, "sampling_rate": int() | float() as rate}:
            return np.asarray(array), rate
        case {"bytes": bytes() as data}:
            return data
        case {"path": str(path)} | (str() as path):
            return path
        case _ if hasattr(given, "get_all_samples"):
            samples = given.get_all_samples()
            return np.asarray(samples.data), samples.sample_rate
    raise UserError(f"a {type(given).__name__} to look at: MuFun hears audio only; choose tasks of audio")


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
