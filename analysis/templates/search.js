// What the search found over time, and which hyperparameter moves what.

function drawVolume() {
  const cost = $("cost").value;
  const shown = data.series.map((one, index) => [one, index]).filter(([one]) => chosen.panel === ALL || one.panel === chosen.panel);
  const traces = shown.map(([one, index]) => ({ type: "scatter", mode: "lines+markers", name: one.label, x: one.progress[cost], y: one.progress.share, line: { shape: "hv", color: seriesColour(index), width: 2, dash: DASHES[index % 6] }, marker: { symbol: symbol(index), size: 7 },
    hovertemplate: "%{x}: %{y:.4f}<extra>%{fullData.name}</extra>" })).filter((trace) => trace.x.length);
  if (!traces.length) return say("volume-plot", undefined, "no trial has ended yet");
  const few = traces.every((trace) => trace.x.length < 2), steps = cost === "num_trials" && Math.max(...traces.flatMap((trace) => trace.x)) < 10;
  return draw("volume-plot", traces, { xaxis: axis($("cost").selectedOptions[0].textContent, { rangemode: "tozero", ...(steps ? { dtick: 1 } : {}) }), yaxis: axis("hypervolume, at most 1", few ? { range: [0, 1] } : {}), showlegend: traces.length > 1, margin: { l: 60, r: 15, t: 12, b: 50 } });
}

function fillFields() {
  $("fields-series").replaceChildren(...data.series.map((one, index) => new Option(several("panel") ? `${one.label}, ${one.panel}` : one.label, index)));
  const names = [...new Set([data.quality, ...data.axes, "test_top1"])];
  $("slice-metric").replaceChildren(...names.map((name) => new Option(data.metrics[name].label, name)));
}

const several = (name) => new Set(data.series.map((one) => one[name])).size > 1;

function drawImportance() {
  const one = data.series[$("fields-series").value];
  const plots = one.importance.map((_, at) => frame(`importance-${at}`));
  for (const old of document.querySelectorAll("#importance-plots .plot")) Plotly.purge(old);
  $("importance-plots").replaceChildren(...plots);
  const weak = one.importance.filter((each) => each.explained <= 0.2).map((each) => data.metrics[each.objective].label);
  $("importance-words").textContent = !one.importance.length ? "Importance takes at least 15 complete trials in which something varies."
    : `What shuffling a field costs a forest of randomised trees on trials it has not seen, in R\u00b2 on ranks.${weak.length ? ` The forest explains little of ${weak.join(" and ")}: read nothing into those bars.` : ""}`;
  one.importance.forEach((each, at) => {
    const fields = each.fields.slice(0, 12);
    draw(`importance-${at}`, [{ type: "bar", orientation: "h", y: fields.map(([name]) => wrapped(short(name)).join("<br>")), x: fields.map(([, mean]) => mean), marker: { color: colour("c0") },
      error_x: { type: "data", array: fields.map(([, , deviation]) => deviation), color: colour("ink"), thickness: 1.2, width: 4 }, hovertemplate: "%{y}: %{x:.3f}<extra></extra>" }],
    { heading: `${data.metrics[each.objective].label}: R\u00b2 ${each.explained.toFixed(2)}, ${each.num_trials} trials`, xaxis: axis("loss of R\u00b2"), yaxis: axis("", { autorange: "reversed" }), margin: { l: 55, r: 15, t: 26, b: 45 } });
  });
}

function frame(id) {
  const holder = document.createElement("div"), heading = document.createElement("h4");
  const plot = Object.assign(document.createElement("div"), { className: "plot", id });
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", "Importance of each field");
  holder.append(heading, plot);
  return holder;
}

function wrapped(name) {
  if (name.length <= 14) return [name];
  const middle = name.length / 2;
  const cuts = [...name.matchAll(/_/g)].map((found) => found.index).sort((one, other) => Math.abs(one - middle) - Math.abs(other - middle));
  return cuts.length ? [name.slice(0, cuts[0] + 1), name.slice(cuts[0] + 1)] : [name];
}

