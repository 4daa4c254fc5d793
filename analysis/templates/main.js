// Starts the page, and redraws what a choice changes.

function filtered() {
  drawFront();
  drawSlices();
  drawParallel();
  fillTrials();
}

function everything() {
  for (const part of document.querySelectorAll(".part")) part.hidden = chosen.panel !== ALL && part.dataset.panel !== chosen.panel;
  drawFront();
  drawTrial();
  drawVolume();
  drawImportance();
  drawSlices();
  drawParallel();
  fillTrials();
}

function choosePanel(name) {
  chosen.panel = name;
  if (name === ALL && !chosen.y.endsWith("_loss")) $("y").value = chosen.y = "quality_loss";
  const first = data.series.findIndex((one) => name === ALL || one.panel === name);
  $("fields-series").value = first;
  $("attainment-choice").hidden = !data.series.some((one) => (name === ALL || one.panel === name) && one.attainment[chosen.x]);
  everything();
}

function listen() {
  $("panel").addEventListener("change", () => choosePanel($("panel").value));
  $("x").addEventListener("change", () => { chosen.x = $("x").value; drawFront(); });
  $("y").addEventListener("change", () => { chosen.y = $("y").value; drawFront(); });
  for (const box of document.querySelectorAll("[name=state]")) box.addEventListener("change", () => { chosen.states[box.checked ? "add" : "delete"](box.value); filtered(); });
  $("attainment").addEventListener("change", () => { chosen.attainment = $("attainment").checked; drawFront(); });
  $("whole").addEventListener("change", () => { chosen.whole = $("whole").checked; drawFront(); drawSlices(); });
  let waiting;
  $("filter").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { chosen.text = $("filter").value; shownRows = PAGE; filtered(); }, 120); });
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  $("reset").addEventListener("click", reset);
  $("cost").addEventListener("change", drawVolume);
  $("fields-series").addEventListener("change", () => { drawImportance(); drawSlices(); drawParallel(); });
  $("slice-metric").addEventListener("change", drawSlices);
  $("more").addEventListener("click", () => { shownRows *= 4; fillTrials(); });
  document.addEventListener("click", (event) => { const button = event.target.closest(".open"); if (button) openTrial(Number(button.dataset.row)); });
  $("copy").addEventListener("click", copyCommand);
  for (const query of ["(prefers-color-scheme: dark)", "print", "(max-width: 46rem)"]) matchMedia(query).addEventListener("change", everything);
  window.addEventListener("beforeprint", () => { onPaper = true; everything(); });
  window.addEventListener("afterprint", () => { onPaper = false; everything(); });
  window.addEventListener("resize", drawParallel);
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
  const names = data.panels.map((part) => part.title);
  $("panel").replaceChildren(...[...names, ...(names.length > 1 && data.quality === "val_top1" ? [ALL] : [])].map((name) => new Option(name)));
  $("panel-choice").hidden = names.length < 2;
  chosen.x = data.axes[0];
  fillFields();
  headTrials();
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  listen();
  choosePanel(names[0]);
  onClick("front-plot");
  onClick("slices-plot");
  listenToBrushes();
  document.body.dataset.ready = "yes";
}

start();
