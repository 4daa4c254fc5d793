// The front: every trial behind it, seeds as bars, test accuracies hollow, other methods and published rows.

const LOOK = {
  complete: { size: 6, opacity: 0.45 },
  infeasible: { size: 8, symbol: "y-down-open", opacity: 0.75 },
  pruned: { size: 7, symbol: "triangle-down-open", opacity: 0.75 },
  failed: { size: 7, symbol: "x-thin-open", opacity: 0.9 },
};

function heightOf(row) {
  const base = chosen.y.startsWith("test") ? "test_top1" : data.quality;
  const found = value(base, row);
  if (!chosen.y.endsWith("_loss")) return found;
  const float = value(chosen.y.startsWith("test") ? "float_test_top1" : "float_val_top1", row);
  return found === null || float === null ? null : found - float;
}

// Mean, lowest and highest over the seeds of the configuration that a front member stands for.
function overSeeds(one, row, of) {
  const seeds = one.replicated.find((each) => each.trials[0] === row);
  const found = (seeds ? seeds.trials : [row]).map(of).filter((number) => number !== null);
  if (!found.length) return null;
  const mean = found.reduce((sum, number) => sum + number, 0) / found.length;
  return { mean, low: Math.min(...found), high: Math.max(...found), num: found.length, probability: seeds?.probability ?? null };
}

function hover(row) {
  const one = series(row);
  const lines = [`<b>${data.trials.id[row]}</b> ${one.label} (${data.trials.state[row]})`];
  if (data.trials.failure[row]) lines.push(data.trials.failure[row].slice(0, 80));
  for (const name of [...new Set([...data.axes.slice(0, 3), data.quality, "test_top1"])]) {
    lines.push(`${data.metrics[name].label}: ${show(name, value(name, row))}`);
  }
  for (const field of one.fields.slice(0, 12)) if (value(field, row) !== null) lines.push(`${short(field)} = ${show(field, value(field, row))}`);
  return lines.join("<br>").replaceAll(/<(?!\/?b>|br>)/g, "&lt;");
}

function cloud(index, state, rows, several) {
  const one = data.series[index];
  const x = rows.map((row) => value(chosen.x, row));
  const single = state === "complete" ? symbol(index) : LOOK[state].symbol;
  return { type: "scatter", mode: "markers", name: several ? `${one.label}, ${state}` : `${state}, not on the front`, showlegend: !several || state !== "complete",
    x, y: rows.map(heightOf), customdata: rows, text: rows.map(hover), hovertemplate: "%{text}<extra></extra>",
    marker: { ...LOOK[state], symbol: single, color: seriesColour(index), line: { width: state === "complete" ? 0 : 1.4, color: seriesColour(index) } } };
}

function frontTraces(index, several, first) {
  const one = data.series[index];
  const shownRows = new Set(passing());
  const members = one.fronts[chosen.x].filter((row) => shownRows.has(row));
  const across = members.map((row) => overSeeds(one, row, (each) => value(chosen.x, each)));
  const up = members.map((row) => overSeeds(one, row, heightOf));
  const usable = members.map((_, at) => at).filter((at) => across[at] && up[at]);
  const x = usable.map((at) => across[at].mean), y = usable.map((at) => up[at].mean);
  const bars = (all, axisColour) => ({ type: "data", symmetric: false, array: usable.map((at) => all[at].high - all[at].mean),
    arrayminus: usable.map((at) => all[at].mean - all[at].low), color: axisColour, thickness: 1.4, width: 4, visible: usable.some((at) => all[at].num > 1) });
  const ink = seriesColour(index);
  const text = usable.map((at) => hover(members[at]) + (up[at].num > 1 ? `<br>mean of ${up[at].num} seeds` : "")
    + (up[at].probability !== null ? `<br>on the front in ${(100 * up[at].probability).toFixed(0)} % of draws` : ""));
  const traces = [{ type: "scatter", mode: "lines+markers", name: several ? `front of ${one.label}` : "front", x, y, text, customdata: usable.map((at) => members[at]),
    hovertemplate: "%{text}<extra></extra>", line: { color: ink, width: 2.2, shape: stairs(), dash: DASHES[index % 6] },
    marker: { size: 12, symbol: symbol(index), color: ink, line: { color: colour("paper"), width: 1.5 } },
    error_x: bars(across, ink), error_y: bars(up, ink) }];
  if (chosen.y.startsWith("test")) traces[0].line = { color: ink, width: 1, dash: "dot" };
  return chosen.y === "quality" && data.quality === "val_top1" ? [...testTraces(one, members, ink, index, several, first), ...traces] : traces;
}

