// Files that are saved from the page itself: it needs no other file beside it.

function save(name, text) {
  const link = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function saveFile(name) {
  save(name, (await decode($("files").textContent))[name]);
}

const quoted = (cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

// The points that pass the filter, with all metrics and the fields that vary.
function saveSelection() {
  const metrics = Object.keys(data.trials.metrics), fields = Object.keys(data.trials.fields);
  const heads = ["trial_id", "study", "method", "panel", "state", "seed", ...metrics, ...fields];
  const lines = passing().map((row) => [data.trials.id[row], series(row).study, series(row).method, series(row).panel, data.trials.state[row], data.trials.seed[row], ...[...metrics, ...fields].map((name) => value(name, row))]);
  save("selection.csv", [heads, ...lines].map((line) => line.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\n") + "\n");
}
