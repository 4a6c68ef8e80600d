"use strict";
// Draws the figures that the page holds, in the colours of the system's theme. They stand still, but for a page that has
// a script of its own: that gives `config`, of Plotly; `adjust(layout, id)`, which changes a figure's layout before each
// drawing; and `drawn(id)`, which is called when a figure is first there.
const drawFigures = (own) => {
  const root = document.documentElement;
  const fail = (error) => {
    root.dataset.error = String(error);
    const note = document.getElementById("failed");
    note.querySelector("span").textContent = String(error);
    note.hidden = false;
  };
  addEventListener("error", (event) => fail(event.message));
  addEventListener("unhandledrejection", (event) => fail(event.reason));

  const { figures, dark: darkColours } = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 760px)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const ids = Object.keys(figures);
  const hidden = Object.fromEntries(ids.map((id) => [id, new Set()])); // traces that are switched off

  const painted = (value, key) => {
    if (key === "bdata") return value;
    if (typeof value === "string") return dark.matches ? darkColours[value] || value : value;
    if (Array.isArray(value)) return value.map((each) => painted(each));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, painted(each, name)]));
  };

  const still = () => ({
    config: { modeBarButtons: [["toImage"]], toImageButtonOptions: { format: "svg" } },
    adjust: (layout) => {
      layout.dragmode = false;
      if (narrow.matches && layout.polar) {
        layout.height = 340;
        layout.margin = { ...layout.margin, l: 62, r: 62 };
        layout.font = { ...layout.font, size: 11 };
      }
    },
    drawn: () => {},
  });

  const draw = (id) => {
    const { data, layout } = painted(figures[id]);
    data.forEach((trace, place) => { if (hidden[id].has(place)) trace.visible = false; });
    adjust(layout, id);
    return Plotly.react(document.getElementById(id), data, layout, config);
  };
  const { config: wanted, adjust, drawn } = (own || still)({ figures, narrow, touch, draw });
  // Buttons are named one by one in `wanted`: others would send data away.
  const config = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover", ...wanted };

  for (const button of document.querySelectorAll("[data-traces]")) {
    button.addEventListener("click", () => {
      const hide = button.getAttribute("aria-pressed") === "true", off = hidden[button.dataset.figure];
      button.setAttribute("aria-pressed", String(!hide));
      for (const trace of button.dataset.traces.split(" ").map(Number)) {
        if (hide) off.add(trace); else off.delete(trace);
      }
      draw(button.dataset.figure);
    });
  }
  for (const query of [dark, narrow]) query.addEventListener("change", () => ids.forEach(draw));

  // One after the other, so that the page answers while they are drawn.
  const next = async (place) => {
    if (place === ids.length) { root.dataset.drawn = String(ids.length); return; }
    await draw(ids[place]);
    drawn(ids[place]);
    setTimeout(() => next(place + 1).catch(fail), 0);
  };
  next(0).catch(fail);
};