// Whether a column of numbers reads better on a log axis.
function isWide(values) {
  const numbers = values.filter((each) => typeof each === "number");
  return numbers.length > 1 && Math.min(...numbers) > 0 && Math.max(...numbers) / Math.min(...numbers) > 20;
}

function drawSlices() {
  const index = Number($("fields-series").value), one = data.series[index], name = $("slice-metric").value, known = data.metrics[name];
  const rows = everyRow().filter((row) => data.trials.series[row] === index && ["complete", "infeasible"].includes(data.trials.state[row]) && value(name, row) !== null && brushed(row));
  const fields = one.fields.slice(0, 12);
  if (!rows.length || !fields.length) return say("slices-plot", undefined, "no complete trial, or nothing that varies");
  const columns = narrow() ? 1 : Math.min(fields.length, 3), lines = Math.ceil(fields.length / columns);
  const layout = { showlegend: false, margin: { l: 60, r: 30, t: 10, b: 50 }, height: lines * 220 + 40 };
  const ys = rows.map((row) => value(name, row));
  const span = !chosen.whole && [data.quality, "test_top1"].includes(name) ? data.panels.find((each) => each.title === one.panel).span : null;
  const traces = fields.map((field, at) => {
    const suffix = at === 0 ? "" : String(at + 1), column = at % columns, line = Math.floor(at / columns);
    const width = 1 / columns, height = 1 / lines, x = rows.map((row) => value(field, row));
    const text = x.some((each) => typeof each === "string");
    layout[`xaxis${suffix}`] = axis(short(field), { domain: [column * width + (column ? 0.025 : 0), (column + 1) * width - 0.025], anchor: `y${suffix}`, type: text ? "category" : isWide(x) ? "log" : "linear", automargin: false, nticks: 5,
      tickangle: 0, ...(isWide(x) ? powers(x) : {}), ...(text ? { tickvals: [...new Set(x.filter(Boolean))], ticktext: [...new Set(x.filter(Boolean))].map((each) => clip(each, printing() || narrow() ? 8 : 12)) } : {}) });
    layout[`yaxis${suffix}`] = axis("", { domain: [1 - (line + 1) * height + 70 / layout.height, 1 - line * height], anchor: `x${suffix}`, matches: at ? "y" : undefined, showticklabels: column === 0, type: known.log && !isFlat(ys) ? "log" : "linear", nticks: 5, automargin: false, ...(known.percent ? percent : {}), ...(span ? { range: span } : {}) });
    return { type: "scatter", mode: "markers", x, y: ys, customdata: rows, xaxis: `x${suffix}`, yaxis: `y${suffix}`, text: rows.map(hover), hovertemplate: "%{text}<extra></extra>", marker: { size: 6, opacity: rows.length > 500 ? 0.3 : 0.6, color: seriesColour(index), symbol: symbol(index) } };
  });
  $("slices-plot").style.height = `${layout.height}px`;
  return draw("slices-plot", traces, layout);
}

const isFlat = (numbers) => Math.min(...numbers) <= 0;

// Ticks at powers of ten, as few as fit.
function powers(values) {
  const numbers = values.filter((each) => each > 0);
  const [low, high] = [Math.ceil(Math.log10(Math.min(...numbers)) - 0.15), Math.floor(Math.log10(Math.max(...numbers)) + 0.15)];
  const step = Math.ceil((high - low + 1) / 5) || 1;
  const ticks = Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, at) => low + at * step);
  return { tickvals: ticks.map((power) => 10 ** power), ticktext: ticks.map((power) => (Math.abs(power) < 4 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`)) };
}

// The beginning and the end of a long word: fields' choices often differ at the end only.
function clip(text, length) {
  const whole = String(text), half = Math.floor((length - 1) / 2);
  return whole.length > length ? `${whole.slice(0, half)}\u2026${whole.slice(-half)}` : whole;
}
