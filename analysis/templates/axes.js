// The axes of the first figure: every metric that some point has, accuracies also as errors and as differences to the
// float network. Each axis has a window of its own.

// Ranges of accuracy, below the best, that an axis may show; the smallest is taken that shows enough.
const WINDOWS = [0.02, 0.05, 0.1, 0.2, 0.4, 1];
const SHOWN_FRONT = 0.75, SHOWN_POINTS = 0.35;
let axes = new Map();

function makeAxes() {
  for (const name of data.offered) {
    const known = data.metrics[name];
    axes.set(name, { id: name, of: name, kind: "value", label: known.label, log: known.log, percent: known.percent });
    if (known.accuracy) axes.set(`${name}_error`, { id: `${name}_error`, of: name, kind: "error", label: known.label.replace(" top-", " error, top-"), log: true, percent: true });
    if (known.float) axes.set(`${name}_loss`, { id: `${name}_loss`, of: name, kind: "loss", label: `${known.label} minus float`, log: false, percent: true });
  }
}

const axisTitle = (one) => one.label + (one.log ? " (log scale)" : "");

// The number of a row on an axis, null if there is none; rounded, so that 1 - 0.9 is 0.1.
function at(one, row) {
  const found = value(one.of, row);
  if (found === null || one.kind === "value") return found;
  if (one.kind === "error") return Number((1 - found).toFixed(9));
  const float = value(data.metrics[one.of].float, row);
  return float === null ? null : Number((found - float).toFixed(9));
}

const showOn = (one, number) => (one.kind === "loss" ? `${number > 0 ? "+" : ""}${(100 * number).toFixed(2)} points` : show(one.of, number));

// Lowest and highest number that the axis shows; what has no place on it is drawn at its edge.
function windowOf(one, numbers, members, marks) {
  const usable = (all) => (one.log ? all.filter((each) => each > 0) : all);
  const shown = usable(numbers), also = usable(marks);
  if (!shown.length) return one.log ? [0.5, 2] : [0, 1];
  let [low, high] = extent([...shown, ...also]);
  if (!chosen.whole && !one.log && data.metrics[one.of].accuracy) {
    const enough = (bottom) => share(members, bottom) >= SHOWN_FRONT && share(shown, bottom) >= SHOWN_POINTS;
    low = Math.max(low, high - (WINDOWS.find((each) => enough(high - each - 1e-9)) ?? Infinity));
  }
  if (one.log) {
    const margin = Math.max(Math.log(high / low) * 0.06, 0.12);
    return [low / Math.exp(margin), high * Math.exp(margin)];
  }
  const margin = 0.06 * (high - low) || Math.abs(high) * 0.05 || 0.01;
  return [low - margin, high + margin];
}

const share = (numbers, bottom) => (numbers.length ? numbers.filter((each) => each >= bottom).length / numbers.length : 1);

// Where a number is drawn: itself, or the edge beyond which it lies, with the direction.
function held(one, number, [low, high]) {
  const scaled = (each) => (one.log ? Math.log(each) : each), back = (each) => (one.log ? Math.exp(each) : each);
  const inner = (from, to) => back(scaled(from) + 0.02 * (scaled(to) - scaled(from)));
  if (number < low || (one.log && number <= 0)) return [inner(low, high), -1];
  return number > high ? [inner(high, low), 1] : [number, 0];
}

function plotlyAxis(one, window, title) {
  if (one.log) return logAxis(title, window, one.percent, data.metrics[one.of].unit === "values" ? 2 : 10);
  return axis(title, { range: window, ...(one.percent ? percent : {}) });
}
