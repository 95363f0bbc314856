// The search page. Everything a person types goes in the body of a POST: URLs are logged by the platform, bodies are not.

const PAGE = 25;
const INSTANCES = 48;
const MOST = 5000; // studies or series that the service gives at once
const AT_ONCE = 4;
const TAG = {
  name: "00100010", id: "00100020", born: "00100030", sex: "00100040", date: "00080020", time: "00080030",
  accession: "00080050", description: "00081030", study: "0020000D", series: "0020000E", instance: "00080018",
  modality: "00080060", seriesNumber: "00200011", seriesText: "0008103E", number: "00200013",
  frames: "00280008", rows: "00280010", columns: "00280011",
};

const $ = (id) => document.getElementById(id);
let config = { retrieve: false, exports: null };
let names = null;
let asked = null; // the query on show, where its page begins, and where the next one does
let turn = 0; // answers of an earlier search are dropped
let viewing = 0; // likewise those of an instance that is not on show any more

// Values

const value = (row, tag) => row[tag]?.Value?.[0];
const text = (row, tag) => String(value(row, tag) ?? "");

function person(element) {
  const name = element?.Value?.[0];
  if (!name) return "";
  const tidy = (form) => (form ?? "").split("^").map((part) => part.trim()).filter(Boolean).join(", ");
  const forms = [tidy(name.Alphabetic), tidy(name.Ideographic)].filter(Boolean);
  return forms.length > 1 ? `${forms[0]} (${forms[1]})` : forms[0] ?? "";
}

function date(digits) {
  return /^\d{8}$/.test(digits) ? `${digits.slice(0, 4)}-${digits.slice(4, 6)}-${digits.slice(6)}` : digits;
}

