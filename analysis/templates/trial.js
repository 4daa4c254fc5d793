// One trial: how its rounds went, which values it shares, how to run it again.

const OTHERS = { float_val_top1: "float network, validation top-1", float_test_top1: "float network, test top-1", rounds_done: "rounds done" };

function openTrial(row) {
  chosen.row = row;
  const one = series(row), trials = data.trials;
  $("trial-empty").hidden = true;
  $("trial-panel").hidden = false;
  $("trial-title").textContent = `Trial ${trials.id[row]} of ${one.label}: ${one.panel}`;
  const seeds = one.replicated.find((each) => each.trials.includes(row));
  $("trial-words").textContent = [`State: ${trials.state[row]}.`, trials.failure[row] ? `Failure: ${trials.failure[row]}.` : "", trials.seed[row] ? `Seed ${trials.seed[row]}.` : "",
    seeds ? `Other seeds of the same configuration: ${seeds.trials.filter((each) => each !== row).map((each) => trials.id[each]).join(", ")}.` : ""].filter(Boolean).join(" ");
  $("trial-command").textContent = data.commands[one.study] + trials.id[row];
  fill("trial-metrics", Object.keys(trials.metrics).filter((name) => value(name, row) !== null && name !== "number").map((name) => [OTHERS[name] ?? data.metrics[name].label, show(data.metrics[name] ? name : name.includes("top1") ? data.quality : name, value(name, row))]));
  const varied = one.fields.filter((name) => value(name, row) !== null).map((name) => [name, show(name, value(name, row))]);
  fill("trial-fields", varied.length ? varied : [["nothing", ""]]);
  fill("trial-constants", Object.entries(one.constants));
  drawTrial();
  drawFront();
  markSelected();
  $("trial-title").focus({ preventScroll: true });
  $("trial").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function fill(id, pairs) {
  $(id).tBodies[0].replaceChildren(...pairs.map(([name, text]) => {
    const line = document.createElement("tr");
    line.append(...[name, text].map((words) => Object.assign(document.createElement("td"), { textContent: words })));
    return line;
  }));
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
  const rounds = part("rounds", chosen.row), at = rounds.round.map((round) => round + 1);
  drawRounds(rounds, at);
  drawCodebook(part("values", chosen.row));
  drawSigma(rounds, at);
  drawLayers(data.layers[chosen.row]);
}

function drawRounds(rounds, at) {
  if (!at.length) return say("rounds-plot", "Round by round", absent("rounds", chosen.row));
  const line = (name, y, more) => ({ type: "scatter", mode: "lines+markers", name, x: at, y, ...more });
  return draw("rounds-plot", [
    line("before fixing", rounds.val_top1_before, { marker: { symbol: "circle-open", size: 8 }, line: { color: colour("c0"), dash: "dot", width: 1.5 } }),
    line("after fixing", rounds.val_top1, { marker: { symbol: "circle", size: 7 }, line: { color: colour("c0"), width: 2 } }),
    line("values (right)", rounds.unique_values, { yaxis: "y2", marker: { symbol: "square", size: 6 }, line: { color: colour("c1"), dash: "dash", width: 1.5, shape: "hv" } }),
  ], { heading: "Validation accuracy and values, round by round", xaxis: axis("round", { dtick: Math.ceil(at.length / 12) }), yaxis: axis("", percent),
    yaxis2: axis("", { overlaying: "y", side: "right", tickmode: "auto", nticks: 6, showgrid: false, rangemode: "tozero" }), margin: { l: 55, r: 45, t: 26, b: 45 } });
}

function drawCodebook(values) {
  if (!values.value.length) return say("codebook-plot", "Codebook", absent("values", chosen.row));
  const orders = [...new Set(values.order)].sort((one, other) => one - other);
  const span = Math.max(...values.value) - Math.min(...values.value) || 1;
  const traces = orders.map((order, index) => {
    const chosenValues = values.value.map((_, at) => at).filter((at) => values.order[at] === order);
    const stems = chosenValues.flatMap((at) => [[values.value[at], 0.8], [values.value[at], values.count[at]], [null, null]]);
    const ink = seriesColour(index);
    const share = chosenValues.reduce((sum, at) => sum + values.count[at], 0) / values.count.reduce((sum, count) => sum + count, 0);
    const name = order === 0 ? `zero (${(100 * share).toFixed(0)} %)` : `order ${order} (${(100 * share).toFixed(0)} %)`;
    return [{ type: "scatter", mode: "lines", x: stems.map(([x]) => x), y: stems.map(([, y]) => y), line: { color: faded(ink, 0.55), width: 1.2 }, hoverinfo: "skip", showlegend: false, legendgroup: name },
      { type: "scatter", mode: "markers", name, legendgroup: name, x: chosenValues.map((at) => values.value[at]), y: chosenValues.map((at) => values.count[at]), hovertemplate: "value %{x}<br>%{y} weights<extra>" + name + "</extra>",
        marker: { size: 6, symbol: symbol(index), color: ink } }];
  }).flat();
  const top = Math.log10(Math.max(...values.count));
  return draw("codebook-plot", traces, { heading: `Codebook: ${values.value.length} values, weights of each (log scale)`, xaxis: axis("value", { range: [Math.min(...values.value) - span * 0.05, Math.max(...values.value) + span * 0.05] }),
    yaxis: axis("", { type: "log", range: [-0.1, top + 0.25], dtick: 1 }), margin: { l: 55, r: 15, t: 26, b: 45 } });
}

function drawSigma(rounds, at) {
  const known = [5, 25, 50, 75, 95].map((level) => rounds[`sigma_q${String(level).padStart(2, "0")}`].map((number) => (number > 0 ? number : null)));
  if (!at.length || !known[2].some((number) => number > 0)) return say("sigma-plot", "Sigma of the free weights", at.length ? "this method has no sigmas" : absent("rounds", chosen.row));
  const names = ["5 %", "25 %", "median", "75 %", "95 %"], dashes = ["dot", "dash", "solid", "dash", "dot"];
  const ends = ["triangle-down-open", "diamond-open", "circle", "diamond", "triangle-up"];
  const traces = known.map((y, index) => ({ type: "scatter", mode: "lines+markers", name: names[index], x: at, y, marker: { symbol: ends[index], size: 6 }, line: { color: colour("c2"), width: index === 2 ? 2.2 : 1.2, dash: dashes[index] } }));
  const all = known.flat().filter((number) => number > 0);
  return draw("sigma-plot", traces, { heading: "Sigma of the free weights: quantiles (log scale)", xaxis: axis("round", { dtick: Math.ceil(at.length / 12) }), yaxis: logAxis("", all), margin: { l: 60, r: 15, t: 26, b: 45 } });
}

function drawLayers(layers) {
  if (!layers?.length) return say("layers-plot", "Entropy of each layer", "shown for members of the front whose network is kept");
  const names = layers.map(([name]) => (name.length > 24 ? `\u2026${name.slice(-23)}` : name));
  const many = layers.length > 16;
  return draw("layers-plot", [{ type: "bar", orientation: "h", y: layers.map((_, at) => at), x: layers.map(([, , bits]) => bits), customdata: layers.map(([name, num]) => `${name}<br>${num} weights`), marker: { color: colour("c0") },
    text: many ? undefined : layers.map(([, , bits]) => bits.toFixed(2)), textposition: "auto", textangle: 0, hovertemplate: "%{customdata}<br>%{x:.3f} bits per weight<extra></extra>" }],
  { heading: "Entropy of each layer", xaxis: axis("bits per weight", { rangemode: "tozero" }), yaxis: axis(many ? "layer" : "", { autorange: "reversed", ...(many ? {} : { tickvals: layers.map((_, at) => at), ticktext: names }) }), margin: { l: 55, r: 15, t: 26, b: 45 } });
}
