// The rounds of all trials in one figure.

const CURVES = { val_top1: ["validation top-1 after fixing", "percent"], val_top1_before: ["validation top-1 before fixing", "percent"], unique_values: ["distinct weight values", "log"],
  entropy_bits: ["entropy (bits per weight)", ""], train_loss: ["training loss", ""], fraction: ["share of the weights that is fixed", "percent"] };

function fillCurves() {
  const there = Object.keys(CURVES).filter((name) => data.rounds.columns[name].some((each) => each !== null));
  $("curve").replaceChildren(...(there.length ? there : ["val_top1"]).map((name) => new Option(CURVES[name][0], name)));
}

function drawCurves() {
  const name = $("curve").value, [label, kind] = CURVES[name];
  const { start, columns } = data.rounds;
  // The stages of one training share its rounds: one line for all of them.
  const seen = new Set();
  const rows = passing().filter((row) => start[row + 1] > start[row] && !seen.has(`${data.trials.series[row]}/${run(row)}`) && seen.add(`${data.trials.series[row]}/${run(row)}`));
  if (!rows.length) return say("curves-plot", undefined, "no trial that passes has recorded rounds");
  const indices = [...new Set(rows.map((row) => data.trials.series[row]))];
  const front = new Set(indices.flatMap((index) => data.series[index].fronts[data.axes[0]].map((row) => `${index}/${run(row)}`)));
  const groups = indices.flatMap((index) => [["other", (row) => !front.has(`${index}/${run(row)}`)], ["front", (row) => front.has(`${index}/${run(row)}`)]]
    .map(([group, test]) => [index, group, rows.filter((row) => data.trials.series[row] === index && test(row))])).filter(([, , each]) => each.length);
  const dense = rows.length > 60 ? 0.3 : 0.6;
  const traces = groups.map(([index, group, each]) => {
    const x = [], y = [], customdata = [], text = [];
    for (const row of each) {
      for (let round = start[row]; round < start[row + 1]; round++) {
        x.push(columns.round[round] + 1);
        y.push(columns[name][round]);
        customdata.push(row);
        text.push(`${data.trials.id[row]} ${escaped(series(row).label)} (${data.trials.state[row]})`);
      }
      for (const list of [x, y, customdata, text]) list.push(null);
    }
    const ink = seriesColour(index), isFront = group === "front", single = each.every((row) => start[row + 1] - start[row] === 1);
    return { type: "scatter", mode: isFront || single ? "lines+markers" : "lines", name: nameOf(data.series[index]), legendgroup: String(index), showlegend: isFront || !front.size || !groups.some(([other, kind]) => other === index && kind === "front"), x, y, customdata, text, connectgaps: false,
      hovertemplate: "%{text}<br>round %{x}: %{y}<extra></extra>", line: { color: isFront ? ink : faded(ink, dense), width: isFront ? 2.4 : 1, dash: dash(index) }, marker: { size: 6, symbol: symbol(index), color: ink } };
  });
  const all = traces.flatMap((trace) => trace.y).filter((each) => each !== null);
  if (!all.length) return say("curves-plot", undefined, `no trial that passes has recorded ${label}`);
  const longest = Math.max(...traces.flatMap((trace) => trace.x.filter(Boolean)));
  const window = kind === "percent" ? windowOf({ of: data.quality, log: false }, all, all, []) : null;
  const below = window ? all.filter((each) => each < window[0]).length : 0;
  $("curves-words").textContent = `One line for each of ${counted(rows)} that pass the filter; thick lines are the front.${below ? ` ${below} of ${all.length} rounds lie below the window; \u201cwhole range\u201d above shows them.` : ""}`;
  return draw("curves-plot", traces, { xaxis: axis("round", { dtick: Math.ceil(longest / 12) }), yaxis: kind === "log" && all.some((each) => each > 0) ? logAxis(`${label} (log scale)`, wide(all), false, 2) : axis(label, window ? { ...percent, range: window } : {}),
    showlegend: indices.length > 1, margin: { l: 60, r: 15, t: 12, b: 50 } });
}
