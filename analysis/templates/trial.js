// One trial, or two side by side: how rounds went, which values are shared, which settings differ, how to run it again.

const OTHERS = { float_val_top1: "float network, validation top-1", float_test_top1: "float network, test top-1", rounds_done: "rounds done", num_weights: "compressed weights",
  lost_seconds: "lost seconds", train_seconds: "seconds of training", data_seconds: "seconds waiting for data", retries: "retries" };

function openTrial(row, asOther = false) {
  if (asOther && chosen.row !== null && row !== chosen.row) chosen.other = row;
  else [chosen.row, chosen.other] = [row, chosen.other === row ? null : chosen.other];
  showTrial();
  drawFront();
  writeAddress();
  if (asOther) return;
  $("trial-title").focus({ preventScroll: true });
  $("trial").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

const compared = () => [chosen.row, chosen.other].filter((row) => row !== null);
// In figures a trial goes by its number, where two have the same one with its series.
const labelOf = (row) => {
  const same = compared().some((other) => other !== row && data.trials.id[other] === data.trials.id[row]);
  return same ? `${data.trials.id[row]} of ${nameOf(series(row))}` : data.trials.id[row];
};
const nameInFull = (row) => (compared().every((other) => series(other).study === series(row).study) ? data.trials.id[row] : pathOf(row));

function showTrial() {
  $("trial-empty").hidden = chosen.row !== null;
  $("trial-panel").hidden = chosen.row === null;
  markSelected();
  if (chosen.row === null) return;
  const row = chosen.row, one = series(row), trials = data.trials;
  $("trial-title").textContent = chosen.other === null ? `Trial ${trials.id[row]} of ${one.label}: ${one.panel}` : `Trials ${nameInFull(row)} and ${nameInFull(chosen.other)}`;
  const seeds = one.replicated.find((each) => each.trials.includes(row));
  const stages = everyRow().filter((each) => each !== row && trials.series[each] === trials.series[row] && run(each) === run(row));
  $("trial-words").textContent = [
    `State: ${trials.state[row]}.`, trials.failure[row] ? `Failure: ${trials.failure[row]}.` : "", trials.seed[row] ? `Seed ${trials.seed[row]}.` : "",
    seeds ? `Other seeds of the same configuration: ${seeds.trials.filter((each) => each !== row).map((each) => trials.id[each]).join(", ")}.` : "",
    stages.length ? `Other points of the same training: ${stages.map((each) => `${trials.id[each]} (${show("unique_values", value("unique_values", each))} values)`).join(", ")}.` : "",
  ].filter(Boolean).join(" ");
  $("trial-command").textContent = data.commands[one.study] + run(row);
  $("with").value = chosen.other === null ? "" : nameInFull(chosen.other);
  measuredTable();
  settingsTable();
  drawTrial();
}

function compareWith(text) {
  const wanted = text.trim();
  const found = wanted === "" ? null : rowOf(wanted) ?? rowOf(`${series(chosen.row).study}/${wanted}`);
  $("with-words").textContent = wanted === "" ? "" : found === null ? `No trial ${wanted}.` : found === chosen.row ? "That is this trial." : "";
  chosen.other = found === chosen.row ? null : found;
  showTrial();
  if (found === null) $("with").value = text;
  drawFront();
  writeAddress();
}

function fill(id, lines) {
  const rows = compared(), head = document.createElement("tr");
  if (rows.length > 1) head.append(...["", ...rows.map(labelOf)].map((text) => Object.assign(document.createElement("th"), { textContent: text, scope: "col" })));
  $(id).tHead.replaceChildren(...(rows.length > 1 ? [head] : []));
  $(id).tBodies[0].replaceChildren(...lines.map((texts) => {
    const line = document.createElement("tr"), name = Object.assign(document.createElement("th"), { textContent: texts[0], scope: "row" });
    line.append(name, ...texts.slice(1).map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return line;
  }));
}

function measuredTable() {
  const rows = compared();
  const names = Object.keys(data.trials.metrics).filter((name) => name !== "number" && rows.some((row) => value(name, row) !== null));
  const text = (name, row) => show(data.metrics[name] ? name : name.includes("top1") ? "val_top1" : name.endsWith("_seconds") ? "wall_seconds" : name, value(name, row));
  fill("trial-metrics", names.map((name) => [OTHERS[name] ?? data.metrics[name].label, ...rows.map((row) => text(name, row))]));
}

const setting = (name, row) => value(name, row) ?? series(row).constants[name] ?? null;

function settingsTable() {
  const rows = compared();
  const names = [...new Set(rows.flatMap((row) => [...series(row).fields, ...Object.keys(series(row).constants)]))];
  const isFirst = rows.length > 1 ? (name) => new Set(rows.map((row) => setting(name, row))).size > 1 : (name) => value(name, rows[0]) !== null;
  $("trial-fields").caption.firstElementChild.textContent = rows.length > 1 ? "Settings that differ" : "Varied by the search";
  $("constants-words").textContent = rows.length > 1 ? "Settings that are the same" : "The same for all trials of this series";
  const line = (name) => {
    const found = rows.map((row) => setting(name, row)), texts = found.map((each) => show(name, each));
    return [name, ...(new Set(found).size > new Set(texts).size ? found.map(String) : texts)];
  };
  const first = names.filter(isFirst).map(line);
  fill("trial-fields", first.length ? first : [["nothing", ...rows.map(() => "")]]);
  fill("trial-constants", names.filter((name) => !isFirst(name) && setting(name, rows[0]) !== null).map(line));
}

function part(kind, row) {
  const { start, columns } = data[kind];
  return Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, column.slice(start[row], start[row + 1])]));
}

