// The first figure: all points on two axes, the front of each series, seeds as bars, ties with their number.

const LOOK = {
  complete: { size: 6, opacity: 0.5 },
  infeasible: { size: 8, symbol: "y-down-open", opacity: 0.75 },
  pruned: { size: 7, symbol: "triangle-down-open", opacity: 0.75 },
  failed: { size: 7, symbol: "x-thin-open", opacity: 0.9 },
};
const EDGES = { "0,-1": "triangle-down", "0,1": "triangle-up", "-1,0": "triangle-left", "1,0": "triangle-right" };
const MOST_TIES = 30;

// Mean, lowest and highest over the seeds of the configuration that a front member stands for.
function overSeeds(one, row, of) {
  const seeds = one.replicated.find((each) => each.trials[0] === row);
  const found = (seeds ? seeds.trials : [row]).map(of).filter((number) => number !== null);
  if (!found.length) return null;
  const mean = found.reduce((sum, number) => sum + number, 0) / found.length;
  const [low, high] = extent(found);
  return { mean, low, high, num: found.length, probability: seeds?.probability ?? null };
}

const escaped = (text) => String(text).replaceAll("<", "&lt;");

function hover(row, ties = []) {
  const one = series(row), trials = data.trials;
  const lines = [`<b>${escaped(trials.id[row])}</b> ${escaped(one.label)} (${trials.state[row]})`];
  if (trials.failure[row]) lines.push(escaped(trials.failure[row].slice(0, 80)));
  for (const name of new Set(["unique_values", "coverage", data.quality, "test_top1", ...data.axes.slice(0, 3)])) {
    if (data.metrics[name] && value(name, row) !== null) lines.push(`${data.metrics[name].label}: ${show(name, value(name, row))}`);
  }
  const settings = one.fields.filter((field) => value(field, row) !== null).slice(0, 8);
  for (const field of settings) lines.push(`${short(field)} = ${escaped(show(field, value(field, row)))}`);
  const others = ties.filter((each) => each !== row);
  if (others.length) lines.push(`same place: ${others.slice(0, 5).map((each) => escaped(trials.id[each])).join(", ")}${others.length > 5 ? ` and ${others.length - 5} more` : ""}`);
  return lines.join("<br>");
}

// The accuracy axes on which a front of the accuracy is meant: the objective itself and, where it is validation, test.
const isOutcome = (one) => one.of === data.quality || (data.quality === "val_top1" && one.of === "test_top1");

function drawFront() {
  const x = axes.get(chosen.x), y = axes.get(chosen.y);
  const rows = passing();
  const indices = [...new Set(everyRow().filter(inPanel).map((row) => data.trials.series[row]))];
  const places = new Map(rows.map((row) => [row, [at(x, row), at(y, row)]]));
  const drawable = rows.filter((row) => places.get(row).every((each) => each !== null));
  const fronted = isOutcome(y) && x.kind === "value" && data.series[0].fronts[x.of] ? x.of : data.axes[0];
  const shown = new Set(drawable);
  const members = new Map(indices.map((index) => [index, data.series[index].fronts[fronted].filter((row) => shown.has(row))]));
  const front = [...members.values()].flat();
  const others = publishedRows(x, y, drawable);
  const windows = [x, y].map((one, place) => windowOf(one, drawable.map((row) => places.get(row)[place]), front.map((row) => places.get(row)[place]),
    [...others.map((each) => each[place]), ...(place === 1 ? floats(y).map(([height]) => height) : [])]));
  const isLine = fronted === x.of && isOutcome(y);
  const ends = { far: data.metrics[x.of].better === "maximize" ? windows[0][0] : windows[0][1], bottom: y.kind === "error" ? windows[1][1] : windows[1][0] };
  const away = drawable.filter((row) => [x, y].some((one, place) => held(one, places.get(row)[place], windows[place])[1]));
  const traces = [
    ...clouds(indices, drawable, places),
    ...(isLine ? indices.flatMap((index) => attainmentTraces(index, ends)) : []),
    ...indices.flatMap((index) => frontTraces(index, members.get(index), x, y, isLine, indices.length > 1)),
    ...legend(drawable), ...ties(drawable, places, windows, x, y), ...publishedTraces(others), ...edge(away, places, windows, x, y), ...rings(drawable, x, y),
  ];
  $("front-title").textContent = `${capital(y.label)} against ${x.label}`;
  draw("front-plot", traces, {
    xaxis: { ...plotlyAxis(x, windows[0], axisTitle(x)), visible: drawable.length > 0, automargin: false, tickangle: 0 },
    yaxis: { ...plotlyAxis(y, windows[1], narrow() ? "" : axisTitle(y)), visible: drawable.length > 0, automargin: false },
    shapes: drawable.length ? floats(y).map(([height, name, kind]) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: height, y1: height, name, showlegend: true, line: { color: colour("ink"), width: 1.2, dash: kind } })) : [],
    margin: { l: narrow() ? 52 : 76, r: 12, t: 8, b: 46 },
    annotations: drawable.length ? [] : [sentence(rows.length ? `none of the ${counted(rows)} that pass has both numbers` : "nothing passes the filter")],
  });
  sayFront(rows, drawable, away, x, y);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function sayFront(rows, drawable, away, x, y) {
  const every = everyRow().filter(inPanel), lacking = rows.length - drawable.length;
  const large = isOutcome(y) ? `the front of ${data.metrics[data.quality].label} against ${x.kind === "value" && data.series[0].fronts[x.of] ? x.label : data.metrics[data.axes[0]].label}` : `the front of ${data.metrics[data.quality].label} against ${data.metrics[data.axes[0]].label}`;
  const absent = !lacking ? "" : lacking === 1 ? `1 has no ${y.label} or no ${x.label}.` : `${lacking} have no ${y.label} or no ${x.label}.`;
  $("front-words").textContent = [
    rows.length === every.length ? `${capital(counted(rows))}.` : `${rows.length} of ${counted(every)} pass.`, absent,
    away.length ? `${away.length} ${away.length === 1 ? "lies" : "lie"} outside the window, at its edge; \u201cwhole range\u201d shows them, an error axis spreads them.` : "",
    drawable.length ? `Large marks are ${large}${y.of === "test_top1" ? ", chosen on validation" : ""}; bars: lowest and highest seed; \u00d72: two at one place.` : "",
  ].filter(Boolean).join(" ");
}

