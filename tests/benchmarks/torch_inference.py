"""One model in JAX and in PyTorch, from the same weights: encoder, prefill and decoding, to be timed side by side."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import DynamicCache, StaticCache

from mufun_jax.config import ModelConfig
from mufun_jax.generate.decode import Decoding, Prompts, Texts, advance, begin, run_prefix, stack
from mufun_jax.generate.sample import Sampling
from mufun_jax.model.compute import Compute
from mufun_jax.model.kv_cache import Prefix
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.weights.params import Params, layers_apart
from tests.parity.reference_model import ReferenceModel

GREEDY = Sampling()
NO_TOKEN = np.int32(-1)  # as the end of a turn: no answer ends by itself


class Ours:
    """The programs that the engine runs on a CPU."""

    def __init__(self, config: ModelConfig, params: Params):
        self.model = MuFunModel(config, Compute(kernel="blocks", scan_layers=False))
        self.params = layers_apart(params, jax.devices()[0])
        self._encode = jax.jit(
            lambda params, log_mel: self.model.apply(
                {"params": params}, log_mel, method=lambda model, x: model.connector(model.encoder(x))
            )
        )

    def encode(self, log_mel: np.ndarray) -> np.ndarray:
        """Audio tokens of windows [windows, mel_bins, mel frames]."""
        return np.asarray(self._encode(self.params, log_mel.transpose(0, 2, 1)))

    def prefix(self, tokens: np.ndarray) -> Prefix:
        """Runs one prompt of text [positions]: prefill."""
        prompts = Prompts(
            tokens[None].astype(np.int32),
            np.full((1, len(tokens)), -1, np.int32),
            np.array([len(tokens)], np.int32),
            np.zeros((1, 0, self.model.config.encoder.window_samples), np.float32),
        )
        return jax.block_until_ready(run_prefix(self.model, self.params, prompts, len(tokens), False))

    def begin(self, prefixes: Sequence[Prefix], questions: np.ndarray, most: int) -> tuple[Prefix, Decoding]:
        """Rows [questions, positions] after one prefix that they share, or each after its own."""
        prefix = prefixes[0] if len(prefixes) == 1 else stack(tuple(prefixes), prefixes[0].slots)
        rows, length = questions.shape
        texts = Texts(questions.astype(np.int32), np.full(rows, length, np.int32))
        seeds, filling = np.zeros(rows, np.uint32), np.zeros(rows, bool)
        decoding = begin(self.model, self.params, prefix, texts, seeds, filling, most)
        return prefix, jax.block_until_ready(decoding)

    def draw(self, prefix: Prefix, decoding: Decoding, until: int) -> Decoding:
        """Draws tokens until so many are there."""
        run = partial(advance, self.model, self.params, prefix)
        return jax.block_until_ready(run(decoding, GREEDY.kind, GREEDY.numbers, NO_TOKEN, np.int32(until)))


class Theirs:
    """`transformers`, as its users write a greedy loop; attention is torch's `scaled_dot_product_attention`."""

    def __init__(self, reference: ReferenceModel):
        assert reference.encoder.config._attn_implementation == reference.decoder.config._attn_implementation == "sdpa"
        self.reference, self.decoder = reference, reference.decoder

    @torch.inference_mode()
    def encode(self, log_mel: np.ndarray) -> np.ndarray:
        return self.reference.connect(self.reference.features(torch.from_numpy(log_mel))).numpy()

    @torch.inference_mode()
    def prefix(self, tokens: np.ndarray) -> DynamicCache:
        cache = DynamicCache()
        self.decoder(torch.from_numpy(tokens)[None], past_key_values=cache, logits_to_keep=1)
        return cache

    @torch.inference_mode()
    def begin(
        self, prefix: DynamicCache, questions: np.ndarray, most: int, *, static: bool
    ) -> tuple[Any, torch.Tensor]:
        """The cache of all rows after their questions, and the logits there. A static one has room for the answer."""
        rows, length = questions.shape
        start = prefix.get_seq_length()
        if static:
            cache: Any = StaticCache(config=self.decoder.config, max_cache_len=start + length + most)
        else:
            cache = DynamicCache()
        for number, layer in enumerate(cast(Any, prefix).layers):
            cache.update(*(x.expand(rows, -1, -1, -1) for x in (layer.keys, layer.values)), number)
        logits = self.decoder(torch.from_numpy(questions), past_key_values=cache, logits_to_keep=1).logits[:, -1]
        return cache, logits

    @torch.inference_mode()
    def draw(self, cache: Any, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """So many tokens [rows, count], and the logits after them."""
        tokens = []
        for _ in range(count):
            token = logits.argmax(-1, keepdim=True)
            tokens.append(token)
            logits = self.decoder(token, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        return torch.cat(tokens, 1), logits


def off_by(ours: Any, theirs: Any) -> float:
    """The norm of the difference, as a part of PyTorch's."""
    ours, theirs = jnp.asarray(ours), jnp.asarray(np.asarray(theirs))
    return float(jnp.linalg.norm((ours - theirs).ravel()) / jnp.linalg.norm(theirs.ravel()))
