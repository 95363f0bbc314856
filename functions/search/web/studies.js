// The list of studies. The store returns studies in no documented order, so all are fetched, up to a
// limit, and sorted here.

import { $, copyButton, make, unfold, whenSeen } from "./dom.js";
import { exportButton } from "./exports.js";
import { range } from "./form.js";
import { seriesList, seriesOf } from "./series.js";
import { ask, following, later, once, remarks } from "./service.js";
import { TAG, compare, date, person, text, time } from "./values.js";

const MOST = 1000;
const COUNTED = 500; // instances of a study; more are shown as 500+
const WINDOWS = [366, 31, 7, 1]; // days

const KEYS = {
  patient: (study) => person(study[TAG.name]).toLowerCase(),
  date: (study) => text(study, TAG.date) + text(study, TAG.time),
  description: (study) => text(study, TAG.description).toLowerCase(),
  accession: (study) => text(study, TAG.accession),
};

// The studies of a search: { studies, more, since, notes }. If there are too many to fetch, only those
// of the last year, month, week or day.
export async function find(query, search) {
  let found = await list(query);
  if (!found.more) return found;
  for (const days of WINDOWS) {
    const since = daysBefore(search.to, days);
    if (search.from && since <= search.from) continue;
    const part = await list({ ...query, StudyDate: range(since, search.to) });
    if (!part.studies.length) break;
    found = { ...part, since };
    if (!part.more) break;
  }
  return found;
}

async function list(query) {
  const response = await ask("studies/_query", { ...query, limit: MOST });
  const studies = await response.json();
  return { studies, more: following(response) > 0, since: "", notes: remarks(response) };
}

function daysBefore(day, days) {
  const end = day ? new Date(`${day}T00:00:00Z`) : new Date();
  return new Date(end.getTime() - days * 86_400_000).toISOString().slice(0, 10);
}

// The note about studies that are not in the list.
export function aboutTheRest(found) {
  if (found.since && !found.more) {
    return `There are more than ${MOST.toLocaleString("en")} studies. `
      + `These are the newest, since ${found.since}: set the dates to see others`;
  }
  if (found.more) {
    return `There are more than these ${found.studies.length.toLocaleString("en")} studies, perhaps `
      + "newer ones too: narrow the search, by the study date for example";
  }
  return "";
}

export function sorted(studies, order) {
  const key = KEYS[order.replace("-", "")];
  const keyed = studies.map((study) => ({ study, key: key(study) }));
  const sign = order.startsWith("-") ? -1 : 1;
  // Studies without a value are last, in both directions.
  keyed.sort((a, b) => compare(!a.key, !b.key) || sign * compare(a.key, b.key));
  return keyed.map((one) => one.study);
}

export function show(studies, config) {
  $("rows").replaceChildren(...studies.flatMap((study) => rowsOf(study, config)));
}

function rowsOf(study, config) {
  const uid = text(study, TAG.study);
  const who = person(study[TAG.name]) || "No name";
  const day = date(text(study, TAG.date));
  const detail = make("td", { colSpan: 9, role: "cell" });
  const below = make("tr", { className: "detail", role: "row", hidden: true, id: `s${uid}` }, detail);
  const aria = {
    "aria-expanded": "false", "aria-controls": below.id, "aria-label": `Series of ${who}, ${day}`,
  };
  const toggle = make("button", { type: "button", className: "toggle", aria });
  const cells = { modality: cell("Modality"), series: cell("Series"), instances: cell("Instances") };
  const row = make("tr", { className: "study", role: "row" },
    make("td", { role: "cell", className: "opener" }, toggle),
    make("td", { role: "cell", className: "patient" }, who, make("small", {}, aboutPatient(study))),
    cell("Study date", day || "no date", make("small", {}, time(text(study, TAG.time)))),
    cells.modality,
    cell("Description", text(study, TAG.description)),
    cell("Accession", text(study, TAG.accession)),
    cells.series,
    cells.instances,
    make("td", { role: "cell", className: "actions" }, viewerLink(uid, who, config),
      exportButton(`studies/${uid}`, `the study of ${who}`, config)));
  const load = once(() => seriesOf(uid));
  const open = () => {
    row.classList.toggle("open", toggle.getAttribute("aria-expanded") !== "true");
    return unfold(toggle, below, detail, async () => [
      uidLine(uid), ...seriesList(uid, await load(), { who, study, config }),
    ]);
  };
  row.addEventListener("click", (event) => {
    // Not if something else was clicked, or text is being selected.
    if (event.target.closest("a, button") && event.target !== toggle) return;
    if (String(getSelection()) && event.target !== toggle) return;
    open();
  });
  whenSeen(row, () => {
    later(async () => count(await load(), cells));
    later(async () => { cells.instances.append(await instancesOf(uid)); });
  });
  return [row, below];
}

const cell = (label, ...content) => make("td", { role: "cell", dataset: { label } }, ...content);

function aboutPatient(study) {
  const born = date(text(study, TAG.born));
  const parts = [text(study, TAG.id) || "no ID", born ? `born ${born}` : "", text(study, TAG.sex)];
  return parts.filter(Boolean).join(" · ");
}

function count({ series, more }, cells) {
  const kinds = new Set(series.map((one) => text(one, TAG.modality)).filter(Boolean));
  const badges = [...kinds].sort().map((kind) => make("span", { className: "badge" }, kind));
  cells.modality.append(...badges, more ? "perhaps more" : "");
  cells.series.append(`${series.length.toLocaleString("en")}${more ? "+" : ""}`);
}

async function instancesOf(uid) {
  const response = await ask(`studies/${uid}/instances?limit=${COUNTED}`);
  const found = await response.json();
  return `${found.length}${following(response) ? "+" : ""}`;
}

function viewerLink(uid, who, config) {
  if (!config.viewer) return null;
  return make("a", {
    className: "button small", href: config.viewer.replace("{study}", uid), target: "_blank",
    rel: "noopener noreferrer", aria: { "aria-label": `Open the study of ${who} in the viewer` },
  }, "Open in viewer");
}

function uidLine(uid) {
  return make("p", { className: "uid soft" }, "Study ", make("code", {}, uid),
    copyButton("Copy UID", uid, { aria: { "aria-label": "Copy the study's UID" } }));
}
