// A study's series, and the instances of a series: the whole series in order, drawn while scrolling.

import { button, make, unfold, whenSeen } from "./dom.js";
import { exportButton } from "./exports.js";
import { picturePath, view } from "./instance.js";
import { ask, following } from "./service.js";
import { TAG, compare, count, inOrder, text, value } from "./values.js";

const SERIES = 5000; // that the service gives at once
const INSTANCES = 5000;
const INSTANCES_ALL = 20_000;
const DRAWN = 60; // thumbnails that are added at a time
const THUMB = 160; // pixels a side

export async function seriesOf(study) {
  const fields = "SeriesNumber,SeriesDescription,Modality,SeriesInstanceUID";
  const response = await ask(`studies/${study}/series?limit=${SERIES}&includefield=${fields}`);
  const series = await response.json();
  const number = (one) => Number(value(one, TAG.seriesNumber) ?? Infinity);
  series.sort((a, b) => compare(number(a), number(b)));
  return { series, more: following(response) > 0 };
}

export function seriesList(study, { series, more }, about) {
  const items = series.map((one) => seriesItem(study, one, about));
  const list = make("ul", { className: "series" }, ...items.map((item) => item.node));
  if (items.length === 1) items[0].open();
  const parts = [items.length ? list : make("p", { className: "soft" }, "No series.")];
  if (more) {
    const text = `There are more series than the ${items.length} shown.`;
    parts.push(make("p", { className: "soft" }, text));
  }
  return parts;
}

function seriesItem(study, series, about) {
  const uid = text(series, TAG.series);
  const described = text(series, TAG.seriesText) || "Series without description";
  const title = `${text(series, TAG.seriesNumber)} ${described}`.trim();
  const modality = text(series, TAG.modality) || "?";
  const body = make("div", { id: `r${uid}`, hidden: true });
  const aria = {
    "aria-expanded": "false", "aria-controls": body.id, "aria-label": `Instances of series ${title}`,
  };
  const toggle = make("button", { type: "button", className: "toggle", aria });
  const size = make("span", { className: "soft" });
  const path = `studies/${study}/series/${uid}`;
  const open = () => unfold(toggle, body, body, async () => {
    const { instances, more } = await instancesOf(path);
    size.textContent = `${count(instances.length, "instance")}${more ? ", and more" : ""}`;
    const context = { ...about, series: `${modality} ${title}` };
    return grid(path, instances, context);
  });
  const head = make("div", { className: "head" }, toggle,
    make("span", { className: "badge" }, modality), make("span", { className: "title" }, title), size,
    exportButton(path, `series ${title}`, about.config));
  head.addEventListener("click", (event) => {
    if (event.target === toggle || !event.target.closest("a, button")) open();
  });
  return { node: make("li", {}, head, body), open };
}

// All instances of a series, in order, up to a bound.
async function instancesOf(path) {
  const fields = "InstanceNumber,NumberOfFrames,Rows,Columns,"
    + "ImagePositionPatient,ImageOrientationPatient";
  const found = [];
  let offset = 0;
  do {
    const paging = `limit=${INSTANCES}&offset=${offset}`;
    const response = await ask(`${path}/instances?${paging}&includefield=${fields}`);
    found.push(...await response.json());
    offset = following(response);
  } while (offset && found.length < INSTANCES_ALL);
  return { instances: inOrder(found), more: offset > 0 };
}

// The thumbnails. More are added near the end, or by a button for keyboard users.
function grid(path, instances, context) {
  const shown = instances.map((instance) => described(path, instance, context.config));
  const list = make("ul", { className: "instances" });
  const more = button("", () => add(), { className: "small more" });
  const add = () => {
    const begin = list.children.length;
    const next = shown.slice(begin, begin + DRAWN);
    list.append(...next.map((one, index) => make("li", {}, thumbnail(shown, begin + index, context))));
    const left = shown.length - list.children.length;
    more.hidden = left === 0;
    more.textContent = `Show more of ${count(shown.length, "instance")}`;
    if (left) whenSeen(more, add);
  };
  add();
  return [shown.length ? list : make("p", { className: "soft" }, "No instances."), more];
}

// The shown values of an instance: { path, uid, label, size, frames }; 0 frames without an image.
function described(path, instance, config) {
  const uid = text(instance, TAG.instance);
  const number = text(instance, TAG.number);
  const isImage = value(instance, TAG.rows) !== undefined;
  const frames = Number(value(instance, TAG.frames) ?? 1);
  const sides = `${text(instance, TAG.columns)} × ${text(instance, TAG.rows)}`;
  return {
    uid,
    path: `${path}/instances/${uid}`,
    label: number ? `Instance ${number}` : "Instance without number",
    size: isImage ? sides : "no image",
    frames: config.retrieve && isImage ? frames : 0,
    frameCount: frames,
  };
}

function thumbnail(shown, index, context) {
  const one = shown[index];
  const note = one.frameCount > 1 ? count(one.frameCount, "frame") : one.size;
  const node = make("button", { type: "button" }, picture(one), one.label,
    make("span", { className: "soft" }, note));
  node.disabled = !context.config.retrieve;
  node.addEventListener("click", () => view(shown, index, context));
  return node;
}

function picture(one) {
  if (!one.frames) return make("span", { className: "thumb" }, one.size);
  const src = `${picturePath(one, 1)}?viewport=${THUMB},${THUMB}`;
  const image = make("img", { className: "thumb", alt: "", loading: "lazy", src });
  const missing = () => image.replaceWith(make("span", { className: "thumb" }, "no picture"));
  image.addEventListener("error", missing, { once: true });
  return image;
}
