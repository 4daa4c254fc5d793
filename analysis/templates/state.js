// The numbers of the page, what the reader has chosen, and which points pass.
// A point is a network with its numbers: one row. A trial leaves one, or one for each stage of its training.

const $ = (id) => document.getElementById(id);
const MISSING = "\u2013";
const STATES = ["complete", "infeasible", "pruned", "failed"];
const ALL = "all, as the difference to float";
let data;
const chosen = {
  panel: "", x: "", y: "", states: new Set(STATES), text: "", brushes: new Map(), attainment: false, whole: false,
  row: null, other: null,
};

async function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const series = (row) => data.series[data.trials.series[row]];
const value = (name, row) => data.trials.metrics[name]?.[row] ?? data.trials.fields[name]?.[row] ?? null;
const short = (field) => field.slice(field.indexOf(".") + 1);
const inPanel = (row) => chosen.panel === ALL || series(row).panel === chosen.panel;
const everyRow = () => data.trials.id.map((_, row) => row);
const isStage = (row) => /-s\d+$/.test(data.trials.id[row]);
const run = (row) => data.trials.id[row].replace(/-s\d+$/, "");
// In one figure of several networks, short names may be those of several studies.
const nameOf = (one) => (chosen.panel === ALL ? one.label : one.short);
const extent = (numbers) => numbers.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);

function show(name, number) {
  if (number === null || number === undefined) return MISSING;
  if (typeof number === "string") return number;
  switch (data.metrics[name]?.unit) {
    case "fraction": return `${(100 * number).toFixed(2)} %`;
    case "bytes": return number < 1e6 ? `${(number / 1000).toFixed(1)} kB` : `${(number / 1e6).toFixed(2)} MB`;
    case "ratio": return `${number.toFixed(1)}\u00d7`;
    case "values": case "powers of two": return String(Math.round(number));
    case "bits per weight": case "mean powers of two": return number.toFixed(3);
    case "seconds": case "GPU seconds": return `${number.toFixed(1)} s`;
    default: return Number.isInteger(number) ? String(number) : String(Number(number.toPrecision(4)));
  }
}

function words(row) {
  const one = series(row);
  return [data.trials.id[row], data.trials.state[row], one.label, one.method, one.study, one.panel, data.trials.failure[row] ?? ""]
    .join(" ").toLowerCase();
}

// Rows of the chosen panel that pass states, filter and brushes.
function passing() {
  const tests = readFilter(chosen.text).map((each) => each.test).filter(Boolean);
  return everyRow().filter((row) => inPanel(row) && chosen.states.has(data.trials.state[row])
    && tests.every((test) => test(row)) && brushed(row));
}

function brushed(row) {
  for (const [name, [low, high]] of chosen.brushes) {
    const at = place(name, value(name, row));
    if (at === null || at < low || at > high) return false;
  }
  return true;
}

// `12 points of 10 trials`, or `12 trials` where each trial has one point.
function counted(rows) {
  const trials = new Set(rows.map((row) => `${series(row).study}/${run(row)}`)).size;
  const noun = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  return trials === rows.length ? noun(trials, "trial") : `${noun(rows.length, "point")} of ${noun(trials, "trial")}`;
}
