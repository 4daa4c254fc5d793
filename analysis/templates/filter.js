// The filter. Terms stand between commas: words, or a comparison of a field or a metric with a number that may have a unit.

const SIGNS = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b, "!=": (a, b) => a !== b };
const SAME = { "==": "=", "\u2264": "<=", "\u2265": ">=", "\u2260": "!=" };
const UNITS = {
  fraction: { "": 1, "%": 0.01 }, bytes: { "": 1, b: 1, byte: 1, bytes: 1, kb: 1e3, mb: 1e6, gb: 1e9 },
  seconds: { "": 1, s: 1, second: 1, seconds: 1, min: 60, minutes: 60, h: 3600, hours: 3600 },
  ratio: { "": 1, x: 1, "\u00d7": 1 }, values: { "": 1, value: 1, values: 1 }, "bits per weight": { "": 1, bit: 1, bits: 1 },
};
UNITS["GPU seconds"] = UNITS.seconds;
const TEXTS = {
  trial: (row) => data.trials.id[row], state: (row) => data.trials.state[row], study: (row) => series(row).study,
  method: (row) => series(row).method, series: (row) => series(row).label, seed: (row) => data.trials.seed[row],
  host: (row) => data.trials.hosts[data.trials.host[row]],
};

// Every term as { text, test } or, where it is not understood, { text, problem }.
const readFilter = (text) => text.split(",").map((each) => each.trim()).filter(Boolean).map(readTerm);

function readTerm(text) {
  const parts = /^(.+?)\s*(<=|>=|==|!=|[<>=\u2264\u2265\u2260])\s*(.*)$/.exec(text);
  try {
    return { text, test: parts ? comparison(parts[1], SAME[parts[2]] ?? parts[2], parts[3].trim()) : word(text) };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { text, problem: error.message };
  }
}

function word(text) {
  const wanted = text.toLowerCase();
  if (everyRow().some((row) => words(row).includes(wanted))) return (row) => words(row).includes(wanted);
  throw new RangeError("no trial has this in its name, state, study, method or failure");
}

function comparison(left, sign, right) {
  const name = named(left);
  if (!right) throw new RangeError(`nothing stands behind ${sign}`);
  const read = TEXTS[name] ?? ((row) => value(name, row));
  const found = [...new Set(everyRow().map(read).filter((each) => each !== null))];
  if (TEXTS[name] || found.some((each) => typeof each === "string")) return ofWords(name, sign, right, read, found.map(String));
  const ends = right.split("..");
  if (ends.length === 2) {
    if (sign !== "=" && sign !== "!=") throw new RangeError(`a range needs = or !=: ${left}=${right}`);
    const [low, high] = ends.map((each) => number(name, each));
    const inside = (each) => each >= low && each <= high;
    return (row) => read(row) !== null && inside(read(row)) === (sign === "=");
  }
  const wanted = number(name, right);
  return (row) => read(row) !== null && SIGNS[sign](read(row), wanted);
}

function ofWords(name, sign, right, read, there) {
  const listed = there.length <= 8 ? there.join(", ") : `${there.slice(0, 8).join(", ")} ...`;
  if (sign !== "=" && sign !== "!=") throw new RangeError(`${name} is a word: only = and != compare it with ${listed}`);
  const wanted = right.toLowerCase();
  if (!there.some((each) => each.toLowerCase() === wanted)) throw new RangeError(`${name} is never ${right}; it is ${listed}`);
  return (row) => read(row) !== null && (String(read(row)).toLowerCase() === wanted) === (sign === "=");
}

// A number with an optional unit, in the unit of the column.
function number(name, text) {
  const parts = /^([-+]?(?:\d[\d_]*)?\.?\d*(?:e[-+]?\d+)?)\s*(\S*)$/i.exec(text.trim());
  const plain = parts && parts[1] !== "" ? Number(parts[1].replaceAll("_", "")) : NaN;
  if (Number.isNaN(plain)) throw new RangeError(`${text} is not a number`);
  const unit = data.metrics[name]?.unit, known = UNITS[unit] ?? { "": 1 }, factor = known[parts[2].toLowerCase()];
  if (factor === undefined) {
    const units = Object.keys(known).filter(Boolean);
    throw new RangeError(`${parts[2]} is not a unit of ${name}${units.length ? `; it has ${units.join(", ")}` : ", which has none"}`);
  }
  if (unit === "fraction" && factor === 1 && plain > 1) throw new RangeError(`${name} is a share from 0 to 1: write ${plain} % or ${plain / 100}`);
  return Number((plain * factor).toPrecision(12));
}

const plain = (text) => text.toLowerCase().replaceAll(/\(.*?\)/g, "").replaceAll(/[\s_-]+/g, " ").trim();

// What a word may name: a metric by its column, its label or its heading in the table; a field whole or by its last part.
function named(text) {
  const wanted = plain(text);
  const names = [];
  for (const [name, known] of Object.entries(data.metrics)) for (const each of [name, known.label, known.heading]) if (each) names.push([plain(each), name]);
  for (const name of Object.keys(data.trials.metrics)) names.push([plain(name), name]);
  for (const name of Object.keys(TEXTS)) names.push([name, name]);
  for (const name of Object.keys(data.trials.fields)) names.push([plain(name), name], [plain(short(name)), name]);
  const found = [...new Set(names.filter(([each]) => each === wanted).map(([, name]) => name))];
  const exact = found.filter((name) => name === text.trim());
  if (exact.length === 1 || found.length === 1) return exact[0] ?? found[0];
  if (found.length) throw new RangeError(`${text} may be ${found.join(" or ")}`);
  const near = [...new Set(names.map(([each, name]) => [distance(each, wanted) / Math.max(each.length, wanted.length), name]).sort((one, other) => one[0] - other[0])
    .filter(([far]) => far < 0.5).map(([, name]) => name))].slice(0, 3);
  throw new RangeError(`no field or metric is called ${text}${near.length ? `; near are ${near.join(", ")}` : ""}`);
}

// Levenshtein's distance: letters to insert, delete or replace.
function distance(one, other) {
  let line = [...other].map((_, index) => index + 1);
  [...one].forEach((letter, index) => {
    let corner = index, left = index + 1;
    line = line.map((above, place) => {
      const found = Math.min(above + 1, left + 1, corner + (letter === other[place] ? 0 : 1));
      corner = above;
      left = found;
      return found;
    });
  });
  return line.at(-1) ?? one.length;
}

function sayFilter() {
  const wrong = readFilter(chosen.text).filter((each) => each.problem);
  $("filter-words").textContent = wrong.map((each) => `Not understood, so left out: \u201c${each.text}\u201d (${each.problem}).`).join(" ");
  $("filter").ariaInvalid = wrong.length ? "true" : "false";
}
