// Parallel coordinates on a canvas: thousands of lines, brushes that filter the whole page.

const ROOM = { top: 58, bottom: 22, side: 62 };
let shownAxes = [];

// Where a value lies on its axis, from 0 at the bottom to 1 at the top; null if it is absent.
function place(name, found) {
  const known = scaleOf(name);
  if (found === null || found === undefined) return null;
  if (known.words) return known.words.length > 1 ? known.words.indexOf(String(found)) / (known.words.length - 1) : 0.5;
  const at = known.log ? Math.log(found) : found;
  return known.high > known.low ? (at - known.low) / (known.high - known.low) : 0.5;
}

const scales = new Map();

function scaleOf(name) {
  if (!scales.has(name)) {
    const found = everyRow().map((row) => value(name, row)).filter((each) => each !== null);
    if (found.some((each) => typeof each === "string")) scales.set(name, { words: [...new Set(found.map(String))].sort() });
    else {
      const log = isWide(found) || (data.metrics[name]?.log && found.every((each) => each > 0));
      const places = log ? found.map(Math.log) : found;
      scales.set(name, { log, low: places.reduce((one, other) => Math.min(one, other), Infinity), high: places.reduce((one, other) => Math.max(one, other), -Infinity) });
    }
  }
  return scales.get(name);
}

function drawParallel() {
  const index = Number($("fields-series").value), one = data.series[index];
  shownAxes = [...one.fields.slice(0, 14), ...new Set([data.axes[0], data.quality, $("slice-metric").value])];
  const rows = everyRow().filter((row) => data.trials.series[row] === index);
  const canvas = $("parallel-canvas"), ratio = window.devicePixelRatio || 1;
  const width = printing() ? 670 : Math.max($("parallel").parentElement.clientWidth, shownAxes.length * 112), height = 380;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const shown = new Set(passing()), members = new Set(one.fronts[data.axes[0]]), metric = $("slice-metric").value;
  const layers = [rows.filter((row) => !shown.has(row)), rows.filter((row) => shown.has(row) && !members.has(row)), rows.filter((row) => shown.has(row) && members.has(row))];
  const dense = Math.max(0.12, Math.min(0.7, 8 / Math.sqrt(rows.length + 1)));
  const hue = hues(metric, rows);
  const inkOfRow = (row, opacity) => (value(metric, row) === null ? faded(colour("quiet"), 0.2) : faded(ramp(hue.share(value(metric, row))), opacity));
  const looks = [() => [faded(colour("quiet"), 0.08), 1], (row) => [inkOfRow(row, dense), 1.2], (row) => [inkOfRow(row, 1), 3]];
  layers.forEach((each, layer) => each.forEach((row) => polyline(pen, row, width, height, looks[layer](row))));
  shownAxes.forEach((name, order) => drawAxis(pen, name, across(order, width), height));
  drawRamp(metric, hue);
  $("parallel-words").textContent = `${layers[1].length + layers[2].length} of ${counted(rows)} of ${one.label} are kept; thick lines are the front.${example(shownAxes[0], rows)}`;
}

// The scale of colours over the rows of one series; collapsed trials take the lowest, or the others would be one colour.
function hues(metric, rows) {
  const known = data.metrics[metric], found = rows.map((row) => value(metric, row)).filter((each) => each !== null);
  const isLog = known.log && found.every((each) => each > 0), scaled = (each) => (isLog ? Math.log(each) : each);
  if (!found.length) return { share: () => 0.5, low: null };
  const [lowest, high] = extent(found);
  const low = isLog ? lowest : Math.max(lowest, windowOf({ of: metric, log: false }, found, [], [])[0]);
  return { low, high, clipped: low > lowest, share: (each) => (high > low ? (scaled(each) - scaled(low)) / (scaled(high) - scaled(low)) : 1) };
}

// What the colours of the lines mean.
function drawRamp(metric, { low, high, clipped }) {
  $("ramp").hidden = low === null;
  if ($("ramp").hidden) return;
  $("ramp-name").textContent = data.metrics[metric].label;
  [$("ramp-low").textContent, $("ramp-high").textContent] = [(clipped ? "\u2264 " : "") + show(metric, low), show(metric, high)];
}