function absent(kind, row) {
  if (data[kind].omitted.includes(row)) return "left out to keep the page small; its file has them";
  return "not recorded";
}

function drawTrial() {
  if (chosen.row === null) return;
  drawRounds();
  if (chosen.other === null) drawCodebook(part("values", chosen.row));
  else drawCodebooks();
  drawSigma();
  drawLayers();
}

const inkOf = (place) => colour(place ? "c1" : "c0");
const LINES = [["circle", "solid"], ["square", "dash"]];

function drawRounds() {
  const rows = compared(), two = rows.length > 1;
  const all = rows.map((row) => part("rounds", row));
  if (!all.some((rounds) => rounds.round.length)) return say("rounds-plot", "Round by round", absent("rounds", chosen.row));
  const traces = all.flatMap((rounds, place) => {
    const x = rounds.round.map((round) => round + 1), [shape, kind] = LINES[place], of = two ? `${labelOf(rows[place])}, ` : "";
    const line = (name, y, more) => ({ type: "scatter", mode: "lines+markers", name: of + name, x, y, ...more });
    return [
      line("before fixing", rounds.val_top1_before, { marker: { symbol: `${shape}-open`, size: 8, color: inkOf(place) }, line: { color: inkOf(place), dash: "dot", width: 1.2 } }),
      line("after fixing", rounds.val_top1, { marker: { symbol: shape, size: 7, color: inkOf(place) }, line: { color: inkOf(place), width: 2, dash: kind } }),
      line("values (right)", rounds.unique_values, { yaxis: "y2", marker: { symbol: "diamond", size: 5, color: colour(two ? `c${place}` : "c2") }, line: { color: two ? faded(inkOf(place), 0.6) : colour("c2"), dash: "dashdot", width: 1.2, shape: "hv" } }),
    ];
  });
  const stage = all[0].stage, breaks = stage.map((each, index) => index).filter((index) => index && stage[index] !== null && stage[index] !== stage[index - 1]);
  return draw("rounds-plot", traces, { heading: "Validation accuracy and values, round by round", yaxis: axis("", percent),
    xaxis: axis(breaks.length && !two ? "round; lines: where a stage begins" : "round", { dtick: Math.ceil(Math.max(...all.map((rounds) => rounds.round.length)) / 12) }),
    shapes: two ? [] : breaks.map((index) => ({ type: "line", yref: "paper", y0: 0, y1: 1, x0: all[0].round[index] + 0.5, x1: all[0].round[index] + 0.5, line: { color: colour("line"), width: 1 } })),
    yaxis2: axis("", { overlaying: "y", side: "right", tickmode: "auto", nticks: 6, showgrid: false, rangemode: "tozero" }), margin: { l: 55, r: 45, t: 26, b: 45 } });
}

function stems(x, y, bottom, ink, name) {
  const lines = x.flatMap((each, place) => [[each, bottom], [each, y[place]], [null, null]]);
  return { type: "scatter", mode: "lines", x: lines.map(([across]) => across), y: lines.map(([, up]) => up), line: { color: faded(ink, 0.55), width: 1.2 }, hoverinfo: "skip", showlegend: false, legendgroup: name };
}

const around = (numbers) => {
  const [low, high] = extent(numbers), margin = (high - low || 1) * 0.05;
  return [low - margin, high + margin];
};

function drawCodebook(values) {
  if (!values.value.length) return say("codebook-plot", "Codebook", absent("values", chosen.row));
  const orders = [...new Set(values.order)].sort((one, other) => one - other);
  const total = values.count.reduce((sum, count) => sum + count, 0);
  const traces = orders.map((order, index) => {
    const places = values.value.map((_, place) => place).filter((place) => values.order[place] === order);
    const portion = places.reduce((sum, place) => sum + values.count[place], 0) / total;
    const name = order === 0 ? `zero (${(100 * portion).toFixed(0)} %)` : `order ${order} (${(100 * portion).toFixed(0)} %)`;
    const x = places.map((place) => values.value[place]), y = places.map((place) => values.count[place]);
    return [stems(x, y, 0.8, anyColour(index), name),
      { type: "scatter", mode: "markers", name, legendgroup: name, x, y, hovertemplate: `value %{x}<br>%{y} weights<extra>${name}</extra>`, marker: { size: 6, symbol: anySymbol(index), color: anyColour(index) } }];
  }).flat();
  return draw("codebook-plot", traces, { heading: `Codebook: ${values.value.length} values, weights of each (log scale)`, xaxis: axis("value", { range: around(values.value) }),
    yaxis: axis("", { type: "log", range: [-0.1, Math.log10(Math.max(...values.count)) + 0.25], dtick: 1 }), margin: { l: 55, r: 15, t: 26, b: 45 } });
}

