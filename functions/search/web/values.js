// Reading and showing values of DICOM JSON.

export const TAG = {
  name: "00100010", id: "00100020", born: "00100030", sex: "00100040", date: "00080020",
  time: "00080030", accession: "00080050", description: "00081030", study: "0020000D",
  series: "0020000E", instance: "00080018", modality: "00080060", seriesNumber: "00200011",
  seriesText: "0008103E", number: "00200013", frames: "00280008", rows: "00280010",
  columns: "00280011", position: "00200032", orientation: "00200037",
};

export const value = (row, tag) => row[tag]?.Value?.[0];
export const text = (row, tag) => String(value(row, tag) ?? "");

export function person(element) {
  const name = element?.Value?.[0];
  if (!name) return "";
  const forms = [tidy(name.Alphabetic), tidy(name.Ideographic)].filter(Boolean);
  return forms.length > 1 ? `${forms[0]} (${forms[1]})` : forms[0] ?? "";
}

function tidy(form) {
  return (form ?? "").split("^").map((part) => part.trim()).filter(Boolean).join(", ");
}

export function date(digits) {
  if (!/^\d{8}$/.test(digits)) return digits;
  return `${digits.slice(0, 4)}-${digits.slice(4, 6)}-${digits.slice(6)}`;
}

export function time(digits) {
  return /^\d{4}/.test(digits) ? `${digits.slice(0, 2)}:${digits.slice(2, 4)}` : "";
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function size(bytes) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let [number, unit] = [bytes, 0];
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${unit ? number.toFixed(1) : number} ${units[unit]}`;
}

// Instances in the order in which they were taken: by number, and where that is missing or the
// same, by the place along the normal of their plane (PS3.3 C.7.6.2).
export function inOrder(instances) {
  const keyed = instances.map((instance) => ({
    instance, number: Number(value(instance, TAG.number) ?? Infinity), depth: depth(instance),
  }));
  keyed.sort((a, b) => compare(a.number, b.number) || compare(a.depth, b.depth));
  return keyed.map((one) => one.instance);
}

function depth(instance) {
  const place = instance[TAG.position]?.Value ?? [];
  if (place.length !== 3) return Infinity;
  const [a, b, c, d, e, f] = instance[TAG.orientation]?.Value ?? [1, 0, 0, 0, 1, 0];
  const normal = [b * f - c * e, c * d - a * f, a * e - b * d];
  return place[0] * normal[0] + place[1] * normal[1] + place[2] * normal[2];
}

export function compare(a, b) {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