// A term of the filter that keeps about half of the trials, or those with the middle word.
function example(name, rows) {
  const found = rows.map((row) => value(name, row)).filter((each) => each !== null).sort(compare);
  if (!found.length) return "";
  const middle = found[Math.floor(found.length / 2)];
  return ` The filter does the same by keyboard, e.g. ${short(name)}${typeof middle === "string" ? `=${middle}` : `>=${Number(middle.toPrecision(3))}`}.`;
}

const across = (at, width) => (shownAxes.length > 1 ? ROOM.side + (at * (width - 2 * ROOM.side)) / (shownAxes.length - 1) : width / 2);
const down = (share, height) => height - ROOM.bottom - share * (height - ROOM.top - ROOM.bottom);

function polyline(pen, row, width, height, [style, thickness]) {
  pen.strokeStyle = style;
  pen.lineWidth = thickness;
  pen.beginPath();
  let joined = false;
  shownAxes.forEach((name, at) => {
    const share = place(name, value(name, row));
    if (share === null) { joined = false; return; }
    pen[joined ? "lineTo" : "moveTo"](across(at, width), down(share, height));
    joined = true;
  });
  pen.stroke();
}

function drawAxis(pen, name, x, height) {
  const known = scaleOf(name);
  pen.strokeStyle = colour("quiet");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x, down(0, height));
  pen.lineTo(x, down(1, height));
  pen.stroke();
  pen.textAlign = "center";
  pen.fillStyle = colour("ink");
  pen.font = `600 ${printing() ? 8 : 12}px system-ui, DejaVu Sans, sans-serif`;
  const lines = wrapped(data.metrics[name] ? name : short(name));
  lines.forEach((line, at) => pen.fillText(line, x, 14 + 14 * at + (lines.length === 1 ? 14 : 0)));
  pen.font = `${printing() ? 8 : 11}px system-ui, DejaVu Sans, sans-serif`;
  if (known.words) known.words.forEach((word, at) => label(pen, clip(word, 16), x, down(known.words.length > 1 ? at / (known.words.length - 1) : 0.5, height) + 4));
  else if (Number.isFinite(known.low)) [[known.high, ROOM.top - 8], [known.low, height - 6]].forEach(([end, y]) => label(pen, show(name, Number((known.log ? Math.exp(end) : end).toPrecision(3))), x, y));
  const brush = chosen.brushes.get(name);
  if (!brush) return;
  pen.fillStyle = faded(colour("accent"), 0.25);
  pen.strokeStyle = colour("accent");
  const [top, bottom] = [down(brush[1], height), down(brush[0], height)];
  pen.fillRect(x - 9, top, 18, bottom - top);
  pen.strokeRect(x - 9, top, 18, bottom - top);
}

// A word over the lines, on a ground of its own.
function label(pen, text, x, y) {
  const width = pen.measureText(text).width;
  pen.fillStyle = faded(colour("paper"), 0.82);
  pen.fillRect(x - width / 2 - 2, y - 11, width + 4, 14);
  pen.fillStyle = colour("ink");
  pen.fillText(text, x, y);
}

function listenToBrushes() {
  const canvas = $("parallel-canvas");
  let held = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const share = (box.height - ROOM.bottom - (event.clientY - box.top)) / (box.height - ROOM.top - ROOM.bottom);
    const near = shownAxes.map((name, index) => [Math.abs(across(index, box.width) - (event.clientX - box.left)), name]).sort((one, other) => one[0] - other[0])[0];
    return { share: Math.max(-0.01, Math.min(1.01, share)), name: near?.[0] < 30 ? near[1] : null };
  };
  canvas.addEventListener("pointerdown", (event) => {
    const { share, name } = at(event);
    if (!name) return;
    held = { name, from: share };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const { share } = at(event);
    chosen.brushes.set(held.name, [Math.min(share, held.from), Math.max(share, held.from)]);
    drawParallel();
  });
  const finish = (event) => {
    if (!held) return;
    if (Math.abs(at(event).share - held.from) < 0.015) chosen.brushes.delete(held.name);
    held = null;
    filtered();
  };
  canvas.addEventListener("pointerup", finish);
  canvas.addEventListener("pointercancel", finish);
}
