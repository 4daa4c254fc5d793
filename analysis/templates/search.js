// What the search found over time, and what ran where and when.

function drawVolume() {
  const cost = $("cost").value;
  const shown = data.series.map((one, index) => [one, index]).filter(([one]) => chosen.panel === ALL || one.panel === chosen.panel);
  const traces = shown.map(([one, index]) => ({ type: "scatter", mode: "lines+markers", name: nameOf(one), x: one.progress[cost], y: one.progress.share, line: { shape: "hv", color: seriesColour(index), width: 2, dash: dash(index) },
    marker: { symbol: symbol(index), size: 7, color: seriesColour(index) }, hovertemplate: "%{x}: %{y:.4f}<extra>%{fullData.name}</extra>" })).filter((trace) => trace.x.length);
  if (!traces.length) return say("volume-plot", undefined, "no trial has ended yet");
  const few = traces.every((trace) => trace.x.length < 2), steps = cost === "num_trials" && Math.max(...traces.flatMap((trace) => trace.x)) < 10;
  return draw("volume-plot", traces, { xaxis: axis($("cost").selectedOptions[0].textContent, { rangemode: "tozero", ...(steps ? { dtick: 1 } : {}) }), yaxis: axis("hypervolume, at most 1", few ? { range: [0, 1] } : {}),
    showlegend: traces.length > 1, margin: { l: 60, r: 15, t: 12, b: 50 } });
}

const BARS = { complete: ["c0", ""], infeasible: ["c4", "."], pruned: ["c1", "/"], failed: ["c10", "x"] };

function fillTimeline() {
  const names = [...new Set(data.series.map((one) => one.study))];
  $("timeline-study").replaceChildren(...names.map((name) => new Option(name)));
  $("timeline-study").parentElement.hidden = names.length < 2;
}

// Trials as bars from start to end, in as few lines for each machine as run at once: its slots.
function drawTimeline() {
  const study = $("timeline-study").value, trials = data.trials;
  const rows = everyRow().filter((row) => series(row).study === study && !isStage(row) && trials.started[row] !== null && trials.finished[row] !== null)
    .sort((one, other) => trials.host[one] - trials.host[other] || trials.started[one] - trials.started[other]);
  if (!rows.length) return say("timeline-plot", undefined, "no trial has recorded when it ran");
  const begun = Math.min(...rows.map((row) => trials.started[row]));
  const whole = Math.max(...rows.map((row) => trials.finished[row])) - begun;
  const [unit, size] = whole > 7200 ? ["hours", 3600] : whole > 240 ? ["minutes", 60] : ["seconds", 1];
  const slots = [], lineOf = new Map();
  for (const row of rows) {
    let line = slots.findIndex((slot) => slot.host === trials.host[row] && slot.until <= trials.started[row]);
    if (line < 0) line = slots.push({ host: trials.host[row], until: 0 }) - 1;
    slots[line].until = trials.finished[row];
    lineOf.set(row, line);
  }
  const lost = (row) => value("lost_seconds", row) || 0;
  const traces = STATES.map((state) => {
    const those = rows.filter((row) => trials.state[row] === state), [ink, pattern] = BARS[state];
    return { type: "bar", orientation: "h", name: state, y: those.map((row) => lineOf.get(row)), base: those.map((row) => (trials.started[row] - begun) / size), x: those.map((row) => Math.max((trials.finished[row] - trials.started[row]) / size, whole / size / 2000)),
      customdata: those, text: those.map((row) => (value("retries", row) ? `\u21bb${value("retries", row)}` : "")), textposition: "inside", insidetextanchor: "start", textangle: 0, constraintext: "none",
      hovertext: those.map((row) => [`<b>${escaped(trials.id[row])}</b> (${state}) on ${escaped(trials.hosts[trials.host[row]])}`, escaped((trials.failure[row] ?? "").slice(0, 90)), `${show("wall_seconds", trials.finished[row] - trials.started[row])} from start to end`,
        value("retries", row) ? `started again ${value("retries", row)} times, ${show("wall_seconds", lost(row))} lost` : "",
        ...data.machineFailures.filter((each) => each.study === study && each.trial === trials.id[row]).map((each) => escaped(`lost on ${each.place}: ${each.kind}`))].filter(Boolean).join("<br>")),
      hovertemplate: "%{hovertext}<extra></extra>", marker: { color: colour(ink), line: { color: colour("paper"), width: rows.length > 600 ? 0 : 1 }, pattern: rows.length > 600 ? {} : { shape: pattern, fgcolor: colour("paper"), size: 6 } } };
  }).filter((trace) => trace.customdata.length);
  const first = slots.map((slot, line) => (line === 0 || slots[line - 1].host !== slot.host ? line : null)).filter((line) => line !== null);
  const height = Math.min(900, 150 + slots.length * 26);
  $("timeline-plot").style.height = `${height}px`;
  const retried = rows.filter((row) => value("retries", row)).length, hours = rows.reduce((sum, row) => sum + lost(row), 0);
  $("timeline-words").textContent = `${rows.length} trials in at most ${slots.length} ${slots.length === 1 ? "slot" : "slots"} at once, from ${trials.startedAt[study] ?? "a time not recorded"} UTC. ${retried ? `${retried} started again (\u21bb); ${show("wall_seconds", hours)} of work were lost.` : "None started again."}`;
  return draw("timeline-plot", traces, { barmode: "overlay", bargap: 0.15, height, xaxis: axis(`${unit} since the first start`, { rangemode: "tozero" }),
    yaxis: axis("", { autorange: "reversed", tickvals: first, ticktext: first.map((line) => clip(trials.hosts[slots[line].host], 18)), showgrid: false }), margin: { l: 60, r: 15, t: 8, b: 50 } });
}