const stairs = () => (data.metrics[chosen.x].better === "maximize" ? "vh" : "hv");

function testTraces(one, members, ink, index, several, first) {
  const points = members.map((row) => [overSeeds(one, row, (each) => value(chosen.x, each)), overSeeds(one, row, (each) => value(data.quality, each)),
    overSeeds(one, row, (each) => value("test_top1", each)), row]).filter(([x, y, test]) => x && y && test);
  const joins = points.flatMap(([x, y, test]) => [[x.mean, y.mean], [x.mean, test.mean], [null, null]]);
  return [
    { type: "scatter", mode: "lines", x: joins.map(([x]) => x), y: joins.map(([, y]) => y), line: { color: ink, width: 1 }, hoverinfo: "skip", showlegend: false },
    { type: "scatter", mode: "markers", name: several ? "hollow: front on test" : "front, test top-1", showlegend: first, x: points.map(([x]) => x.mean), y: points.map(([, , test]) => test.mean),
      customdata: points.map(([, , , row]) => row), text: points.map(([, , , row]) => hover(row)), hovertemplate: "%{text}<extra></extra>",
      marker: { size: 8, symbol: `${symbol(index)}-open`, color: ink, line: { width: 1.8, color: ink } } },
  ];
}

// A surface goes on from its first corner down to `bottom`, and from its last to `far`, the worst across.
function attainmentTraces(index, far, bottom) {
  const found = data.series[index].attainment[chosen.x];
  if (!chosen.attainment || !found || chosen.y !== "quality") return [];
  return Object.entries(found.surfaces).map(([level, corners], at) => ({ type: "scatter", mode: "lines", name: `${data.series[index].label}: ${level} % of ${found.num_runs} runs`,
    x: corners.length ? [corners[0][1], ...corners.map(([, x]) => x), far] : [], y: corners.length ? [bottom, ...corners.map(([quality]) => quality), corners.at(-1)[0]] : [], hoverinfo: "skip", line: { color: seriesColour(index), width: 1.2, shape: stairs(), dash: ["dot", "dashdot", "dash"][at] } }));
}

function publishedTraces() {
  const rows = data.panels.filter((part) => part.title === chosen.panel).flatMap((part) => part.published)
    .filter((row) => row[chosen.x] && row.test_top1 && !chosen.y.endsWith("_loss"));
  return rows.length ? [{ type: "scatter", mode: "markers+text", name: "published by others (test)", x: rows.map((row) => row[chosen.x]), y: rows.map((row) => row.test_top1),
    text: rows.map((row) => row.label), textposition: "middle left", textfont: { size: 10, color: colour("quiet") }, hovertext: rows.map((row) => `${row.label}, published<br>${row.setting}<br>${row.source}`),
    hovertemplate: "%{hovertext}<extra></extra>", marker: { symbol: "hexagram-open", size: 10, color: colour("ink") } }] : [];
}

function floatLines() {
  if (chosen.y.endsWith("_loss")) return [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: colour("ink"), width: 1 }, name: "float network", showlegend: true }];
  if (data.quality !== "val_top1") return [];
  const part = data.panels.find((each) => each.title === chosen.panel);
  const kinds = { float_val_top1: ["validation", "solid"], float_test_top1: ["test", "dash"] };
  return Object.entries(kinds).flatMap(([name, [images, dash]]) => (part?.float[name] ?? []).slice(0, 4).map((height) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: height, y1: height,
    line: { color: colour("ink"), width: 1.2, dash }, name: `float, ${images} (${show(data.quality, height)})`, showlegend: true })));
}

