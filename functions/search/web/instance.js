// One instance in a dialog: its image, its metadata, and moving to its neighbours by buttons, arrow
// keys and wheel.

import { $, complain, copyButton, make } from "./dom.js";
import { ask, askJson } from "./service.js";
import { TAG, person, text } from "./values.js";

const NEAR = 2; // pictures that are fetched ahead, on either side
const RESTED_MS = 200; // that one stays on an instance before its metadata is fetched
const WHEEL_MS = 40; // between two steps of the wheel

const pictures = new Map(); // by URL, those near the one on show
let shown = null; // { list, index, frame, context }
let viewing = 0; // what comes late for another instance is dropped
let wheeled = 0;
let names = null;

export const picturePath = (one, frame) => (
  one.frames > 1 ? `${one.path}/frames/${frame}/rendered` : `${one.path}/rendered`
);

// Shows an instance of a list of { path, uid, label, frames }.
export function view(list, index, context) {
  pictures.clear();
  $("filter").value = "";
  $("instance-actions").replaceChildren();
  goTo(list, index, 1, context);
  $("instance").showModal();
}

function goTo(list, index, frame, context) {
  const isOther = shown?.list !== list || shown.index !== index;
  shown = { list, index, frame, context };
  const one = list[index];
  $("instance-title").textContent = `${context.who} · ${one.label}`;
  $("instance-about").textContent = [
    text(context.study, TAG.id), context.series, `${index + 1} of ${list.length}`,
  ].filter(Boolean).join(" · ");
  $("earlier").disabled = index === 0;
  $("later").disabled = index === list.length - 1;
  $("frame").max = Math.max(one.frames, 1);
  $("frame").value = frame;
  $("frame").hidden = $("frame-label").hidden = one.frames < 2;
  $("frame-number").textContent = `${frame} of ${one.frames}`;
  $("figure").hidden = !one.frames;
  if (one.frames) draw(one, frame);
  if (isOther || !$("instance").open) about(one);
}

// The image

function draw(one, frame) {
  const image = picture(picturePath(one, frame));
  const before = $("image");
  before.removeAttribute("id");
  image.id = "image";
  image.alt = `${one.label}${one.frames > 1 ? `, frame ${frame} of ${one.frames}` : ""}`;
  before.replaceWith(image);
  noteOn(image);
  const near = [];
  for (let step = 1; step <= NEAR; step += 1) near.push(stepFrom(step), stepFrom(-step));
  const paths = near.filter((place) => place && shown.list[place.index].frames)
    .map((place) => picturePath(shown.list[place.index], place.frame));
  const kept = new Set([...paths, image.dataset.path]);
  for (const path of pictures.keys()) if (!kept.has(path)) pictures.delete(path);
  paths.forEach(picture);
}

// The browser does not cache the service's images: those nearby are kept as elements.
function picture(path) {
  if (!pictures.has(path)) {
    const image = make("img", { alt: "", dataset: { path } });
    image.onload = () => noteOn(image);
    image.onerror = () => {
      image.dataset.failed = "yes";
      noteOn(image);
    };
    image.src = path;
    pictures.set(path, image);
  }
  return pictures.get(path);
}

function noteOn(image) {
  if (image.id !== "image") return;
  const failed = image.dataset.failed === "yes";
  image.hidden = failed;
  $("image-note").textContent = failed ? "The DICOM store cannot render this instance." : "";
  $("figure").classList.toggle("loading", !failed && !image.complete);
}

// Moving

// The position after some slices: first the frames of one instance, then the next instance.
function stepFrom(steps) {
  let { index, frame } = shown;
  for (let left = Math.abs(steps); left > 0; left -= 1) {
    frame += Math.sign(steps);
    if (frame >= 1 && frame <= Math.max(shown.list[index].frames, 1)) continue;
    index += Math.sign(steps);
    if (index < 0 || index >= shown.list.length) return null;
    frame = steps > 0 ? 1 : Math.max(shown.list[index].frames, 1);
  }
  return { index, frame };
}

