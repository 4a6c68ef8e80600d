// The waveform: drag over it to choose a part of the song; a click without dragging chooses all of it again.
// `element`, `props`, `trigger` and `watch` are Gradio's.
const NS = "http://www.w3.org/2000/svg";
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const song = () => JSON.parse(props.value || "{}");
let from = null; // where a drag began, in parts of the width

function draw(part) {
  const { peaks = [], seconds = 0, segment = null } = song();
  const svg = element.querySelector("svg");
  const [start, end] = part || (segment ? segment.map((second) => second / seconds) : [0, 1]);
  const whole = start === 0 && end === 1;
  svg.replaceChildren();
  const add = (name, values, parent = svg) => {
    const made = document.createElementNS(NS, name);
    Object.entries(values).forEach(([key, value]) => made.setAttribute(key, value));
    return parent.appendChild(made);
  };
  element.firstElementChild.classList.toggle("empty", !peaks.length);
  const bars = add("g", { class: "bars" });
  peaks.forEach((peak, place) => {
    const middle = (place + 0.5) / peaks.length;
    const height = Math.max(2, 92 * peak);
    add("rect", {
      x: (1000 * place) / peaks.length + 0.6, width: 1000 / peaks.length - 1.2, y: 50 - height / 2, height,
      class: middle >= start && middle <= end ? "in" : "",
    }, bars);
  });
  if (peaks.length && !whole) {
    add("rect", { class: "part", x: 1000 * start, width: 1000 * (end - start), y: 0, height: 100 });
    [start, end].forEach((at) => add("line", { class: "edge", x1: 1000 * at, x2: 1000 * at, y1: 0, y2: 100 }));
  }
  add("line", { class: "cursor", y1: 0, y2: 100, visibility: "hidden" });
  const ends = element.querySelectorAll(".ends span");
  const chosen = whole ? "drag over the waveform to choose a part"
    : `${(start * seconds).toFixed(1)} – ${(end * seconds).toFixed(1)} s are heard`;
  const texts = peaks.length ? [clock(0), chosen, clock(seconds)] : ["", "", ""];
  ends.forEach((span, place) => { span.textContent = texts[place]; });
}

function at(event) {
  const box = element.querySelector("svg").getBoundingClientRect();
  return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
}

function part(event) {
  const to = at(event);
  const { seconds } = song();
  return Math.abs(to - from) * seconds < 0.2 ? [0, 1] : [Math.min(from, to), Math.max(from, to)];
}

element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("svg") || !song().peaks) return;
  from = at(event);
  event.target.closest("svg").setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => { if (from !== null) draw(part(event)); });
element.addEventListener("pointercancel", () => { from = null; draw(); });
element.addEventListener("pointerup", (event) => {
  if (from === null) return;
  const { seconds } = song();
  const [start, end] = part(event);
  from = null;
  trigger("select", { start: start * seconds, end: end * seconds });
});
document.addEventListener("timeupdate", (event) => {
  const { seconds } = song();
  const cursor = element.querySelector(".cursor");
  if (!seconds || !cursor || !event.target.closest("#song")) return;
  const x = (1000 * event.target.currentTime) / seconds;
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  cursor.setAttribute("visibility", "visible");
}, true);
watch("value", () => draw());
draw();
