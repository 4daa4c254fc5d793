// Which setting moves what: importance, slices, and a map of two settings.

const several = (name) => new Set(data.series.map((one) => one[name])).size > 1;

function fillFields() {
  $("fields-series").replaceChildren(...data.series.map((one, index) => new Option(several("panel") ? `${one.label}, ${one.panel}` : one.label, index)));
  const names = [...new Set([data.quality, ...data.axes, "test_top1"])].filter((name) => data.offered.includes(name));
  $("slice-metric").replaceChildren(...(names.length ? names : [data.quality]).map((name) => new Option(data.metrics[name].label, name)));
  fillContour();
}

function drawImportance() {
  const one = data.series[$("fields-series").value];
  const plots = one.importance.map((_, place) => frame(`importance-${place}`));
  for (const old of document.querySelectorAll("#importance-plots .plot")) Plotly.purge(old);
  $("importance-plots").replaceChildren(...plots);
  const weak = one.importance.filter((each) => each.explained <= 0.2).map((each) => data.metrics[each.objective].label);
  $("importance-words").textContent = !one.importance.length ? "Importance takes at least 15 complete trials in which something varies."
    : `What shuffling a field costs a forest of randomised trees on trials it has not seen, in R\u00b2 on ranks.${weak.length ? ` The forest explains little of ${weak.join(" and ")}: read nothing into those bars.` : ""}`;
  one.importance.forEach((each, place) => {
    const fields = each.fields.slice(0, 12);
    draw(`importance-${place}`, [{ type: "bar", orientation: "h", y: fields.map(([name]) => wrapped(short(name)).join("<br>")), x: fields.map(([, mean]) => mean), marker: { color: colour("c0") },
      error_x: { type: "data", array: fields.map(([, , deviation]) => deviation), color: colour("ink"), thickness: 1.2, width: 4 }, hovertemplate: "%{y}: %{x:.3f}<extra></extra>" }],
    { heading: `${data.metrics[each.objective].label}: R\u00b2 ${each.explained.toFixed(2)}, ${each.num_trials} trials`, xaxis: axis("loss of R\u00b2"), yaxis: axis("", { autorange: "reversed" }), margin: { l: 55, r: 15, t: 26, b: 45 } });
  });
}

function frame(id) {
  const holder = document.createElement("div"), heading = document.createElement("p");
  heading.className = "heading";
  const plot = Object.assign(document.createElement("div"), { className: "plot", id });
  plot.setAttribute("role", "figure");
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
  if (numbers.length < 2) return false;
  const [low, high] = extent(numbers);
  return low > 0 && high / low > 20;
}

// Finished rows of the chosen series that have the metric and pass the brushes.
const finished = (index, name) => everyRow().filter((row) => data.trials.series[row] === index && ["complete", "infeasible"].includes(data.trials.state[row]) && value(name, row) !== null && brushed(row));

function drawSlices() {
  const index = Number($("fields-series").value), one = data.series[index], name = $("slice-metric").value, known = data.metrics[name];
  const rows = finished(index, name), fields = one.fields.slice(0, 12);
  if (!rows.length || !fields.length) return say("slices-plot", undefined, "no complete trial, or nothing that varies");
  const columns = narrow() ? 1 : Math.min(fields.length, 3), lines = Math.ceil(fields.length / columns);
  const layout = { showlegend: false, margin: { l: 60, r: 30, t: 10, b: 50 }, height: lines * 220 + 40 };
  const ys = rows.map((row) => value(name, row)), isLog = known.log && !isFlat(ys);
  const window = windowOf({ of: name, log: isLog }, ys, [], []), below = ys.filter((each) => each < window[0]).length;
  const span = window.map((end) => (isLog ? Math.log10(end) : end));
  $("slices-words").textContent = `Each dot is a complete trial; all settings vary at once, so a slope may be another setting's.${below ? ` ${below} of ${ys.length} lie below the window; \u201cwhole range\u201d above shows them.` : ""}`;
  const traces = fields.map((field, place) => {
    const suffix = place === 0 ? "" : String(place + 1), column = place % columns, line = Math.floor(place / columns);
    const width = 1 / columns, height = 1 / lines, x = rows.map((row) => value(field, row));
    const text = x.some((each) => typeof each === "string");
    layout[`xaxis${suffix}`] = axis(short(field), { domain: [column * width + (column ? 0.025 : 0), (column + 1) * width - 0.025], anchor: `y${suffix}`, type: text ? "category" : isWide(x) ? "log" : "linear", automargin: false, nticks: 5,
      tickangle: 0, ...(isWide(x) ? powers(x) : {}), ...(text ? { tickvals: [...new Set(x.filter(Boolean))], ticktext: [...new Set(x.filter(Boolean))].map((each) => clip(each, printing() || narrow() ? 8 : 12)) } : {}) });
    layout[`yaxis${suffix}`] = axis("", { domain: [1 - (line + 1) * height + 70 / layout.height, 1 - line * height], anchor: `x${suffix}`, matches: place ? "y" : undefined, showticklabels: column === 0, type: isLog ? "log" : "linear", range: span, nticks: 5, automargin: false, ...(known.percent ? percent : {}) });
    return { type: "scatter", mode: "markers", x, y: ys, customdata: rows, xaxis: `x${suffix}`, yaxis: `y${suffix}`, text: rows.map((row) => hover(row)), hovertemplate: "%{text}<extra></extra>", marker: { size: 6, opacity: rows.length > 500 ? 0.3 : 0.6, color: seriesColour(index), symbol: symbol(index) } };
  });
  $("slices-plot").style.height = `${layout.height}px`;
  return draw("slices-plot", traces, layout);
}

