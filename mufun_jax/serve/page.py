"""The page: a song, its waveform, questions and answers, tags, and the Python for all of it. Gradio draws it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes import Base, Default

from mufun_jax.errors import UserError
from mufun_jax.generate.answer import Answer
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.tags import TAGS, read_tags, tag_constraint
from mufun_jax.serve.limits import Limits
from mufun_jax.serve.visit import NEW_TOKENS, TAG_TOKENS, Loader, Visit, Visits
from mufun_jax.serve.worker import Worker
from mufun_jax.text.conversation import Turn

CSS = (Path(__file__).parent / "page.css").read_text()
_WAVEFORM = (Path(__file__).parent / "waveform.js").read_text()
_WAVEFORM_HTML = """<div class="empty">
<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="Waveform: drag to choose a part"></svg>
<div class="ends"><span></span><span></span><span></span></div></div>"""
_TITLE = "# MuFun\nDrop a song, or record one, and ask about it."
_log = logging.getLogger(__name__)
_PACE = 0.5  # seconds between two looks at what is waited for
_FAILED = "The server has failed; its log says how"

Update = dict[Any, Any]


def theme() -> Base:
    """Fonts of the visitor's own: none is fetched."""
    return Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


class Page:
    """The components of the page, and what happens when they are used."""

    def __init__(self, worker: Worker, limits: Limits, loader: Loader):
        self._worker, self._limits, self._loader = worker, limits, loader
        self._visits = Visits(limits.visits, worker.cancel)
        with gr.Blocks(title="MuFun", analytics_enabled=False, delete_cache=(60, 3600)) as self.blocks:
            gr.Markdown(_TITLE, elem_id="title")
            with gr.Row():
                with gr.Column(scale=5, min_width=320):
                    self._compose_song()
                with gr.Column(scale=6, min_width=320):
                    self._compose_chat()
            self._python = gr.Code(
                label="Python for what was asked",
                language="python",
                interactive=False,
                elem_id="python",
                visible=False,
                wrap_lines=True,
                buttons=["copy"],
            )
            self._listen()

    def _compose_song(self) -> None:
        self._song = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Song",
            editable=False,
            buttons=[],
            waveform_options=gr.WaveformOptions(show_recording_waveform=False),
            elem_id="song",
        )
        self._waveform = gr.HTML(
            "{}", html_template=_WAVEFORM_HTML, js_on_load=_WAVEFORM, elem_id="waveform", apply_default_css=False
        )
        with gr.Row(elem_id="part"):
            self._start = gr.Number(label="From, seconds", minimum=0, elem_id="start", min_width=120)
            self._end = gr.Number(label="To, seconds", minimum=0, elem_id="end", min_width=120)
        self._tag = gr.Button("Tags", elem_id="tag")
        self._tags = gr.Code(
            label="Tags",
            language="json",
            interactive=False,
            elem_id="tags",
            visible=False,
            wrap_lines=True,
            max_lines=16,
            buttons=["copy"],
        )

    def _compose_chat(self) -> None:
        self._chat = gr.Chatbot(
            label="Chat",
            show_label=False,
            height=380,
            elem_id="chat",
            render_markdown=False,  # it takes HTML all the same: what is said is escaped
            buttons=[],
            feedback_options=None,
            placeholder="Which instrument is this? What key is it in?",
        )
        self._text = gr.Textbox(
            label="Question", placeholder="Ask about the song", elem_id="question", max_length=self._limits.text_bytes
        )
        with gr.Row():
            self._ask = gr.Button("Ask", variant="primary", elem_id="ask")
            self._stop = gr.Button("Stop", elem_id="stop", interactive=False)
        self._note = gr.HTML(elem_id="note")

    def _listen(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        everything = [self._waveform, self._start, self._end, self._chat, self._tags, self._python, self._note]
        busy = [self._ask, self._tag, self._stop]
        self._song.change(self._on_song, self._song, everything, **quiet)
        segment = [self._waveform, self._start, self._end, self._note]
        self._waveform.select(self._on_waveform, None, segment, **quiet)
        gr.on(
            [self._start.submit, self._start.blur, self._end.submit, self._end.blur],
            self._on_seconds,
            [self._start, self._end],
            segment,
            **quiet,
        )
        gr.on(
            [self._ask.click, self._text.submit],
            self._on_question,
            self._text,
            [self._chat, self._text, self._python, self._note, *busy],
            **quiet,
        )
        self._tag.click(self._on_tag, None, [self._tags, self._python, self._note, *busy], **quiet)
        self._chat.clear(self._on_clear, None, [self._python, self._note], **quiet)
        self._stop.click(self._on_stop, None, None, **quiet)
        self.blocks.unload(self._on_leaving)

    # --- what happens: each of a row of updates says all of it again, for the browser may pass over some -------------

    async def _on_song(self, path: str | None, request: gr.Request) -> Update:
        visit = self._visits[request.session_hash]
        if path is not None and visit.song == Path(path):
            return {self._note: gr.skip()}
        self._visits.stop(visit)
        visit.forget()
        note = ""
        if path is not None:
            try:
                await asyncio.to_thread(visit.take, Path(path), self._limits)
            except UserError as error:
                Path(path).unlink(missing_ok=True)
                note = _error(error)
        return {
            **self._segment_of(visit),
            self._chat: [],
            self._tags: gr.Code("", visible=False),
            self._python: gr.Code("", visible=False),
            self._note: note,
        }

    def _on_waveform(self, event: gr.EventData, request: gr.Request) -> Update:
        chosen = event._data if isinstance(event._data, dict) else {}
        return self._on_seconds(chosen.get("start"), chosen.get("end"), request)

    def _on_seconds(self, start: float | None, end: float | None, request: gr.Request) -> Update:
        visit = self._visits[request.session_hash]
        try:
            if visit.song is not None:
                visit.choose(start, end)
        except UserError as error:
            return {**self._segment_of(visit), self._note: _error(error)}
        return {**self._segment_of(visit), self._note: ""}

    def _segment_of(self, visit: Visit) -> Update:
        drawn = {"peaks": visit.peaks, "seconds": visit.seconds, "segment": visit.segment} if visit.song else {}
        start, end = visit.segment or (0.0, round(visit.seconds, 2))
        shown = (start, end) if visit.song else (None, None)
        return {self._waveform: json.dumps(drawn), self._start: shown[0], self._end: shown[1]}

    async def _on_question(self, text: str, request: gr.Request) -> AsyncIterator[Update]:
        visit = self._visits[request.session_hash]
        try:
            question = visit.question(text, self._limits)
        except UserError as error:
            yield {self._note: _error(error)}
            return
        part = f"[{visit.segment[0]:g}–{visit.segment[1]:g} s] " if visit.segment else ""
        answer = {"role": "assistant", "content": ""}
        visit.messages += [{"role": "user", "content": _as_html(f"{part}{text}")}, answer]
        shown: Update = {self._chat: visit.messages, self._text: "", **self._busy(True)}
        yield shown

        def work(model: MuFun) -> Iterator[str | Answer]:
            return model.stream_answer(question, max_new_tokens=NEW_TOKENS)

        async for item, update in self._run(visit, work):
            if isinstance(item, str):
                answer["content"] += _as_html(item)
            if isinstance(item, Answer):
                answer["content"] = _as_html(item.text) or "(no answer)"
                if visit.is_about(question):
                    visit.turns.append(Turn(question.prompt, item.text))
                update[self._python] = self._python_of(visit)
            shown |= update | {self._chat: visit.messages}
            yield shown
            shown.pop(self._text, None)  # the next question may be written already
        if not answer["content"] and answer in visit.messages:
            del visit.messages[-2:]
            yield shown | {self._chat: visit.messages, self._text: text}

    async def _on_tag(self, request: gr.Request) -> AsyncIterator[Update]:
        visit = self._visits[request.session_hash]
        try:
            question = visit.tag_question()
        except UserError as error:
            yield {self._note: _error(error)}
            return

        def work(model: MuFun) -> Iterator[str | Answer]:
            form = tag_constraint(list(TAGS))
            return model.stream_answer(question, max_new_tokens=TAG_TOKENS, constraint=form)

        text, ended = "", False
        shown: Update = {}
        async for item, update in self._run(visit, work):
            if isinstance(item, str):
                text += item
            if isinstance(item, Answer):
                text, ended = json.dumps(read_tags(item.text), indent=2, ensure_ascii=False), True
                visit.tagged = visit.tagged or visit.is_about(question)
                update[self._python] = self._python_of(visit)
            shown |= update | {self._tags: gr.Code(text, visible=bool(text))}
            yield shown
        if not ended:
            yield shown | {self._tags: gr.Code("", visible=False)}

    def _python_of(self, visit: Visit) -> gr.Code:
        code = visit.python(self._loader)
        return gr.Code(code, visible=bool(code))

    async def _run(
        self, visit: Visit, work: Callable[[MuFun], Iterator[str | Answer]]
    ) -> AsyncIterator[tuple[str | Answer | None, Update]]:
        """What comes of a job, with what the page shows beside it."""
        note, job = "Stopped", None
        try:
            self._visits.stop(visit)
            visit.job = job = self._worker.submit(work)
            yield None, {**self._busy(True), self._note: self._worker.doing(job)}
            async for item in job.paced(_PACE):
                if isinstance(item, Answer):
                    note = _heard(item)
                yield item, {} if item else {self._note: self._worker.doing(job)}
        except UserError as error:
            note = _error(error)
        except Exception:  # noqa: BLE001  the visitor is told, and may ask again
            _log.exception("a question was not answered")
            note = _error(UserError(_FAILED))
        finally:
            if job is not None:
                self._worker.cancel(job)
        yield None, {**self._busy(False), self._note: note}

    def _busy(self, busy: bool) -> Update:
        """What can be pressed."""
        ready, stop = gr.Button(interactive=not busy), gr.Button(interactive=busy)
        return {self._ask: ready, self._tag: ready, self._stop: stop}

    def _on_clear(self, request: gr.Request) -> Update:
        visit = self._visits[request.session_hash]
        self._visits.stop(visit)
        visit.start_anew()
        return {self._python: self._python_of(visit), self._note: ""}

    def _on_stop(self, request: gr.Request) -> None:
        self._visits.stop(self._visits[request.session_hash])

    def _on_leaving(self, request: gr.Request) -> None:
        self._visits.end(request.session_hash)


def _as_html(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _heard(answer: Answer) -> str:
    """What of the song was heard, and why the answer ends, as HTML."""
    lines = []
    for one in answer.heard:
        lines.append(f"{one.seconds_used:g} s of the song were heard, from {one.start:g} s on")
        if one.seconds_dropped:
            lines[-1] += f"; the {one.seconds_dropped:g} s after that were not"
        lines += [_shortened(warning) for warning in one.warnings]
    if answer.finish == "length":
        lines.append("The answer was cut off: it had no end")
    if answer.finish == "repetition":
        lines.append("The answer was stopped, for it went round in circles")
    return "<br>".join(map(escape, lines))


def _error(error: UserError) -> str:
    return f'<span class="error">{escape(_shortened(str(error)))}</span>'


def _shortened(text: str) -> str:
    """Without the folder that the upload is in."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in text.split(" "))
