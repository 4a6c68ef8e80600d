"""What a server takes from strangers, and no more."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of each request, but for the last two. Checked before anything is decoded, as far as it can be known then."""

    upload_bytes: int = 64 * 2**20  # of one audio file
    body_bytes: int = 128 * 2**20  # of a whole request, base64 included
    audio_files: int = 8
    song_seconds: float = 3600.0  # of one audio file, as its header says
    new_tokens: int = 1024
    text_bytes: int = 20_000  # of all messages together, in UTF-8: no text has more tokens
    waiting: int = 16  # questions of all clients, in line
    visits: int = 64  # of the page, whose songs and chats are kept
