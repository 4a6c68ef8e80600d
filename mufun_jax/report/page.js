"use strict";
// Draws the figures that the page holds, in the colours of the system's theme, and zooms those over steps together.
(() => {
  const root = document.documentElement;
  const fail = (error) => {
    root.dataset.error = String(error);
    const note = document.getElementById("failed");
    note.querySelector("span").textContent = String(error);
    note.hidden = false;
  };
  addEventListener("error", (event) => fail(event.message));
  addEventListener("unhandledrejection", (event) => fail(event.reason));

  const page = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 760px)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const state = {}; // figure -> {hidden: traces that are switched off, log: whether y is, range: of x, or null}
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch ? false : "hover",
    doubleClick: "reset",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], // named one by one: others would send data away,
  };

  const painted = (value, key) => {
    if (key === "bdata") return value;
    if (typeof value === "string") return dark.matches ? page.dark[value] || value : value;
    if (Array.isArray(value)) return value.map((each) => painted(each));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, painted(each, name)]));
  };

  // The names of stages, above those bands that are wide enough for them.
  const bandNames = (figure, layout) => {
    const [low, high] = layout.xaxis.range;
    const pixels = figure.clientWidth - 56;
    return layout.meta.bands.flatMap((band) => {
      const from = Math.max(low, band.x0), to = Math.min(high, band.x1);
      if ((to - from) / (high - low) * pixels < 7.2 * band.name.length + 8) return [];
      return [{
        x: (from + to) / 2, y: 1, yref: "paper", yanchor: "bottom", yshift: 6, showarrow: false,
        text: band.name, font: { color: band.colour, size: 12.5 },
      }];
    });
  };

  const draw = (id) => {
    const figure = document.getElementById(id), own = state[id];
    const { data, layout } = painted(page.figures[id]);
    data.forEach((trace, place) => { if (own.hidden.has(place)) trace.visible = false; });
    if (own.log) layout.yaxis = { ...layout.yaxis, type: "log", rangemode: "normal", dtick: "D2", tickformat: "~g" };
    if (own.range) layout.xaxis.range = own.range;
    if (touch) { layout.dragmode = false; layout.xaxis.fixedrange = layout.yaxis.fixedrange = true; }
    if (narrow.matches) { layout.height = Math.min(layout.height, 340); layout.xaxis.nticks = 5; }
    if (layout.meta) layout.annotations = bandNames(figure, layout);
    return Plotly.react(figure, data, layout, config);
  };

  const stepFigures = Object.keys(page.figures).filter((id) => id !== "timeline");
  const zoomTogether = (id, changed) => {
    if (!Object.keys(changed).some((key) => key.startsWith("xaxis."))) return;
    const whole = page.figures[id].layout.xaxis.range, range = [...document.getElementById(id).layout.xaxis.range];
    const next = range[0] === whole[0] && range[1] === whole[1] ? null : range;
    for (const other of stepFigures) {
      if (String(state[other].range) === String(next)) continue;
      state[other].range = next;
      if (other !== id || page.figures[id].layout.meta) draw(other);
    }
  };

  for (const button of document.querySelectorAll("[data-traces]")) {
    button.addEventListener("click", () => {
      const hide = button.getAttribute("aria-pressed") === "true", own = state[button.dataset.figure];
      button.setAttribute("aria-pressed", String(!hide));
      for (const trace of button.dataset.traces.split(" ").map(Number)) {
        if (hide) own.hidden.add(trace); else own.hidden.delete(trace);
      }
      draw(button.dataset.figure);
    });
  }
  for (const button of document.querySelectorAll("[data-log]")) {
    button.addEventListener("click", () => {
      const own = state[button.dataset.log];
      own.log = !own.log;
      button.setAttribute("aria-pressed", String(own.log));
      draw(button.dataset.log);
    });
  }

  const ids = Object.keys(page.figures);
  for (const id of ids) state[id] = { hidden: new Set(), log: false, range: null };
  for (const query of [dark, narrow]) query.addEventListener("change", () => ids.forEach(draw));

  // One after the other, so that the page answers while they are drawn.
  const next = async (place) => {
    if (place === ids.length) { root.dataset.drawn = String(ids.length); return; }
    await draw(ids[place]);
    const figure = document.getElementById(ids[place]);
    if (ids[place] !== "timeline") figure.on("plotly_relayout", (changed) => zoomTogether(ids[place], changed));
    setTimeout(() => next(place + 1).catch(fail), 0);
  };
  next(0).catch(fail);
})();