// Every point at its numbers, one trace for each series and state.
function clouds(indices, drawable, places) {
  const at = placesOf(drawable, places);
  return indices.flatMap((index) => STATES.map((state) => {
    const rows = drawable.filter((row) => data.trials.series[row] === index && data.trials.state[row] === state);
    const ink = seriesColour(index), name = `${nameOf(data.series[index])}, ${state}`;
    return { type: "scatter", mode: "markers", name, showlegend: false, meta: "points", x: rows.map((row) => places.get(row)[0]), y: rows.map((row) => places.get(row)[1]), customdata: rows,
      text: rows.map((row) => hover(row, at.get(String(places.get(row))))), hovertemplate: "%{text}<extra></extra>",
      marker: { ...LOOK[state], symbol: LOOK[state].symbol ?? symbol(index), color: ink, line: { width: state === "complete" ? 0 : 1.4, color: ink } } };
  })).filter((trace) => trace.x.length);
}

function placesOf(drawable, places) {
  const found = new Map();
  for (const row of drawable) {
    const key = String(places.get(row));
    if (found.has(key)) found.get(key).push(row);
    else found.set(key, [row]);
  }
  return found;
}

// What the markers of the states mean, in grey, as every series has them.
function legend(drawable) {
  const shown = STATES.filter((state) => drawable.some((row) => data.trials.state[row] === state));
  return shown.map((state) => ({ type: "scatter", mode: "markers", x: [null], y: [null], hoverinfo: "skip", name: state === "complete" ? "not on the front" : state,
    marker: { ...LOOK[state], opacity: 1, symbol: LOOK[state].symbol ?? "circle", color: colour("quiet"), line: { width: state === "complete" ? 0 : 1.4, color: colour("quiet") } } }));
}

const stairs = () => (data.metrics[axes.get(chosen.x).of].better === "maximize" ? "vh" : "hv");

function frontTraces(index, members, x, y, isLine, several) {
  const one = data.series[index], ink = seriesColour(index);
  const found = members.map((row) => ({ row, x: overSeeds(one, row, (each) => at(x, each)), y: overSeeds(one, row, (each) => at(y, each)) })).filter((each) => each.x && each.y);
  if (isLine) found.sort((left, right) => left.x.mean - right.x.mean);
  const bars = (name) => ({ type: "data", symmetric: false, array: found.map((each) => each[name].high - each[name].mean), arrayminus: found.map((each) => each[name].mean - each[name].low),
    color: ink, thickness: 1.4, width: 4, visible: found.some((each) => each[name].num > 1) });
  const text = found.map((each) => hover(each.row) + (each.y.num > 1 ? `<br>mean of ${each.y.num} seeds: ${showOn(y, each.y.mean)}` : "")
    + (each.y.probability !== null ? `<br>on the front in ${(100 * each.y.probability).toFixed(0)} % of draws` : ""));
  // On test the members need not rise from left to right: a line from mark to mark, no staircase.
  const line = y.of === data.quality ? { width: 2.2, shape: stairs() } : { width: 1.6 };
  const name = several ? nameOf(one) + (one.isBaseline && !narrow() ? " (baseline)" : "") : "front";
  return found.length ? [{ type: "scatter", mode: isLine ? "lines+markers" : "markers", name, meta: "front", x: found.map((each) => each.x.mean), y: found.map((each) => each.y.mean), text, customdata: found.map((each) => each.row),
    hovertemplate: "%{text}<extra></extra>", line: { color: ink, dash: dash(index), ...line },
    marker: { size: 11, symbol: symbol(index), color: ink, line: { color: colour("paper"), width: 1.2 } }, error_x: bars("x"), error_y: bars("y") }] : [];
}

