// The numbers of the page, what the reader has chosen, and which trials pass.

const $ = (id) => document.getElementById(id);
const MISSING = "\u2013";
const STATES = ["complete", "infeasible", "pruned", "failed"];
const ALL = "all, as the difference to float";
let data;
const chosen = { panel: "", x: "", y: "quality", states: new Set(STATES), text: "",
  brushes: new Map(), attainment: false, whole: false, row: null };

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

function show(name, number) {
  if (number === null || number === undefined) return MISSING;
  if (typeof number === "string") return number;
  if (data.metrics[name]?.percent) return `${(100 * number).toFixed(2)} %`;
  if (name === "size_bytes") return number < 1e6 ? `${(number / 1000).toFixed(1)} kB` : `${(number / 1e6).toFixed(2)} MB`;
  if (name === "compression_ratio") return `${number.toFixed(1)}\u00d7`;
  if (/_bits$|_order$/.test(name) && !Number.isInteger(number)) return number.toFixed(3);
  if (name.endsWith("_seconds")) return `${number.toFixed(1)} s`;
  return Number.isInteger(number) ? String(number) : String(Number(number.toPrecision(4)));
}

// One term of the filter: `b>=5` compares a field or a metric, anything else is looked for in the trial's words.
function term(text) {
  const parts = /^\s*([\w.]+)\s*(<=|>=|=|<|>)\s*(\S+)\s*$/.exec(text);
  const name = parts && named(parts[1]);
  if (!name) return (row) => words(row).includes(text.trim().toLowerCase());
  const [, , sign, wanted] = parts;
  const number = Number(wanted.replace("%", "")) / (wanted.endsWith("%") ? 100 : 1);
  return (row) => {
    const found = value(name, row);
    if (found === null) return false;
    if (typeof found === "string" || Number.isNaN(number)) return sign === "=" && String(found).toLowerCase() === wanted.toLowerCase();
    return { "<": found < number, ">": found > number, "<=": found <= number, ">=": found >= number, "=": found === number }[sign];
  };
}

function named(word) {
  const names = [...Object.keys(data.trials.metrics), ...Object.keys(data.trials.fields)];
  return names.find((name) => name === word) ?? names.find((name) => short(name) === word);
}

function words(row) {
  const one = series(row);
  return [data.trials.id[row], data.trials.state[row], one.label, one.method, one.study, one.panel, data.trials.failure[row] ?? ""]
    .join(" ").toLowerCase();
}

// Rows that pass states, filter and brushes; of the chosen panel.
function passing() {
  const terms = chosen.text.split(",").filter((text) => text.trim()).map(term);
  return everyRow().filter((row) => inPanel(row) && chosen.states.has(data.trials.state[row])
    && terms.every((test) => test(row)) && brushed(row));
}

function brushed(row) {
  for (const [name, [low, high]] of chosen.brushes) {
    const at = place(name, value(name, row));
    if (at === null || at < low || at > high) return false;
  }
  return true;
}
