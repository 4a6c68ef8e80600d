// Zooms the figures over steps together, switches their scale, and names the stages above the bands.
drawFigures(({ figures, narrow, touch, draw }) => {
  const state = {}; // figure -> {log: whether y is, range: of x, or null}
  for (const id of Object.keys(figures)) state[id] = { log: false, range: null };

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

  const adjust = (layout, id) => {
    const own = state[id];
    if (own.log) layout.yaxis = { ...layout.yaxis, type: "log", rangemode: "normal", dtick: "D2", tickformat: "~g" };
    if (own.range) layout.xaxis.range = own.range;
    if (touch) { layout.dragmode = false; layout.xaxis.fixedrange = layout.yaxis.fixedrange = true; }
    if (narrow.matches) { layout.height = Math.min(layout.height, 340); layout.xaxis.nticks = 5; }
    if (layout.meta) layout.annotations = bandNames(document.getElementById(id), layout);
  };

  const zoomTogether = (id, changed) => {
    if (!Object.keys(changed).some((key) => key.startsWith("xaxis."))) return;
    const whole = figures[id].layout.xaxis.range, range = [...document.getElementById(id).layout.xaxis.range];
    const next = range[0] === whole[0] && range[1] === whole[1] ? null : range;
    for (const other of Object.keys(figures).filter((other) => other !== "timeline")) {
      if (String(state[other].range) === String(next)) continue;
      state[other].range = next;
      if (other !== id || figures[id].layout.meta) draw(other);
    }
  };
  const drawn = (id) => {
    if (id === "timeline") return;
    document.getElementById(id).on("plotly_relayout", (changed) => zoomTogether(id, changed));
  };

  for (const button of document.querySelectorAll("[data-log]")) {
    button.addEventListener("click", () => {
      const own = state[button.dataset.log];
      own.log = !own.log;
      button.setAttribute("aria-pressed", String(own.log));
      draw(button.dataset.log);
    });
  }
  const modeBarButtons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  return { config: { doubleClick: "reset", modeBarButtons }, adjust, drawn };
});