function make(tag, properties = {}, ...children) {
  const { dataset, aria, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  for (const [name, content] of Object.entries(aria ?? {})) node.setAttribute(name, content);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Asking

async function ask(path, body, accept = "application/dicom+json") {
  const options = { headers: { Accept: accept }, cache: "no-store" };
  if (body) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service cannot be reached.");
  }
  if (!response.ok) throw new Error(await problem(response));
  return response;
}

async function problem(response) {
  const words = { 401: "You are not signed in to this service.", 403: "This is not allowed for you here.", 404: "There is no such thing." };
  try {
    const { error } = await response.json();
    const wait = response.headers.get("Retry-After");
    const about = error.parameter ? `${error.parameter}: ` : "";
    return `${about}${error.message ?? words[response.status] ?? error.reason}${wait ? ` (in ${wait} s)` : ""}.`;
  } catch {
    return words[response.status] ?? `The service answered ${response.status}.`;
  }
}

// Where the rows after these begin; 0 when there are none.
const following = (response) => Number(/offset=(\d+)>; rel="next"/.exec(response.headers.get("Link") ?? "")?.[1] ?? 0);

// What the service says about the answer, other than that there are more rows.
function remarks(response) {
  const texts = [...(response.headers.get("Warning") ?? "").matchAll(/"([^"]*)"/g)].map((found) => found[1]);
  return texts.filter((text) => !text.startsWith("There are more"));
}

function tell(notes) {
  $("notes").textContent = notes.join(". ");
  $("notes").hidden = !notes.length;
}

function complain(node, error) {
  node.textContent = error.message;
  node.hidden = false;
}

// Searching

function wanted() {
  const query = { includefield: ["StudyDescription"] };
  const filled = { PatientName: $("name").value, PatientID: $("id").value, AccessionNumber: $("accession").value };
  for (const [key, typed] of Object.entries(filled)) if (typed.trim()) query[key] = typed.trim();
  if (query.PatientName) query.fuzzymatching = true;
  const [from, to] = [$("from").value, $("to").value].map((day) => day.replaceAll("-", ""));
  if (from || to) query.StudyDate = from === to ? from : `${from}-${to}`;
  if ($("modality").value) query.Modality = $("modality").value;
  return query;
}

async function search(query, offset) {
  const mine = ++turn;
  $("problem").hidden = $("notes").hidden = $("empty").hidden = true;
  $("status").textContent = "Searching…";
  document.body.classList.add("busy");
  try {
    const response = await ask("studies/_query", { ...query, limit: PAGE, offset });
    const studies = await response.json();
    if (mine !== turn) return;
    asked = { query, offset, next: following(response) };
    show(studies);
    tell(remarks(response));
  } catch (error) {
    if (mine !== turn) return;
    $("studies").hidden = $("pages").hidden = $("csv").hidden = true;
    $("status").textContent = "";
    complain($("problem"), error);
  } finally {
    document.body.classList.remove("busy");
  }
}

function show(studies) {
  const { offset, next } = asked;
  const more = next > 0;
  const last = offset + studies.length;
  const some = studies.length > 0;
  $("rows").replaceChildren(...studies.flatMap(studyRows));
  $("studies").hidden = $("csv").hidden = !some;
  $("pages").hidden = !more && offset === 0;
  $("previous").disabled = offset === 0;
  $("next").disabled = !more;
  $("range").textContent = some ? `${offset + 1}–${last}` : "";
  $("empty").hidden = some;
  $("empty").textContent = offset ? "No more studies." : "No study matches. Names match by the beginning of any part; everything else is matched whole.";
  const count = `${last}${more ? " and more" : ""}`;
  $("status").textContent = some ? (offset ? `Studies ${offset + 1} to ${last}${more ? " and more" : ""}` : `${count} ${last === 1 ? "study" : "studies"}`) : "No study found";
}

function studyRows(study) {
  const uid = text(study, TAG.study);
  const who = person(study[TAG.name]) || "No name";
  const detail = make("td", { colSpan: 9 });
  const below = make("tr", { className: "detail", hidden: true, id: `s${uid}` }, detail);
  const toggle = make("button", { type: "button", className: "toggle", aria: { "aria-expanded": "false", "aria-controls": below.id, "aria-label": `Series of ${who}, ${date(text(study, TAG.date))}` } });
  const modality = make("td", { className: "date" });
  const row = make("tr", { className: "study" },
    make("td", {}, toggle),
    make("td", { className: "patient" }, who, make("small", {}, text(study, TAG.id) || "no ID")),
    make("td", { className: "date" }, date(text(study, TAG.born))),
    make("td", {}, text(study, TAG.sex)),
    make("td", { className: "date" }, date(text(study, TAG.date))),
    modality,
    make("td", {}, text(study, TAG.description)),
    make("td", {}, text(study, TAG.accession)),
    make("td", {}, exportButton(`studies/${uid}`, `the study of ${who}`)));
  const load = once(() => seriesOf(uid));
  later(async () => {
    const { series, more } = await load();
    const kinds = new Set(series.map((one) => text(one, TAG.modality)).filter(Boolean));
    modality.append(...[...kinds].sort().map((kind) => make("span", { className: "badge" }, kind)), more ? "perhaps more" : "");
  });
  toggle.addEventListener("click", () => open(toggle, [row, below], detail, async () => seriesList(uid, await load())));
  return [row, below];
}

async function seriesOf(study) {
  const fields = "SeriesNumber,SeriesDescription,Modality,SeriesInstanceUID";
  const response = await ask(`studies/${study}/series?limit=${MOST}&includefield=${fields}`);
  const series = await response.json();
  series.sort((a, b) => (value(a, TAG.seriesNumber) ?? 1e9) - (value(b, TAG.seriesNumber) ?? 1e9));
  return { series, more: following(response) > 0 };
}

function seriesList(study, { series: all, more: cut }) {
  const list = make("ul", { className: "series" });
  for (const series of all) {
    const uid = text(series, TAG.series);
    const title = `${text(series, TAG.seriesNumber)} ${text(series, TAG.seriesText) || "Series without description"}`.trim();
    const body = make("div", { id: `r${uid}`, hidden: true });
    const toggle = make("button", { type: "button", className: "toggle", aria: { "aria-expanded": "false", "aria-controls": body.id, "aria-label": `Instances of series ${title}` } });
    const path = `studies/${study}/series/${uid}`;
    toggle.addEventListener("click", () => open(toggle, [body], body, async () => {
      const grid = make("ul", { className: "instances" });
      const more = make("p", { className: "more", hidden: true });
      await addInstances(path, grid, more, 0);
      return [grid, more];
    }));
    list.append(make("li", {},
      make("div", { className: "head" }, toggle, make("span", { className: "badge" }, text(series, TAG.modality) || "?"),
        make("span", { className: "title" }, title), exportButton(path, `series ${title}`)),
      body));
  }
  const parts = [all.length ? list : make("p", { className: "soft" }, "No series.")];
  if (cut) parts.push(make("p", { className: "soft" }, `There are more series than the ${all.length} shown.`));
  return parts;
}

async function addInstances(series, grid, more, offset) {
  const fields = "InstanceNumber,NumberOfFrames,Rows,Columns";
  const response = await ask(`${series}/instances?limit=${INSTANCES}&offset=${offset}&includefield=${fields}`);
  const found = await response.json();
  found.sort((a, b) => (value(a, TAG.number) ?? 1e9) - (value(b, TAG.number) ?? 1e9));
  grid.append(...found.map((instance) => make("li", {}, instanceButton(series, instance))));
  const next = following(response);
  more.hidden = !next;
  const button = make("button", { type: "button", className: "small" }, "Show more instances");
  button.addEventListener("click", () => {
    button.disabled = true; // a second click would show the same instances twice
    addInstances(series, grid, more, next).catch((error) => {
      button.disabled = false;
      complain($("problem"), error);
    });
  });
  more.replaceChildren(button);
}

function instanceButton(series, instance) {
  const path = `${series}/instances/${text(instance, TAG.instance)}`;
  const frames = Number(value(instance, TAG.frames) ?? 1);
  const label = `Instance ${text(instance, TAG.number) || "without number"}`;
  const size = value(instance, TAG.rows) ? `${text(instance, TAG.columns)} × ${text(instance, TAG.rows)}` : "no image";
  const drawn = config.retrieve && value(instance, TAG.rows);
  const picture = drawn ? make("img", { className: "thumb", alt: "", loading: "lazy", src: picturePath(path, frames, 1) }) : null;
  picture?.addEventListener("error", () => picture.replaceWith(make("span", { className: "thumb" }, "no picture")), { once: true });
  const button = make("button", { type: "button" }, picture ?? make("span", { className: "thumb" }, drawn ? "" : size), `${label}`,
    make("span", { className: "soft" }, frames > 1 ? `${frames} frames` : size));
  button.disabled = !config.retrieve;
  button.addEventListener("click", () => view(path, label, drawn ? frames : 0));
  return button;
}

const picturePath = (path, frames, frame) => (frames > 1 ? `${path}/frames/${frame}/rendered` : `${path}/rendered`);

// One instance

async function view(path, label, frames) {
  const mine = ++viewing;
  const image = make("img", { id: "image", alt: "" }); // the one before would show its picture until this one's is there
  $("image").replaceWith(image);
  $("instance-title").textContent = label;
  $("figure").hidden = !frames;
  $("frame").max = Math.max(frames, 1);
  $("frame").value = 1;
  $("frame").hidden = $("frame-label").hidden = frames < 2;
  const draw = () => {
    image.hidden = false;
    $("image-note").textContent = "";
    $("frame-number").textContent = `${$("frame").value} of ${frames}`;
    image.src = picturePath(path, frames, $("frame").value);
    image.alt = `${label}${frames > 1 ? `, frame ${$("frame").value} of ${frames}` : ""}`;
  };
  image.onerror = () => { image.hidden = true; $("image-note").textContent = "The DICOM store cannot draw this one."; };
  $("frame").oninput = draw;
  if (frames) draw();
  $("filter").value = "";
  $("attributes").replaceChildren();
  $("instance").showModal();
  try {
    names ??= await (await ask("names.json", null, "application/json")).json();
    const [metadata] = await (await ask(`${path}/metadata`)).json();
    if (mine === viewing) $("attributes").replaceChildren(...attributeRows(metadata ?? {}, 0));
  } catch (error) {
    if (mine === viewing) $("attributes").replaceChildren(make("tr", {}, make("td", { colSpan: 3 }, error.message)));
  }
}

function attributeRows(item, depth) {
  return Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([tag, element]) => {
    const inner = element.vr === "SQ" ? element.Value ?? [] : [];
    const name = names[tag] ?? (parseInt(tag.slice(0, 4), 16) % 2 ? "Private" : "–");
    const row = make("tr", {}, make("td", {}, "› ".repeat(depth) + name), make("td", {}, `${tag.slice(0, 4)},${tag.slice(4)} ${element.vr}`), make("td", {}, plain(element)));
    return [row, ...inner.flatMap((one) => attributeRows(one, depth + 1))];
  });
}

