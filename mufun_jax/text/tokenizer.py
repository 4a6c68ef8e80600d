"""Tokenizers: Qwen3's, read from a folder, and the nano model's own small byte-level BPE."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llguidance import LLTokenizer
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from mufun_jax.errors import CheckpointError
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, END_OF_TURN, Rendered

PADDING = "<|endoftext|>"
SPECIAL_TOKENS = (PADDING, "<|im_start|>", END_OF_TURN)  # Qwen's order
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
_TOKENIZER_CONFIG = "tokenizer_config.json"
_SPECIAL_TOKEN_KEYS = {"added_tokens_decoder", "pad_token", "eos_token", "unk_token", "additional_special_tokens"}
_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD")
# A byte-level vocabulary writes each byte as a printable character (GPT-2's table).
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE}
_BYTE_OF |= {chr(256 + n): byte for n, byte in enumerate(byte for byte in range(256) if byte not in _PRINTABLE)}
NANO_TOKENIZER = Path(__file__).parent / "nano_tokenizer"


@dataclass(frozen=True)
class TextPiece:
    """Ids of the text between two audio placeholders, and which of them are targets."""

    ids: tuple[int, ...]
    is_target: tuple[bool, ...]


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, tokenizer: FastTokenizer, folder: Path):
        """`folder` is where it was read, for messages."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._folder = folder
        self._special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
        self.end_of_turn = self._id_of(END_OF_TURN)
        self.padding = self._id_of(PADDING)
        self.size = 1 + max(tokenizer.get_vocab().values())

    def encode_pieces(self, rendered: Rendered) -> list[TextPiece]:
        """Tokenises piece by piece, split at `<audio>` only: n placeholders give n + 1 pieces.

        A token is a target if it begins inside a target span; no token crosses the border of a span.
        """
        pieces, start = [], 0
        for text in rendered.text.split(AUDIO_PLACEHOLDER):
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
            is_target = []
            for begin, end in encoding.offsets:
                spans = [span for span in rendered.target_spans if span[0] < start + end and start + begin < span[1]]
                is_target.append(bool(spans))
                assert all(span[0] <= start + begin for span in spans), "a token crosses into an answer"
            pieces.append(TextPiece(tuple(encoding.ids), tuple(is_target)))
            start += len(text) + len(AUDIO_PLACEHOLDER)
        return pieces

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def bytes_of(self, token: int) -> bytes:
        """What one token stands for: it may be part of a character. Nothing for a special token."""
        name = self._tokenizer.id_to_token(token)
        if name is None or token in self._special:
            return b""
        return bytes(_BYTE_OF[character] for character in name)

    def for_grammars(self, vocabulary: int) -> LLTokenizer:
        """As `llguidance` takes it, with so many tokens; the end of the turn ends what it describes. Takes a second."""
        return LLTokenizer(self._tokenizer.to_str(), n_vocab=vocabulary, eos_token=self.end_of_turn)

    def save(self, folder: Path) -> None:
        """Copies the files it was read from."""
        copy_tokenizer(self._folder, folder)

    def _id_of(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{self._folder}: the tokenizer here has no token {token}")
        return found


def load_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer in a folder (`tokenizer.json`, or Qwen's `vocab.json` + `merges.txt`), or "nano".

    Nothing but these files is read, and no code of the folder is run.
    """
    folder = NANO_TOKENIZER if source == "nano" else Path(source)
    try:
        if (folder / "tokenizer.json").is_file():
            _check_pipeline(folder / "tokenizer.json")
            return Tokenizer(FastTokenizer.from_file(str(folder / "tokenizer.json")), folder)
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return Tokenizer(_qwen_tokenizer(folder), folder)
    except CheckpointError:
        raise
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{folder}: the tokenizer here cannot be read: {first_line}") from error
    raise CheckpointError(f"{folder}: no tokenizer.json here, nor vocab.json with merges.txt; or write 'nano'")


def _qwen_tokenizer(folder: Path) -> FastTokenizer:
    """Qwen's tokenizer, told nothing by the folder's config but its special tokens: other keys could name any file."""
    # Only its tokenizers are used: that PyTorch is absent is no news to anyone. Read when transformers is imported,
    # which takes a second: a folder with a tokenizer.json does without.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import Qwen2Tokenizer

    with tempfile.TemporaryDirectory() as clean:
        for name in TOKENIZER_FILES:
            if name != _TOKENIZER_CONFIG and (folder / name).is_file():
                shutil.copyfile(folder / name, Path(clean) / name)
        if (folder / _TOKENIZER_CONFIG).is_file():
            values = json.loads((folder / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
            kept = {key: value for key, value in values.items() if key in _SPECIAL_TOKEN_KEYS}
            (Path(clean) / _TOKENIZER_CONFIG).write_text(json.dumps(kept))
        return Qwen2Tokenizer.from_pretrained(clean).backend_tokenizer


def _check_pipeline(path: Path) -> None:
    """Refuses kinds of tokenizers that no MuFun has: damaged ones of some kinds abort their reader past any handler."""
    values = json.loads(path.read_text(encoding="utf-8"))
    model, normalizer = values.get("model") or {}, values.get("normalizer") or {}
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix"):
        raise CheckpointError(f"{path}: no byte-level BPE, which Qwen's and MuFun's tokenizers are")
    if normalizer and normalizer.get("type") not in _NORMALIZERS:
        raise CheckpointError(f"{path}: its normalizer {normalizer.get('type')!r} is none of {', '.join(_NORMALIZERS)}")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies a tokenizer's files, to the byte, into a folder that is made where it is not there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> FastTokenizer:
    """A byte-level BPE over `texts`, split as GPT-2 splits, that ends a word at a digit as Qwen's does."""
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
