"""The nano tokenizer as Qwen's is distributed: `vocab.json`, `merges.txt`, and the special tokens in other files."""

import json
from pathlib import Path

from mufun_jax.text.tokenizer import NANO_TOKENIZER


def write_qwen_tokenizer(folder: Path) -> Path:
    """As the released folders are: no `tokenizer.json`, and the special tokens come last."""
    folder.mkdir(parents=True, exist_ok=True)
    nano = json.loads((NANO_TOKENIZER / "tokenizer.json").read_text())
    specials = len(nano["added_tokens"])
    regular = {token: i - specials for token, i in nano["model"]["vocab"].items() if i >= specials}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in nano["model"]["merges"])]
    added = {str(as_qwen(token["id"])): dict(token) for token in nano["added_tokens"]}
    for token in added.values():
        del token["id"]
    configuration = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": added,
        "pad_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": None,
    }
    (folder / "vocab.json").write_text(json.dumps(regular))
    (folder / "merges.txt").write_text("\n".join(merges))
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration))
    (folder / "added_tokens.json").write_text(json.dumps({token["content"]: int(i) for i, token in added.items()}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


def as_qwen(nano_id: int) -> int:
    """The three special tokens are nano's first and Qwen's last."""
    return (nano_id - 3) % 512