const isFlat = (numbers) => Math.min(...numbers) <= 0;

// Ticks at powers of ten, as few as fit.
function powers(values) {
  const [from, to] = extent(values.filter((each) => each > 0));
  const [low, high] = [Math.ceil(Math.log10(from) - 0.15), Math.floor(Math.log10(to) + 0.15)];
  const step = Math.ceil((high - low + 1) / 5) || 1;
  const ticks = Array.from({ length: Math.max(0, Math.floor((high - low) / step) + 1) }, (_, place) => low + place * step);
  return { tickvals: ticks.map((power) => 10 ** power), ticktext: ticks.map((power) => (Math.abs(power) < 4 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`)) };
}

// The beginning and the end of a long word: fields' choices often differ at the end only.
function clip(text, length) {
  const whole = String(text), half = Math.floor((length - 1) / 2);
  return whole.length > length ? `${whole.slice(0, half)}\u2026${whole.slice(-half)}` : whole;
}

function fillContour() {
  const fields = data.series[$("fields-series").value].fields;
  for (const [id, place] of [["contour-x", 0], ["contour-y", 1]]) {
    const before = $(id).value;
    $(id).replaceChildren(...fields.map((name) => new Option(short(name), name)));
    $(id).value = fields.includes(before) ? before : fields[place] ?? "";
  }
  $("contour-x").closest("form").hidden = fields.length < 2;
}

const CELLS = 16;

// Means in cells of two settings; empty cells between are filled by Plotly from their neighbours.
function drawContour() {
  const index = Number($("fields-series").value), name = $("slice-metric").value, known = data.metrics[name];
  const across = $("contour-x").value, up = $("contour-y").value;
  const rows = finished(index, name).filter((row) => value(across, row) !== null && value(up, row) !== null);
  if (!across || !up || across === up || rows.length < 4) return say("contour-plot", undefined, "it takes two settings that vary and four complete trials that have both");
  const [xs, ys] = [across, up].map((field) => cells(rows.map((row) => value(field, row))));
  const isLog = known.log && rows.every((row) => value(name, row) > 0);
  const z = (row) => (isLog ? Math.log2(value(name, row)) : value(name, row));
  const sums = ys.centres.map(() => xs.centres.map(() => []));
  rows.forEach((row, place) => sums[ys.of[place]][xs.of[place]].push(z(row)));
  const means = sums.map((line) => line.map((found) => (found.length ? found.reduce((sum, each) => sum + each, 0) / found.length : null)));
  const [lowest, high] = extent(rows.map(z));
  // Collapsed trials take the lowest colour, or the others would be one colour.
  const low = isLog ? lowest : Math.max(lowest, windowOf({ of: name, log: false }, rows.map(z), [], [])[0]);
  const ticks = Array.from({ length: 5 }, (_, place) => low + (place * (high - low)) / 4);
  const bar = { title: { text: known.label, side: "right", font: { size: 12 } }, thickness: 12, tickvals: ticks, ticktext: ticks.map((each, place) => (place === 0 && low > lowest ? "\u2264 " : "") + show(name, isLog ? 2 ** each : each)), tickfont: { size: 11 } };
  const traces = [
    { type: "contour", x: xs.centres, y: ys.centres, z: means, connectgaps: true, colorscale: scale(), zmin: low, zmax: high, ncontours: 10, contours: { coloring: "heatmap", showlines: true }, line: { color: faded(colour("paper"), 0.6), width: 0.7, smoothing: 0 }, hoverinfo: "skip", colorbar: bar, showlegend: false },
    { type: "scatter", mode: "markers", x: xs.places, y: ys.places, customdata: rows, text: rows.map((row) => hover(row)), hovertemplate: "%{text}<extra></extra>", showlegend: false, marker: { size: 7, color: rows.map(z), colorscale: scale(), cmin: low, cmax: high, line: { color: colour("ink"), width: 1 } } },
  ];
  const layout = (field, each) => axis(short(field) + (each.log ? " (log scale)" : ""), { ...each.axis, zeroline: false });
  return draw("contour-plot", traces, { xaxis: layout(across, xs), yaxis: layout(up, ys), margin: { l: 60, r: 15, t: 12, b: 50 } });
}

// Where numbers or words lie on an axis, and which of at most 16 cells each is in.
function cells(values) {
  if (values.some((each) => typeof each === "string")) {
    const known = [...new Set(values.map(String))].sort();
    const of = values.map((each) => known.indexOf(String(each)));
    return { of, places: of, centres: known.map((_, place) => place), axis: { tickvals: known.map((_, place) => place), ticktext: known.map((each) => clip(each, 16)) }, log: false };
  }
  const log = isWide(values), scaled = log ? values.map(Math.log10) : values;
  const distinct = [...new Set(scaled)].sort((one, other) => one - other);
  const [low, high] = extent(scaled), size = (high - low) / CELLS || 1;
  const centres = distinct.length <= CELLS ? distinct : Array.from({ length: CELLS }, (_, place) => low + (place + 0.5) * size);
  const of = scaled.map((each) => (distinct.length <= CELLS ? distinct.indexOf(each) : Math.min(CELLS - 1, Math.floor((each - low) / size))));
  const ticks = log ? powers(values) : {};
  return { of, places: scaled, centres, log, axis: log ? { tickvals: ticks.tickvals.map(Math.log10), ticktext: ticks.ticktext } : {} };
}