function plain(element) {
  if (element.BulkDataURI) return "(bulk data)";
  if (element.InlineBinary) return "(binary)";
  if (element.vr === "SQ") return `${element.Value?.length ?? 0} items`;
  if (element.vr === "PN") return person(element);
  const values = (element.Value ?? []).map((one) => String(one ?? ""));
  return values.length > 32 ? `${values.slice(0, 32).join(", ")}, … (${values.length} values)` : values.join(", ");
}

$("filter").addEventListener("input", () => {
  const sought = $("filter").value.trim().toLowerCase();
  for (const row of $("attributes").rows) row.hidden = !row.textContent.replace(",", "").toLowerCase().includes(sought.replace(",", ""));
});

// Exports

function exportButton(path, what) {
  if (!config.exports) return null;
  const button = make("button", { type: "button", className: "small", aria: { "aria-label": `Export ${what}` } }, "Export");
  button.addEventListener("click", () => {
    $("export-what").textContent = `Everything in ${what}.`;
    $("export-problem").hidden = true;
    $("export-form").dataset.path = path;
    $("export").showModal();
  });
  return button;
}

$("export-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const folder = $("folder").value ? `/${$("folder").value}` : "";
  const command = { path: event.target.dataset.path, destination: $("destination").value + folder, format: $("format").value };
  try {
    const { request_id: id } = await (await ask("exports", command, "application/json")).json();
    $("export").close();
    $("status").textContent = `Export asked for, request ${id}`;
  } catch (error) {
    complain($("export-problem"), error);
  }
});

