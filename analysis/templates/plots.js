// How every figure looks: colours from the style sheet, so that they follow light, dark and print.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const anyColour = (index) => colour(`c${index % data.numColours}`);
// From the thirteenth on colours meet other markers than before.
const anySymbol = (index) => data.symbols[(index + Math.floor(index / data.symbols.length)) % data.symbols.length];
// A series looks as in the figures beside the page: by its place among those of its network and data set.
const order = (index) => (chosen.panel === ALL ? index : index - data.series.findIndex((one) => one.panel === data.series[index].panel));
const seriesColour = (index) => anyColour(order(index));
const symbol = (index) => anySymbol(order(index));
const dash = (index) => data.dashes[order(index) % data.dashes.length];
let onPaper = false;
// A page that is printed is laid out for A4 or Letter without a resize event, so figures get a width of their own.
const printing = () => onPaper || matchMedia("print").matches;
const narrow = () => !printing() && window.innerWidth < 736;

function faded(hex, share) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  return `rgba(${red},${green},${blue},${share})`;
}

// A colour of the scale from low (0) to high (1), for lines and areas.
function ramp(share) {
  const stops = ["ramp0", "ramp1", "ramp2"].map(colour), part = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const low = Math.min(Math.floor(part), stops.length - 2);
  const mixed = [1, 3, 5].map((place) => {
    const [from, to] = [stops[low], stops[low + 1]].map((each) => parseInt(each.slice(place, place + 2), 16));
    return Math.round(from + (to - from) * (part - low));
  });
  return `#${mixed.map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}
const scale = () => [0, 0.5, 1].map((share) => [share, ramp(share)]);

function axis(title, more = {}) {
  return { title: { text: title, standoff: 8, font: { size: 13 } }, gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false,
    tickfont: { color: colour("quiet"), size: 12 }, automargin: true, ...more };
}

const percent = { tickformat: ".2~%", hoverformat: ".2%" };

// A log axis from `low` to `high` with numbers people read.
function logAxis(title, [low, high], isPercent = false, base = 10) {
  const ticks = logTicks(low, high, base);
  const text = (tick) => (isPercent ? `${Number((100 * tick).toPrecision(3))} %` : tick >= 1e6 ? `${tick / 1e6}M` : tick >= 1e4 ? `${tick / 1e3}k` : String(tick));
  return axis(title, { type: "log", range: [Math.log10(low), Math.log10(high)], tickvals: ticks, ticktext: ticks.map(text) });
}

// The window of a log axis that shows all positive numbers.
function wide(numbers) {
  const [low, high] = extent(numbers.filter((number) => number > 0));
  const margin = Math.max(Math.log10(high / low), 0.3) * 0.06;
  return [low / 10 ** margin, high * 10 ** margin];
}

// Powers of two for counts of values, which are bits; else round numbers.
function logTicks(low, high, base) {
  const limit = narrow() ? 6 : 9;
  const powers = (of, steps) => {
    const ticks = [];
    for (let power = Math.floor(Math.log(low) / Math.log(of)); of ** power <= high; power++) {
      for (const step of steps) {
        const tick = Number((step * of ** power).toPrecision(6));
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  };
  const choices = [powers(10, [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]), powers(10, [1, 1.5, 2, 3, 5, 7]), powers(10, [1, 2, 5]), powers(10, [1, 3]), powers(10, [1]), powers(1000, [1])];
  const twos = base === 2 ? [powers(2, [1]), powers(4, [1])].filter((ticks) => ticks.length >= 3) : [];
  const found = [...twos, ...choices].find((ticks) => ticks.length <= limit) ?? [];
  return found.length > 2 ? found : evenTicks(low, high);
}

// Ticks of a window so narrow that hardly a round number is in it.
function evenTicks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 2)), step = [1, 2, 5, 10].map((each) => each * power).find((each) => (high - low) / each <= 6);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, place) => Number(((first + place) * step).toPrecision(4)));
}

// Draws into a figure; `heading` goes into the text above it, where it can wrap.
function draw(id, traces, { heading, ...layout }) {
  if (heading !== undefined) $(id).previousElementSibling.textContent = heading;
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 55, r: 15, t: 30, b: 45 },
    font: { family: "system-ui, DejaVu Sans, sans-serif", size: 13, color: colour("ink") },
    hoverlabel: { align: "left", bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink"), size: 12 } },
    legend: { orientation: "h", yref: "container", yanchor: "bottom", y: 0, x: 0, xanchor: "left", font: { size: narrow() ? 10.5 : 12 }, ...(narrow() ? { entrywidthmode: "pixels", entrywidth: 88 } : {}) },
    hovermode: "closest", dragmode: narrow() ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("ink") },
  };
  const config = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover", modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: id.replace("-plot", "") } };
  const sheet = printing() ? { width: $(id).closest(".pair") ? 325 : 670, height: layout.height ?? ($(id).classList.contains("tall") ? 416 : 336) } : {};
  const whole = { ...base, ...layout, ...sheet };
  Plotly.react($(id), traces, whole, config);
  if (layout.xaxis?.automargin === false) makeRoom(id, traces, whole, config);
  if (CLICKABLE.includes(id) && !$(id).dataset.heard) onClick(id);
}

// Where no margin grows by itself: the legend makes the figure higher, not its axes lower, and hides no ticks.
function makeRoom(id, traces, layout, config) {
  const legend = Math.ceil($(id)._fullLayout.legend?._height ?? 0);
  $(id).style.setProperty("--legend", `${legend}px`);
  const height = layout.height ? { height: layout.height + legend } : {};
  Plotly.react($(id), traces, { ...layout, ...height, margin: { ...layout.margin, b: layout.margin.b + legend } }, config);
}

// A figure that has nothing to show says so.
function say(id, heading, text) {
  return draw(id, [], { heading, xaxis: { visible: false }, yaxis: { visible: false }, annotations: [sentence(text)] });
}

const sentence = (text) => ({ text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: colour("quiet") } });

const CLICKABLE = ["front-plot", "slices-plot", "contour-plot", "curves-plot", "timeline-plot"];

function onClick(id) {
  $(id).dataset.heard = "yes";
  $(id).on("plotly_click", (event) => {
    const row = event.points[0]?.customdata;
    if (Number.isInteger(row)) openTrial(row, event.event?.shiftKey);
  });
}

// Figures far below are drawn when they come near the screen.
const waiting = new Map();
let watcher;

function lazily(id, drawing) {
  if (onPaper || $(id).closest("section").dataset.near) return drawing();
  waiting.set(id, drawing);
  return undefined;
}

function watch() {
  watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) reveal(entry.target);
  }, { rootMargin: "500px" });
  for (const section of document.querySelectorAll("section.lazy")) watcher.observe(section);
}

function reveal(section) {
  section.dataset.near = "yes";
  watcher.unobserve(section);
  for (const [id, drawing] of waiting) {
    if (!section.contains($(id))) continue;
    waiting.delete(id);
    drawing();
  }
}
