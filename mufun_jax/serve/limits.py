"""What a server takes from strangers, and no more."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of each request, but for the last two. Checked before anything is decoded, as far as it can be known then."""

    upload_bytes: int = 64 * 2**20  # of one audio file
    audio_files: int = 8
    body_bytes: int = 128 * 2**20  # of a whole request, base64 included
    new_tokens: int = 1024
    text_characters: int = 20_000  # of all messages together
    waiting: int = 16  # questions of all clients, in line
    idle_seconds: float = 600.0  # after which the model is unloaded
