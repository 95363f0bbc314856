// The search page: from the form to the list of studies, and through its pages.

import { current, ORDERS, push, SIZES } from "./address.js";
import { $, complain, make } from "./dom.js";
import { offer } from "./exports.js";
import { fill, query, showFilters, typed } from "./form.js";
import { showRequest } from "./request.js";
import { ask, askJson, dropWaiting, following, remarks } from "./service.js";
import { aboutTheRest, find, show, sorted } from "./studies.js";
import { offerUploads } from "./uploads.js";
import { count } from "./values.js";

const SPREADSHEET = 5000; // studies that the service gives at once
let config = { retrieve: false, exports: null, viewer: "" };
let search = current(); // what is on show: the form's values, order and page
let found = null; // the studies of it, and what they were asked with
let turn = 0; // answers of an earlier search are dropped

async function run() {
  const mine = ++turn;
  const asked = query(search);
  dropWaiting();
  // Until the answer comes, nothing of another search is on show.
  found = null;
  $("studies").hidden = $("pages").hidden = $("list-actions").hidden = true;
  $("problem").hidden = $("mistake").hidden = $("empty").hidden = true;
  tell([]);
  $("status").textContent = "Searching…";
  $("results").setAttribute("aria-busy", "true");
  try {
    const answer = await find(asked, search);
    if (mine !== turn) return;
    found = { ...answer, asked };
    showPage();
    tell([...found.notes, aboutTheRest(found)].filter(Boolean));
  } catch (error) {
    if (mine !== turn) return;
    $("status").textContent = "";
    complain($("problem"), error);
  } finally {
    if (mine === turn) $("results").removeAttribute("aria-busy");
  }
}

function showPage() {
  const { studies, more } = found;
  const last = Math.max(1, Math.ceil(studies.length / search.size));
  const page = Math.min(search.page, last);
  const begin = (page - 1) * search.size;
  const rows = sorted(studies, search.sort).slice(begin, begin + search.size);
  dropWaiting();
  show(rows, config);
  showOrder();
  const total = `${count(studies.length, "study", "studies")}`;
  $("status").textContent = studies.length ? total.replace(" ", more ? "+ " : " ") : "No study found";
  $("studies").hidden = $("csv").hidden = $("order").hidden = !studies.length;
  $("list-actions").hidden = false;
  $("pages").hidden = studies.length <= SIZES[0];
  $("empty").hidden = studies.length > 0;
  $("previous").disabled = page === 1;
  $("next").disabled = page === last;
  $("range").textContent = `${begin + 1}–${begin + rows.length} of ${studies.length.toLocaleString("en")}`;
  $("size").value = search.size;
}

function showOrder() {
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const isDescending = search.sort === `-${head.dataset.sort}`;
    const isAscending = search.sort === head.dataset.sort;
    if (isDescending) head.setAttribute("aria-sort", "descending");
    else if (isAscending) head.setAttribute("aria-sort", "ascending");
    else head.removeAttribute("aria-sort");
  }
  $("order").value = search.sort;
}

// Another order or page of the present results.
function turnTo(change) {
  search = { ...search, ...change };
  push(search);
  if (found) showPage();
}

function tell(notes) {
  $("notes").textContent = notes.join(". ");
  $("notes").hidden = !notes.length;
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = typed(search);
  if (wanted.from && wanted.to && wanted.from > wanted.to) {
    complain($("mistake"), new Error("The first date is after the last."));
    showFilters(true);
    $("from").focus();
    return;
  }
  search = wanted;
  push(search);
  run();
});
$("search").addEventListener("reset", () => setTimeout(() => {
  $("name").focus();
  search = typed(search);
  push(search);
  run();
}));
addEventListener("popstate", () => {
  search = current();
  fill(search);
  const isSame = found && JSON.stringify(query(search)) === JSON.stringify(found.asked);
  if (isSame) showPage();
  else run();
});

// The list's order and pages

for (const head of document.querySelectorAll("th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    const key = head.dataset.sort;
    // Dates begin with the newest, everything else with A.
    const first = key === "date" ? "-date" : key;
    const second = key === "date" ? "date" : `-${key}`;
    turnTo({ sort: search.sort === first ? second : first, page: 1 });
  });
}
$("order").append(...ORDERS.flatMap((key) => {
  const label = document.querySelector(`th[data-sort=${key}]`).textContent.trim();
  const [up, down] = key === "date" ? ["oldest first", "newest first"] : ["A to Z", "Z to A"];
  return [make("option", { value: `-${key}` }, `${label}, ${down}`),
    make("option", { value: key }, `${label}, ${up}`)];
}));
$("order").addEventListener("change", () => turnTo({ sort: $("order").value, page: 1 }));
$("size").append(...SIZES.map((size) => make("option", { value: size }, `${size} a page`)));
$("size").addEventListener("change", () => turnTo({ size: Number($("size").value), page: 1 }));
$("previous").addEventListener("click", () => turnPage(-1));
$("next").addEventListener("click", () => turnPage(1));

function turnPage(step) {
  const last = Math.ceil(found.studies.length / search.size);
  turnTo({ page: Math.min(search.page, last) + step });
  $("results-heading").focus();
}

$("show-request").addEventListener("click", () => showRequest(found.asked));
$("csv").addEventListener("click", async () => {
  try {
    const wanted = { ...found.asked, limit: SPREADSHEET };
    const response = await ask("studies/_query", wanted, "text/csv");
    const end = following(response);
    const file = end ? `studies-first-${end}.csv` : "studies.csv";
    const link = make("a", { href: URL.createObjectURL(await response.blob()), download: file });
    link.click();
    URL.revokeObjectURL(link.href);
    const cut = `The spreadsheet ends after ${end} studies and there are more: narrow the search, `
      + "by the study date for example";
    tell([...remarks(response), ...(end ? [cut] : [])]);
  } catch (error) {
    complain($("problem"), error);
  }
});

try {
  config = await askJson("config.json");
  if (config.exports) offer(config.exports);
  if (config.uploads) offerUploads(config.uploads, run);
} catch (error) {
  complain($("problem"), error);
}
fill(search);
run();
