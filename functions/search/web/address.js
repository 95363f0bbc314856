// The parts of a search in the page's URL, so that it can be saved and Back works: dates, modality,
// order and page. Values that may name a patient are never in it. They are remembered until the page is
// loaded again, by a key in the entry of the tab's history.

export const SIZES = [25, 50, 100];
export const ORDERS = ["patient", "date", "description", "accession"];
const START = { from: "", to: "", modality: "", sort: "-date", page: 1, size: SIZES[0] };
const DAY = /^[12]\d{3}-\d\d-\d\d$/;
const MODALITY = /^[A-Z][A-Z0-9 _]{0,15}$/;
const remembered = new Map();
const loaded = Date.now(); // in the keys, since entries of before a reload are still there after it

// The search in the URL and this tab's memory. A malformed part is left out.
export function current() {
  const given = new URLSearchParams(location.hash.slice(1));
  const search = { ...START, patient: remembered.get(history.state?.search) ?? {} };
  for (const name of ["from", "to"]) if (DAY.test(given.get(name))) search[name] = given.get(name);
  if (MODALITY.test(given.get("modality") ?? "")) search.modality = given.get("modality");
  if (ORDERS.includes(given.get("sort")?.replace("-", ""))) search.sort = given.get("sort");
  if (SIZES.includes(Number(given.get("size")))) search.size = Number(given.get("size"));
  if (/^[1-9]\d{0,3}$/.test(given.get("page") ?? "")) search.page = Number(given.get("page"));
  return search;
}

// Makes this search the tab's current one, as a new entry of its history.
export function push(search) {
  const parameters = new URLSearchParams();
  for (const [name, start] of Object.entries(START)) {
    if (search[name] !== start) parameters.set(name, search[name]);
  }
  const key = `${loaded}-${remembered.size}`;
  remembered.set(key, search.patient);
  const hash = parameters.size ? `#${parameters}` : "";
  history.pushState({ search: key }, "", `${location.pathname}${location.search}${hash}`);
}
