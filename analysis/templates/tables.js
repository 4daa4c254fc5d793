// Tables that sort, and the table of all trials that pass.

const PAGE = 50;
let shownRows = PAGE;
let trialOrder = { name: "number", down: false };

function compare(one, other) {
  if (one === other) return 0;
  if (one === null || one === "") return 1;
  if (other === null || other === "") return -1;
  return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
}

function keyOf(cell) {
  const key = cell.dataset.key ?? cell.textContent;
  return key !== "" && !Number.isNaN(Number(key)) ? Number(key) : key;
}

// What is missing stays last in both directions.
function directed(one, other, falling) {
  const missing = [one, other].some((each) => each === null || each === "");
  return falling && !missing ? compare(other, one) : compare(one, other);
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.ariaSort === "ascending";
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const lines = [...table.tBodies[0].rows].sort((one, other) => directed(keyOf(one.cells[column]), keyOf(other.cells[column]), falling));
    table.tBodies[0].replaceChildren(...lines);
  }));
}

const trialColumns = () => [...new Set(["state", "series", data.axes[0], "coverage", "test_top1", data.quality, ...data.axes.slice(1), ...new Set(data.series.flatMap((one) => one.fields))])]
  .filter((name) => (name === "series" ? data.series.length > 1 : name === "state" || data.trials.fields[name] || data.offered.includes(name)));
const cellOf = (name, row) => (name === "id" || name === "state" ? data.trials[name][row] : name === "series" ? series(row).label : value(name, row));

function headTrials() {
  const line = document.createElement("tr");
  line.append(...["id", ...trialColumns()].map((name) => {
    const head = document.createElement("th"), button = document.createElement("button");
    button.type = "button";
    button.textContent = name === "id" ? "trial" : data.headings[name] ?? data.metrics[name]?.label ?? short(name);
    head.scope = "col";
    head.append(button);
    if (["id", "state", "series"].includes(name)) head.className = "left";
    button.addEventListener("click", () => {
      trialOrder = { name, down: trialOrder.name === name && !trialOrder.down };
      for (const each of line.cells) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", trialOrder.down ? "descending" : "ascending");
      fillTrials();
    });
    return head;
  }));
  $("trials-table").tHead.replaceChildren(line);
}

function fillTrials() {
  const rows = passing().sort((one, other) => directed(cellOf(trialOrder.name, one), cellOf(trialOrder.name, other), trialOrder.down));
  const names = trialColumns();
  $("trials-table").tBodies[0].replaceChildren(...rows.slice(0, shownRows).map((row) => {
    const line = document.createElement("tr"), head = document.createElement("th"), button = document.createElement("button");
    Object.assign(button, { type: "button", className: "open", textContent: data.trials.id[row] });
    button.dataset.row = row;
    Object.assign(head, { scope: "row", className: "left" });
    head.append(button);
    line.append(head, ...names.map((name) => Object.assign(document.createElement("td"), { textContent: show(name, cellOf(name, row)), className: ["state", "series"].includes(name) ? "left" : "" })));
    return line;
  }));
  $("trials-words").textContent = rows.length > shownRows ? `The first ${shownRows} of ${counted(rows)} that pass the filter.` : `${capital(counted(rows))} that pass the filter.`;
  $("more").hidden = rows.length <= shownRows;
  markSelected();
}

function markSelected() {
  for (const button of document.querySelectorAll(".open")) {
    const marked = [chosen.row, chosen.other].includes(Number(button.dataset.row));
    button.closest("th, td").classList.toggle("selected", marked);
  }
}
