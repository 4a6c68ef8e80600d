"""Text of an answer as its tokens come: whole characters only, and nothing that a stop string may still take back."""

from collections.abc import Callable, Sequence

_REPEATS, _REPEATED = 8, 64  # a block of tokens this often in a row, of so many tokens together, has no end
_LONGEST_BLOCK = 32
_FIRST_CHUNKS, _CHUNK = (1, 1, 2, 4), 8  # tokens between two looks at what has come: its first word comes at once
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of the first bytes of a character


class TextStream:
    """The text of one answer. What `push` and `end` give, together, is `text`."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()):
        self._decode, self._stop = decode, tuple(stop)
        self._given = ""
        self.text = ""  # as far as it has come, without space around it, and without a stop string or what follows
        self.stopped = False  # by a stop string

    def push(self, tokens: Sequence[int]) -> str:
        """All tokens so far; returns the text that is new and certain."""
        self.read(tokens)
        certain = self.text
        if not self.stopped:
            certain = certain.rstrip(_UNFINISHED)
            certain = certain[: len(certain) - self._withheld(certain)].rstrip()
        return self._give(certain)

    def end(self, tokens: Sequence[int]) -> str:
        """The answer is over; returns the rest of it."""
        self.read(tokens)
        return self._give(self.text)

    def read(self, tokens: Sequence[int]) -> None:
        """Looks at all tokens so far, and gives nothing."""
        text = self._decode(tokens).lstrip()
        ends = [text.find(string) for string in self._stop if string in text]
        self.stopped = bool(ends)
        self.text = (text[: min(ends)] if ends else text).rstrip()

    def _withheld(self, text: str) -> int:
        """The most characters at the end that may be the beginning of a stop string."""
        lengths = (n for stop in self._stop for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n]))
        return max(lengths, default=0)

    def _give(self, text: str) -> str:
        new = text[len(self._given) :]
        if new:
            self._given = text
        return new


def stream_chunk(so_far: int) -> int:
    """How many tokens to wait for after so many: few at first."""
    total = 0
    for chunk in _FIRST_CHUNKS:
        if so_far == total:
            return chunk
        total += chunk
    return _CHUNK


def goes_round(tokens: Sequence[int]) -> bool:
    """Whether an answer has come into a loop: its end is one block of tokens again and again."""
    for size in range(1, _LONGEST_BLOCK + 1):
        length = size * max(_REPEATS, -(-_REPEATED // size))
        if len(tokens) >= length:
            tail = tokens[-length:]
            if all(tail[i] == tail[i - size] for i in range(size, length)):
                return True
    return False
