"""What one record of a shard holds: audio of one file (or of several heard together) and all examples about it.

A record is a `tf.train.Example` of three features, so that tensorflow_datasets reads it too:

    audio     one string a file: FLAC, or little-endian 16-bit samples; mono, 16 kHz, whole
    encoding  "flac" or "int16"
    examples  JSON list of entries in the original's form; paths are the names the files had
"""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import soundfile
from jaxtyping import Int16

from data_pipelines.tf_example import RecordError, decode_record, encode_record
from mufun_jax.config import SAMPLE_RATE

Encoding = Literal["flac", "int16"]
_INT16 = np.dtype("<i2")

# The same features as tensorflow_datasets writes them: a FeaturesDict of strings.
_STRING = {
    "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
    "tensor": {"dtype": "string", "encoding": "none", "shape": {}},
}
TFDS_FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "audio": {
                "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
                "sequence": {"feature": _STRING, "length": "-1"},
            },
            "encoding": _STRING,
            "examples": _STRING,
        }
    },
}


@dataclass(frozen=True)
class Record:
    """One record, its audio still encoded."""

    audio: tuple[bytes, ...]
    encoding: Encoding
    examples: tuple[dict[str, Any], ...]

    def to_bytes(self) -> bytes:
        """The same record gives the same bytes."""
        examples = json.dumps(self.examples, ensure_ascii=False).encode()
        return encode_record({"audio": self.audio, "encoding": [self.encoding.encode()], "examples": [examples]})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Record":
        """Raises RecordError for bytes that are no such record."""
        features = decode_record(data)
        try:
            (encoding,), (examples,) = features["encoding"], features["examples"]
            name = encoding.decode()
            if name not in get_args(Encoding):
                raise ValueError(f"unknown encoding {name!r}")
            return cls(tuple(features.get("audio", ())), cast(Encoding, name), tuple(json.loads(examples)))
        except (KeyError, ValueError, TypeError) as error:
            raise RecordError(f"a record is not one of a prepared set: {error}") from None


def encode_audio(samples: Int16[np.ndarray, " samples"], encoding: Encoding) -> bytes:
    """Mono samples at 16 kHz as a record keeps them; both encodings are exact."""
    if encoding == "int16":
        return samples.astype(_INT16).tobytes()
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_audio(data: bytes, encoding: Encoding, start: int, stop: int) -> Int16[np.ndarray, " samples"]:
    """Samples `start` to `stop` of a record's audio. Raises RecordError where there are not so many."""
    if encoding == "int16":
        samples = np.frombuffer(data, _INT16, count=len(data) // _INT16.itemsize)[start:stop]
    else:
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                if (file.channels, file.samplerate) != (1, SAMPLE_RATE):
                    raise RecordError(f"a record's FLAC has {file.channels} channels at {file.samplerate} Hz")
                file.seek(start)
                samples = file.read(stop - start, dtype="int16")
        except soundfile.LibsndfileError as error:
            raise RecordError(f"a record's FLAC cannot be decoded: {error.error_string}") from None
    if len(samples) != stop - start:
        raise RecordError(f"a record's audio ends at sample {start + len(samples)}, not at {stop}")
    return samples.astype(np.int16, copy=False)


def audio_length(data: bytes, encoding: Encoding) -> int:
    """Samples of a record's audio. Raises RecordError where `data` is no audio."""
    if encoding == "int16":
        return len(data) // _INT16.itemsize
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return file.frames
    except soundfile.LibsndfileError as error:
        raise RecordError(f"a record's FLAC cannot be opened: {error.error_string}") from None


def content_hash(samples: Int16[np.ndarray, " samples"]) -> str:
    """SHA-256 of decoded samples: equal audio under other names, or in another container, has the same."""
    return hashlib.sha256(samples.astype(_INT16, copy=False).tobytes()).hexdigest()
