// How every figure looks: colours from the style sheet, so that they follow light, dark and print.

// One symbol more than colours and dashes: 42 series look different, the seventh is not the first again.
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "star", "pentagon", "cross"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const seriesColour = (index) => colour(`c${index % 6}`);
const symbol = (index) => SYMBOLS[index % SYMBOLS.length];
let onPaper = false;
// A page that is printed is laid out for A4 or Letter without a resize event, so figures get a width of their own.
const printing = () => onPaper || matchMedia("print").matches;
const narrow = () => !printing() && window.innerWidth < 736;

function faded(hex, share) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${red},${green},${blue},${share})`;
}

function axis(title, more = {}) {
  return { title: { text: title, standoff: 8, font: { size: 13 } }, gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false,
    tickfont: { color: colour("quiet"), size: 12 }, automargin: true, ...more };
}

const percent = { tickformat: ".2~%", hoverformat: ".2%" };

// A log axis with numbers people read; `values` decide how fine it is.
function logAxis(title, values) {
  const positive = values.filter((number) => number > 0);
  const [low, high] = [Math.min(...positive), Math.max(...positive)];
  const margin = Math.max(Math.log10(high / low), 0.3) * 0.06;
  const range = [Math.log10(low) - margin, Math.log10(high) + margin];
  const ticks = logTicks(10 ** range[0], 10 ** range[1]);
  return axis(title, { type: "log", range, tickvals: ticks, ticktext: ticks.map((tick) => tick >= 1e6 ? `${tick / 1e6}M` : tick >= 1e4 ? `${tick / 1e3}k` : String(tick)) });
}

function logTicks(low, high) {
  const limit = narrow() ? 6 : 12;
  for (const steps of [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const step of steps) {
        const tick = Number((step * 10 ** power).toPrecision(2));
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    if (ticks.length <= limit) return ticks;
  }
  return [];
}

// Draws into a figure; `heading` goes into the text above it, where it can wrap.
function draw(id, traces, { heading, ...layout }) {
  if (heading !== undefined) $(id).previousElementSibling.textContent = heading;
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 55, r: 15, t: 30, b: 45 },
    font: { family: "system-ui, DejaVu Sans, sans-serif", size: 13, color: colour("ink") },
    hoverlabel: { align: "left", bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink"), size: 12 } },
    legend: { orientation: "h", yref: "container", yanchor: "bottom", y: 0, x: 0, xanchor: "left", font: { size: 12 } }, hovermode: "closest", dragmode: narrow() ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("ink") },
  };
  const config = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover", modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  const sheet = printing() ? { width: $(id).closest(".pair") ? 325 : 670, height: layout.height ?? ($(id).classList.contains("tall") ? 416 : 336) } : {};
  return Plotly.react($(id), traces, { ...base, ...layout, ...sheet }, config);
}

// A figure that has nothing to show says so.
function say(id, heading, words) {
  return draw(id, [], { heading, xaxis: { visible: false }, yaxis: { visible: false },
    annotations: [{ text: words, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: colour("quiet") } }] });
}

function onClick(id) {
  $(id).on("plotly_click", (event) => {
    const row = event.points[0]?.customdata;
    if (Number.isInteger(row)) openTrial(row);
  });
}