function step(steps) {
  const place = stepFrom(steps);
  if (place) goTo(shown.list, place.index, place.frame, shown.context);
}

function goToInstance(index) {
  if (index < 0 || index >= shown.list.length) return;
  goTo(shown.list, index, 1, shown.context);
}

const KEYS = {
  ArrowLeft: () => goToInstance(shown.index - 1),
  ArrowRight: () => goToInstance(shown.index + 1),
  ArrowUp: () => step(-1),
  ArrowDown: () => step(1),
  Home: () => goToInstance(0),
  End: () => goToInstance(shown.list.length - 1),
};

$("instance").addEventListener("keydown", (event) => {
  const modified = event.ctrlKey || event.altKey || event.metaKey || event.shiftKey;
  // Fields and the scrolled metadata use these keys themselves.
  if (modified || event.target.closest("input, .table") || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
$("figure").addEventListener("wheel", (event) => {
  if (event.ctrlKey || !event.deltaY) return; // the browser's zoom
  event.preventDefault();
  if (event.timeStamp - wheeled < WHEEL_MS) return;
  wheeled = event.timeStamp;
  step(Math.sign(event.deltaY));
}, { passive: false });
$("earlier").addEventListener("click", () => goToInstance(shown.index - 1));
$("later").addEventListener("click", () => goToInstance(shown.index + 1));
$("frame").addEventListener("input", () => (
  goTo(shown.list, shown.index, Number($("frame").value), shown.context)
));
$("instance").addEventListener("close", () => {
  viewing += 1;
  pictures.clear();
});

// Actions and metadata

async function about(one) {
  const mine = ++viewing;
  $("instance-actions").replaceChildren(
    make("a", { className: "button small", href: one.path, download: `${one.uid}.dcm` }, "Download .dcm"),
    copyButton("Copy UID", one.uid),
  );
  $("instance-problem").hidden = true;
  $("attributes").replaceChildren();
  await new Promise((resolve) => { setTimeout(resolve, RESTED_MS); });
  if (mine !== viewing) return;
  try {
    names ??= await askJson("names.json");
    const [metadata] = await (await ask(`${one.path}/metadata`)).json();
    if (mine !== viewing) return;
    $("attributes").replaceChildren(...attributeRows(metadata ?? {}, 0));
    filterRows();
  } catch (error) {
    if (mine === viewing) complain($("instance-problem"), error);
  }
}

function attributeRows(item, depth) {
  const elements = Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1));
  return elements.flatMap(([tag, element]) => {
    const inner = element.vr === "SQ" ? element.Value ?? [] : [];
    const isPrivate = parseInt(tag.slice(0, 4), 16) % 2 === 1;
    const name = names[tag] ?? (isPrivate ? "Private" : "–");
    const row = make("tr", {},
      make("td", {}, "› ".repeat(depth) + name),
      make("td", {}, `${tag.slice(0, 4)},${tag.slice(4)} ${element.vr}`),
      make("td", {}, plain(element)));
    return [row, ...inner.flatMap((one) => attributeRows(one, depth + 1))];
  });
}

function plain(element) {
  if (element.BulkDataURI) return "(bulk data)";
  if (element.InlineBinary) return "(binary)";
  if (element.vr === "SQ") return `${element.Value?.length ?? 0} items`;
  if (element.vr === "PN") return person(element);
  const values = (element.Value ?? []).map((one) => String(one ?? ""));
  if (values.length <= 32) return values.join(", ");
  return `${values.slice(0, 32).join(", ")}, … (${values.length} values)`;
}

function filterRows() {
  const sought = $("filter").value.trim().toLowerCase().replace(",", "");
  for (const row of $("attributes").rows) {
    row.hidden = !row.textContent.replace(",", "").toLowerCase().includes(sought);
  }
}
$("filter").addEventListener("input", filterRows);
