// Exports: the form, and the outcomes of this page's exports.

import { $, button, complain, copyButton, make } from "./dom.js";
import { askJson } from "./service.js";
import { count, size } from "./values.js";

const ID_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789";
const FIRST_WAIT_MS = 1500;
const LONGEST_WAIT_MS = 30_000;
const WATCHED_MS = 12 * 3600_000;

export function exportButton(path, what, config) {
  if (!config.exports) return null;
  const aria = { "aria-label": `Export ${what}` };
  return button("Export", () => openForm(path, what), { aria });
}

let hasStates = false; // whether the service says what became of an export
let labels = {}; // by the format's name

export function offer(choices) {
  hasStates = choices.states;
  labels = choices.formats;
  const option = (value, label) => make("option", { value }, label);
  $("destination").append(...choices.destinations.map((one) => option(one, one)));
  $("format").append(...Object.entries(labels).map(([name, label]) => option(name, label)));
}

function openForm(path, what) {
  $("export-what").textContent = `Everything in ${what}.`;
  $("export-problem").hidden = true;
  $("export-form").dataset.path = path;
  $("export-form").dataset.what = what;
  $("folder").value = ownFolder();
  showPlace();
  $("export").showModal();
}

// A new folder for each export, because each writes a manifest.json.
function ownFolder() {
  const letters = [...crypto.getRandomValues(new Uint8Array(6))]
    .map((byte) => ID_LETTERS[byte % ID_LETTERS.length]);
  return `exports/${new Date().toISOString().slice(0, 10)}-${letters.join("")}`;
}

function place() {
  return [$("destination").value, $("folder").value].filter(Boolean).join("/");
}

function showPlace() {
  $("place").textContent = place();
  $("place-warning").hidden = Boolean($("folder").value);
}
$("destination").addEventListener("change", showPlace);
$("folder").addEventListener("input", showPlace);

$("export-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { path, what } = event.target.dataset;
  const format = $("format").value;
  const destination = place();
  $("export-start").disabled = true; // a second click would be a second export
  try {
    const { request_id: id } = await askJson("exports", { path, destination, format });
    $("export").close();
    list(id, what, format, destination);
  } catch (error) {
    complain($("export-problem"), error);
  } finally {
    $("export-start").disabled = false;
  }
});

// The exports of this page

function list(id, what, format, destination) {
  const state = make("p", { className: "state", role: "status" }, "Requested; waiting for its outcome…");
  const item = make("li", { className: "waiting" },
    make("p", {}, make("strong", {}, `${labels[format]} of ${what}`)),
    make("p", {}, "To ", make("code", {}, destination), " ", copyButton("Copy", destination, {
      aria: { "aria-label": "Copy the export's place" },
    })),
    state,
    make("p", { className: "soft" }, "Request ", make("code", {}, id)));
  $("exports-list").prepend(item);
  $("exports").hidden = false;
  if (hasStates) watch(id, destination, item, state);
  else state.textContent = "Requested. Its outcome will be published on the outcomes topic.";
}

async function watch(id, destination, item, state) {
  const end = Date.now() + WATCHED_MS;
  for (let wait = FIRST_WAIT_MS; Date.now() < end; wait = Math.min(wait * 1.5, LONGEST_WAIT_MS)) {
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    const found = await request(id);
    if (found?.state === "done") {
      state.textContent = outcome(found.outcome, destination);
      item.className = found.outcome.outcome === "exported" ? "done" : "failed";
      return;
    }
  }
  state.textContent = "No outcome yet: it will be published on the outcomes topic.";
}

// The request's state; null if the service did not answer.
async function request(id) {
  try {
    return await askJson(`requests/${id}`);
  } catch {
    return null;
  }
}

function outcome({ outcome: word, reason, detail, counts, bytes }, destination) {
  const why = [reason, detail].filter(Boolean).join(": ");
  if (word !== "exported" && word !== "partial") return `Not exported. ${why}`;
  const written = `${count(counts?.objects ?? 0, "object")}, ${size(bytes ?? 0)}, in ${destination}`;
  if (word === "exported") return `Done: ${written}`;
  const failures = count(counts?.failures ?? 0, "failure");
  return `Partly done: ${written}; ${failures}. ${why}`;
}
