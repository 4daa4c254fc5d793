// Starts the page, and redraws what a choice changes.

let defaults;

// After a change of the filter, the states or the brushes.
function filtered() {
  drawFront();
  sayFilter();
  lazily("curves-plot", drawCurves);
  lazily("slices-plot", drawSlices);
  lazily("contour-plot", drawContour);
  lazily("parallel-canvas", drawParallel);
  fillTrials();
  writeAddress();
}

function everything() {
  for (const part of document.querySelectorAll(".part")) part.hidden = chosen.panel !== ALL && part.dataset.panel !== chosen.panel;
  const isQuality = chosen.y === data.quality;
  $("attainment-choice").hidden = !isQuality || !data.series.some((one) => (chosen.panel === ALL || one.panel === chosen.panel) && one.attainment[chosen.x]);
  showTrial();
  lazily("volume-plot", drawVolume);
  lazily("timeline-plot", drawTimeline);
  lazily("importance-plots", drawImportance);
  filtered();
}

function choosePanel(name) {
  chosen.panel = name;
  if (name === ALL) $("y").value = chosen.y = `${axes.get(chosen.y)?.of === "test_top1" ? "test_top1" : data.quality}_loss`;
  $("fields-series").value = data.series.findIndex((one) => name === ALL || one.panel === name);
  fillContour();
  everything();
}

function listen() {
  const touched = (id, action) => $(id).addEventListener("change", () => { $(id).dataset.touched = "yes"; action(); writeAddress(); });
  $("panel").addEventListener("change", () => choosePanel($("panel").value));
  $("x").addEventListener("change", () => { chosen.x = $("x").value; everything(); });
  $("y").addEventListener("change", () => { chosen.y = $("y").value; everything(); });
  for (const box of document.querySelectorAll("[name=state]")) box.addEventListener("change", () => { chosen.states[box.checked ? "add" : "delete"](box.value); filtered(); });
  $("attainment").addEventListener("change", () => { chosen.attainment = $("attainment").checked; filtered(); });
  $("whole").addEventListener("change", () => { chosen.whole = $("whole").checked; filtered(); });
  let pending;
  $("filter").addEventListener("input", () => { clearTimeout(pending); pending = setTimeout(() => { chosen.text = $("filter").value; shownRows = PAGE; filtered(); }, 150); });
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  $("reset").addEventListener("click", reset);
  touched("cost", drawVolume);
  touched("curve", drawCurves);
  touched("timeline-study", drawTimeline);
  touched("fields-series", () => { fillContour(); drawImportance(); drawSlices(); drawContour(); drawParallel(); });
  touched("slice-metric", () => { drawSlices(); drawContour(); drawParallel(); });
  touched("contour-x", drawContour);
  touched("contour-y", drawContour);
  $("with").addEventListener("change", () => compareWith($("with").value));
  $("more").addEventListener("click", () => { shownRows *= 4; fillTrials(); });
  $("selection").addEventListener("click", saveSelection);
  for (const link of document.querySelectorAll("[data-file]")) link.addEventListener("click", (event) => { event.preventDefault(); saveFile(link.dataset.file); });
  document.addEventListener("click", (event) => { const button = event.target.closest(".open"); if (button) openTrial(Number(button.dataset.row), event.shiftKey); });
  $("copy").addEventListener("click", copyCommand);
  for (const query of ["(prefers-color-scheme: dark)", "print", "(max-width: 46rem)"]) matchMedia(query).addEventListener("change", everything);
  window.addEventListener("beforeprint", () => { onPaper = true; everything(); });
  window.addEventListener("afterprint", () => { onPaper = false; everything(); });
  window.addEventListener("resize", () => lazily("parallel-canvas", drawParallel));
  window.addEventListener("hashchange", () => { readAddress(); everything(); });
}

function reset() {
  Object.assign(chosen, { text: "", states: new Set(STATES), whole: false });
  chosen.brushes.clear();
  $("filter").value = "";
  $("whole").checked = false;
  for (const box of document.querySelectorAll("[name=state]")) box.checked = true;
  filtered();
}

function copyCommand() {
  const range = document.createRange();
  range.selectNodeContents($("trial-command"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  $("copy").textContent = document.execCommand("copy") ? "copied" : "press Ctrl-C";
  setTimeout(() => { $("copy").textContent = "copy"; }, 1500);
}

async function start() {
  data = await decode($("data").textContent);
  makeAxes();
  const names = data.panels.map((part) => part.title), isOne = names.length < 2;
  $("panel").replaceChildren(...[...names, ...(!isOne && data.quality === "val_top1" ? [ALL] : [])].map((name) => new Option(name)));
  $("panel-choice").hidden = isOne;
  for (const id of ["x", "y"]) $(id).replaceChildren(...[...axes.values()].map((one) => new Option(one.label + (one.kind === "error" ? " (log)" : ""), one.id)));
  const first = (wanted, otherwise) => (axes.has(wanted) ? wanted : axes.has(otherwise) ? otherwise : axes.keys().next().value);
  // The answer is the accuracy on test images, of points that were chosen on validation.
  const tested = data.quality === "val_top1" && data.series.some((one) => one.fronts[data.axes[0]].some((row) => value("test_top1", row) !== null));
  defaults = { x: first(data.axes[0], "unique_values"), y: first(tested ? "test_top1" : data.quality, data.quality) };
  fillFields();
  fillCurves();
  fillTimeline();
  headTrials();
  $("names").replaceChildren(...everyRow().slice(0, 500).map((row) => new Option("", data.panels.length + several("study") > 1 ? pathOf(row) : data.trials.id[row])));
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  if (!axes.size) emptyAxes();
  readAddress();
  listen();
  watch();
  everything();
  listenToBrushes();
  document.body.dataset.ready = "yes";
}

// Without a single number the figure still has axes to name.
function emptyAxes() {
  for (const name of [data.axes[0], data.quality]) {
    axes.set(name, { id: name, of: name, kind: "value", label: data.metrics[name].label, log: false, percent: false });
    for (const id of ["x", "y"]) $(id).append(new Option(data.metrics[name].label, name));
  }
  defaults = { x: data.axes[0], y: data.quality };
}

start();
