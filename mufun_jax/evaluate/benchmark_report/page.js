"use strict";
// Draws the figures that the page holds, in the colours of the system's theme.
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
  const hidden = {}; // figure -> traces that are switched off
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: matchMedia("(pointer: coarse)").matches ? false : "hover",
    modeBarButtons: [["toImage"]], // named: others would send data away
    toImageButtonOptions: { format: "svg" },
  };

  const painted = (value, key) => {
    if (key === "bdata") return value;
    if (typeof value === "string") return dark.matches ? page.dark[value] || value : value;
    if (Array.isArray(value)) return value.map((each) => painted(each));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, painted(each, name)]));
  };

  const draw = (id) => {
    const { data, layout } = painted(page.figures[id]);
    data.forEach((trace, place) => { if (hidden[id].has(place)) trace.visible = false; });
    layout.dragmode = false;
    if (narrow.matches && layout.polar) {
      layout.height = 340;
      layout.margin = { ...layout.margin, l: 62, r: 62 };
      layout.font = { ...layout.font, size: 11 };
    }
    return Plotly.react(document.getElementById(id), data, layout, config);
  };

  for (const button of document.querySelectorAll("[data-traces]")) {
    button.addEventListener("click", () => {
      const hide = button.getAttribute("aria-pressed") === "true", own = hidden[button.dataset.figure];
      button.setAttribute("aria-pressed", String(!hide));
      for (const trace of button.dataset.traces.split(" ").map(Number)) {
        if (hide) own.add(trace); else own.delete(trace);
      }
      draw(button.dataset.figure);
    });
  }

  const ids = Object.keys(page.figures);
  for (const id of ids) hidden[id] = new Set();
  for (const query of [dark, narrow]) query.addEventListener("change", () => ids.forEach(draw));

  // One after the other, so that the page answers while they are drawn.
  const next = async (place) => {
    if (place === ids.length) { root.dataset.drawn = String(ids.length); return; }
    await draw(ids[place]);
    setTimeout(() => next(place + 1).catch(fail), 0);
  };
  next(0).catch(fail);
})();