// A surface goes on from its first corner down to the bottom, and from its last to the worst across.
function attainmentTraces(index, { far, bottom }) {
  const one = data.series[index], found = one.attainment[chosen.x];
  if (!chosen.attainment || !found || chosen.y !== data.quality) return [];
  return Object.entries(found.surfaces).map(([level, corners], place) => ({ type: "scatter", mode: "lines", name: `${nameOf(one)}: ${level} % of ${found.num_runs} runs`,
    x: corners.length ? [corners[0][1], ...corners.map(([, across]) => across), far] : [], y: corners.length ? [bottom, ...corners.map(([quality]) => quality), corners.at(-1)[0]] : [],
    hoverinfo: "skip", line: { color: seriesColour(index), width: 1.2, shape: stairs(), dash: ["dot", "dashdot", "dash"][place] } }));
}

// How many points lie at one place, where there are several; the largest first, as many as can be read.
function ties(drawable, places, windows, x, y) {
  const inside = ([left, up]) => !held(x, left, windows[0])[1] && !held(y, up, windows[1])[1];
  const several = [...placesOf(drawable, places).values()].filter((rows) => rows.length > 1 && inside(places.get(rows[0])));
  const shown = several.sort((one, other) => other.length - one.length).slice(0, MOST_TIES);
  return shown.length ? [{ type: "scatter", mode: "text", name: "ties", meta: "ties", showlegend: false, hoverinfo: "skip", x: shown.map(([row]) => places.get(row)[0]), y: shown.map(([row]) => places.get(row)[1]),
    text: shown.map((rows) => `\u00d7${rows.length}`), textposition: "bottom right", textfont: { size: 10, color: colour("quiet") } }] : [];
}

// Arrows at the edge for what lies beyond it.
function edge(rows, places, windows, x, y) {
  const found = rows.map((row) => [held(x, places.get(row)[0], windows[0]), held(y, places.get(row)[1], windows[1])]);
  return rows.length ? [{ type: "scatter", mode: "markers", name: "beyond the edge", meta: "edge", x: found.map(([left]) => left[0]), y: found.map(([, up]) => up[0]), customdata: rows,
    text: rows.map((row) => hover(row)), hovertemplate: "%{text}<extra></extra>",
    marker: { symbol: found.map(([left, up]) => EDGES[`${up[1] ? 0 : left[1]},${up[1]}`]), size: 9, color: colour("quiet") } }] : [];
}

// Rings around the opened trial, all of its points, and the one that it is compared with.
function rings(drawable, x, y) {
  return [[chosen.row, "circle-open", "solid"], [chosen.other, "square-open", "dot"]].filter(([row]) => row !== null).map(([row, shape]) => {
    const rows = drawable.filter((each) => each === row || (data.trials.series[each] === data.trials.series[row] && run(each) === run(row)));
    return { type: "scatter", mode: "markers", name: `trial ${run(row)}`, x: rows.map((each) => at(x, each)), y: rows.map((each) => at(y, each)), hoverinfo: "skip",
      marker: { symbol: shape, size: rows.map((each) => (each === row ? 22 : 15)), color: colour("ink"), line: { width: 2 } } };
  });
}

function publishedRows(x, y, drawable) {
  if (!drawable.length || y.of !== data.quality && y.of !== "test_top1" || y.kind === "loss" || x.kind !== "value" || data.quality !== "val_top1") return [];
  const rows = data.panels.filter((part) => part.title === chosen.panel).flatMap((part) => part.published);
  return rows.filter((row) => row[x.of] && row.test_top1).map((row) => [row[x.of], y.kind === "error" ? 1 - row.test_top1 : row.test_top1, row]);
}

function publishedTraces(rows) {
  return rows.length ? [{ type: "scatter", mode: "markers+text", name: "published by others (test)", x: rows.map(([x]) => x), y: rows.map(([, y]) => y), text: rows.map(([, , row]) => row.label), textposition: "middle left",
    textfont: { size: 10, color: colour("quiet") }, hovertext: rows.map(([, , row]) => `${row.label}, published<br>${row.setting}<br>${row.source}`), hovertemplate: "%{hovertext}<extra></extra>", marker: { symbol: "hexagram-open", size: 10, color: colour("ink") } }] : [];
}

// Heights, names and dashes of the lines of the float network.
function floats(y) {
  if (y.kind === "loss") return [[0, "float network", "solid"]];
  const column = data.metrics[y.of].float, part = data.panels.find((each) => each.title === chosen.panel);
  const heights = column ? (part?.float[column] ?? []).slice(0, 4) : [];
  return heights.map((height) => (y.kind === "error" ? 1 - height : height)).filter((height) => !y.log || height > 0).map((height) => [height, `float ${show(y.of, height)}`, "dash"]);
}
