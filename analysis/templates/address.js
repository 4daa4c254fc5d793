// What the reader has chosen stands in the address behind #, so that a link shows the same view.

const SELECTS = { cost: "cost", curve: "curve", series: "fields-series", metric: "slice-metric", left: "contour-x", right: "contour-y", slots: "timeline-study" };
const pathOf = (row) => `${series(row).study}/${data.trials.id[row]}`;
const rowOf = (path) => everyRow().find((row) => pathOf(row) === path) ?? null;

function writeAddress() {
  const hidden = STATES.filter((state) => !chosen.states.has(state));
  const entries = {
    net: data.panels.length > 1 ? chosen.panel : "", x: chosen.x === defaults.x ? "" : chosen.x, y: chosen.y === defaults.y ? "" : chosen.y,
    filter: chosen.text, hide: hidden.join(" "), whole: chosen.whole ? "1" : "", attainment: chosen.attainment ? "1" : "",
    trial: chosen.row === null ? "" : pathOf(chosen.row), with: chosen.other === null ? "" : pathOf(chosen.other),
    brush: [...chosen.brushes].map(([name, ends]) => [name, ...ends.map((end) => end.toFixed(3))].join(":")).join(" "),
  };
  for (const [name, id] of Object.entries(SELECTS)) entries[name] = $(id).selectedIndex > 0 && $(id).dataset.touched ? $(id).value : "";
  const text = new URLSearchParams(Object.entries(entries).filter(([, each]) => each)).toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// What the address says; what it names and this report does not have is left at its default.
function readAddress() {
  const found = new URLSearchParams(location.hash.slice(1)), get = (name) => found.get(name) ?? "";
  const one = (name, known, otherwise) => (known.includes(get(name)) ? get(name) : otherwise);
  chosen.panel = one("net", [...$("panel").options].map((each) => each.value), $("panel").options[0].value);
  chosen.x = one("x", [...axes.keys()], defaults.x);
  chosen.y = one("y", [...axes.keys()], chosen.panel === ALL ? `${defaults.y}_loss` : defaults.y);
  chosen.text = get("filter");
  chosen.states = new Set(STATES.filter((state) => !get("hide").split(" ").includes(state)));
  chosen.whole = get("whole") === "1";
  chosen.attainment = get("attainment") === "1";
  chosen.brushes = new Map(get("brush").split(" ").map((each) => each.split(":")).filter((each) => each.length === 3 && value(each[0], 0) !== undefined)
    .map(([name, low, high]) => [name, [Number(low), Number(high)]]));
  [chosen.row, chosen.other] = [rowOf(get("trial")), rowOf(get("with"))];
  for (const [name, id] of Object.entries(SELECTS)) {
    if (![...$(id).options].some((each) => each.value === get(name)) || !get(name)) continue;
    $(id).value = get(name);
    $(id).dataset.touched = "yes";
  }
  Object.assign($("panel"), { value: chosen.panel });
  Object.assign($("x"), { value: chosen.x });
  Object.assign($("y"), { value: chosen.y });
  Object.assign($("filter"), { value: chosen.text });
  for (const box of document.querySelectorAll("[name=state]")) box.checked = chosen.states.has(box.value);
  $("whole").checked = chosen.whole;
  $("attainment").checked = chosen.attainment;
}