// Arrows at the lower edge for what lies below it.
function edge(rows, span) {
  return { type: "scatter", mode: "markers", name: "below the window", x: rows.map((row) => value(chosen.x, row)), y: rows.map(() => span[0] + 0.02 * (span[1] - span[0])), customdata: rows, text: rows.map(hover),
    hovertemplate: "%{text}<extra></extra>", marker: { symbol: "triangle-down", size: 9, color: colour("quiet") } };
}

function window_() {
  const part = data.panels.find((each) => each.title === chosen.panel);
  if (chosen.whole || chosen.y.endsWith("_loss") && chosen.panel === ALL || !part) return null;
  if (!chosen.y.endsWith("_loss")) return part.span;
  const float = part.float[chosen.y.startsWith("test") ? "float_test_top1" : "float_val_top1"];
  return float.length ? part.span.map((end) => end - float[float.length - 1]) : null;
}

function drawFront() {
  const rows = passing();
  const indices = [...new Set(everyRow().filter(inPanel).map((row) => data.trials.series[row]))];
  const several = indices.length > 1;
  const onFront = new Set(indices.flatMap((index) => data.series[index].fronts[chosen.x]));
  const drawable = rows.filter((row) => value(chosen.x, row) !== null && heightOf(row) !== null);
  const clouds = indices.flatMap((index) => STATES.map((state) => [index, state, drawable.filter((row) => data.trials.series[row] === index && data.trials.state[row] === state && !onFront.has(row))]))
    .filter(([, , each]) => each.length).map(([index, state, each]) => cloud(index, state, each, several));
  const others = drawable.length ? publishedTraces() : [];
  const xs = [...drawable.map((row) => value(chosen.x, row)), ...others.flatMap((trace) => trace.x)], span = window_();
  const far = data.metrics[chosen.x].better === "maximize" ? Math.min(...xs) : Math.max(...xs);
  const bottom = span ? span[0] : Math.min(...drawable.map(heightOf));
  const traces = [...clouds, ...indices.flatMap((index) => attainmentTraces(index, far, bottom)), ...indices.flatMap((index) => frontTraces(index, several, index === indices[0])), ...others];
  if (chosen.row !== null && drawable.includes(chosen.row)) traces.push({ type: "scatter", mode: "markers", name: `trial ${data.trials.id[chosen.row]}`, x: [value(chosen.x, chosen.row)], y: [heightOf(chosen.row)], hoverinfo: "skip",
    marker: { symbol: "circle-open", size: 22, color: colour("ink"), line: { width: 2 } } });
  const low = span ? drawable.filter((row) => heightOf(row) < span[0]) : [];
  if (low.length) traces.push(edge(low, span));
  const known = data.metrics[chosen.x];
  const log = known.log && xs.some((number) => number > 0);
  const label = $("y").selectedOptions[0].textContent;
  draw("front-plot", traces, { xaxis: !drawable.length ? axis(known.label, { showticklabels: false }) : log ? logAxis(`${known.label} (log scale)`, xs) : axis(known.label, known.percent ? percent : {}),
    yaxis: axis(label, { ...(data.metrics[data.quality].percent ? percent : {}), ...(span ? { range: span } : {}) }), shapes: drawable.length ? floatLines() : [],
    margin: { l: 60, r: 15, t: 12, b: 50 },
    annotations: drawable.length ? [] : [{ text: rows.length ? "no trial that passes has both numbers" : "no trial to show", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }] });
  $("front-words").textContent = [`${rows.length} of ${everyRow().filter(inPanel).length} trials pass.`, rows.length > drawable.length ? `${rows.length - drawable.length} have no result to draw.` : "",
    low.length ? `${low.length} lie below the window; "whole range" shows them.` : ""].filter(Boolean).join(" ");
}