// Two codebooks in shares of the weights, since the networks may differ in size.
function drawCodebooks() {
  const rows = compared(), all = rows.map((row) => part("values", row));
  if (!all.some((values) => values.value.length)) return say("codebook-plot", "Codebooks", absent("values", chosen.row));
  const shares = all.map((values) => values.count.map((count) => count / values.count.reduce((sum, each) => sum + each, 0)));
  const lowest = Math.min(...shares.flat()) / 1.5;
  const traces = all.flatMap((values, place) => {
    const name = `${labelOf(rows[place])}: ${values.value.length} values`;
    return [stems(values.value, shares[place], lowest, inkOf(place), name), { type: "scatter", mode: "markers", name, legendgroup: name, x: values.value, y: shares[place],
      hovertemplate: `value %{x}<br>%{y:.3%} of the weights<extra>${name}</extra>`, marker: { size: 7, symbol: place ? "square-open" : "circle", color: inkOf(place) } }];
  });
  return draw("codebook-plot", traces, { heading: "Codebooks: share of the weights at each value (log scale)", xaxis: axis("value", { range: around(all.flatMap((values) => values.value)) }),
    yaxis: logAxis("", [lowest, 1.2], true), margin: { l: 60, r: 15, t: 26, b: 45 } });
}

function drawSigma() {
  const rows = compared();
  const column = (rounds, level) => rounds[`sigma_q${String(level).padStart(2, "0")}`].map((number) => (number > 0 ? number : null));
  const levels = rows.length > 1 ? [50] : [5, 25, 50, 75, 95];
  const names = { 5: "5 %", 25: "25 %", 50: "median", 75: "75 %", 95: "95 %" };
  const ends = { 5: "triangle-down-open", 25: "diamond-open", 50: "circle", 75: "diamond", 95: "triangle-up" };
  const traces = rows.flatMap((row, place) => levels.map((level) => {
    const rounds = part("rounds", row), ink = rows.length > 1 ? inkOf(place) : colour("c2");
    return { type: "scatter", mode: "lines+markers", name: rows.length > 1 ? `${labelOf(row)}, median` : names[level], x: rounds.round.map((round) => round + 1), y: column(rounds, level),
      marker: { symbol: rows.length > 1 ? LINES[place][0] : ends[level], size: 6, color: ink }, line: { color: ink, width: level === 50 ? 2.2 : 1.2, dash: level === 50 ? "solid" : "dot" } };
  }));
  const all = traces.flatMap((trace) => trace.y).filter((number) => number > 0);
  const some = traces.filter((trace) => trace.y.some((number) => number > 0));
  const recorded = rows.some((row) => part("rounds", row).round.length);
  if (!all.length) return say("sigma-plot", "Sigma of the free weights", recorded ? "this method has no sigmas" : absent("rounds", chosen.row));
  return draw("sigma-plot", some, { heading: `Sigma of the free weights: ${rows.length > 1 ? "medians" : "quantiles"} (log scale)`, xaxis: axis("round", { dtick: Math.ceil(some[0].x.length / 12) }), yaxis: logAxis("", wide(all)), margin: { l: 60, r: 15, t: 26, b: 45 } });
}

function drawLayers() {
  const rows = compared().filter((row) => data.layers[row]?.length);
  if (!rows.length) return say("layers-plot", "Entropy of each layer", "shown for members of the front whose network is kept");
  const all = rows.map((row) => data.layers[row]), first = all[0];
  const names = first.map(([name]) => (name.length > 24 ? `\u2026${name.slice(-23)}` : name)), many = first.length > 16;
  const traces = all.map((layers, place) => ({ type: "bar", orientation: "h", name: labelOf(rows[place]), y: layers.map((_, index) => index), x: layers.map(([, , bits]) => bits), customdata: layers.map(([name, num]) => `${name}<br>${num} weights`),
    marker: { color: inkOf(place), pattern: { shape: place ? "/" : "" } }, text: many || rows.length > 1 ? undefined : layers.map(([, , bits]) => bits.toFixed(2)), textposition: "auto", textangle: 0, hovertemplate: "%{customdata}<br>%{x:.3f} bits per weight<extra></extra>" }));
  return draw("layers-plot", traces, { heading: "Entropy of each layer", showlegend: rows.length > 1, xaxis: axis("bits per weight", { rangemode: "tozero" }),
    yaxis: axis(many ? "layer" : "", { autorange: "reversed", ...(many ? {} : { tickvals: first.map((_, index) => index), ticktext: names }) }), margin: { l: 55, r: 15, t: 26, b: 45 } });
}