// Small helpers

function once(load) {
  let promise;
  return () => {
    promise ??= load().catch((error) => { promise = undefined; throw error; });
    return promise;
  };
}

const queue = [];
let running = 0;
function later(work) {
  const mine = turn;
  queue.push(async () => { if (mine === turn) await work().catch(() => {}); });
  pump();
}
function pump() {
  while (running < AT_ONCE && queue.length) {
    running += 1;
    queue.shift()().finally(() => { running -= 1; pump(); });
  }
}

async function open(toggle, parts, place, fill) {
  const opening = toggle.getAttribute("aria-expanded") !== "true";
  toggle.setAttribute("aria-expanded", String(opening));
  parts.at(-1).hidden = !opening;
  if (parts.length > 1) parts[0].classList.toggle("open", opening);
  if (!opening || place.dataset.filled) return;
  place.dataset.filled = "yes";
  place.replaceChildren(make("p", { className: "soft" }, "Loading…"));
  try {
    place.replaceChildren(...await fill());
  } catch (error) {
    delete place.dataset.filled;
    place.replaceChildren(make("p", { aria: { role: "alert" } }, error.message));
  }
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const [from, to] = [$("from").value, $("to").value];
  if (from && to && from > to) return complain($("problem"), new Error("The first date is after the last."));
  return search(wanted(), 0);
});
$("search").addEventListener("reset", () => setTimeout(() => { $("name").focus(); search(wanted(), 0); }));
$("previous").addEventListener("click", () => turnPage(Math.max(0, asked.offset - PAGE)));
$("next").addEventListener("click", () => turnPage(asked.next));
async function turnPage(offset) {
  await search(asked.query, offset);
  $("results-heading").focus();
}
$("csv").addEventListener("click", async () => {
  try {
    const response = await ask("studies/_query", { ...asked.query, limit: MOST }, "text/csv");
    const end = following(response);
    const file = end ? `studies-first-${end}.csv` : "studies.csv";
    const link = make("a", { href: URL.createObjectURL(await response.blob()), download: file });
    link.click();
    URL.revokeObjectURL(link.href);
    const cut = `The spreadsheet ends after ${end} studies and there are more: narrow the search, by the study date for example`;
    tell([...remarks(response), ...(end ? [cut] : [])]);
  } catch (error) {
    complain($("problem"), error);
  }
});
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

try {
  config = await (await ask("config.json", null, "application/json")).json();
  const options = (list) => list.map((item) => make("option", { value: item }, item));
  if (config.exports) {
    $("destination").append(...options(config.exports.destinations));
    $("format").append(...options(config.exports.formats));
  }
} catch (error) {
  complain($("problem"), error);
}
search(wanted(), 0);
