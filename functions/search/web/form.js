// The form: from its fields to a search, and back.

import { $ } from "./dom.js";

const PATIENT = { name: "PatientName", id: "PatientID", accession: "AccessionNumber" };

// The search in the form, from its first page on.
export function typed(before) {
  const patient = {};
  for (const field of Object.keys(PATIENT)) {
    const content = $(field).value.trim();
    if (content) patient[field] = content;
  }
  const modality = $("modality").value.trim().toUpperCase();
  return { ...before, patient, from: $("from").value, to: $("to").value, modality, page: 1 };
}

export function fill(search) {
  for (const field of Object.keys(PATIENT)) $(field).value = search.patient[field] ?? "";
  for (const field of ["from", "to", "modality"]) $(field).value = search[field];
  if ([...$("search").querySelectorAll(".extra input")].some((input) => input.value)) showFilters(true);
}

// In the form of the service.
export function query(search) {
  const wanted = { includefield: ["StudyDescription"] };
  for (const [field, keyword] of Object.entries(PATIENT)) {
    if (search.patient[field]) wanted[keyword] = search.patient[field];
  }
  if (wanted.PatientName) wanted.fuzzymatching = true;
  const days = range(search.from, search.to);
  if (days) wanted.StudyDate = days;
  if (search.modality) wanted.Modality = search.modality;
  return wanted;
}

export function range(from, to) {
  if (!from && !to) return "";
  const [first, last] = [from, to].map((day) => day.replaceAll("-", ""));
  return first === last ? first : `${first}-${last}`;
}

// On a narrow screen the other fields are hidden until they are opened.
export function showFilters(areShown) {
  $("search").classList.toggle("all", areShown);
  $("more-filters").setAttribute("aria-expanded", String(areShown));
  $("more-filters").textContent = areShown ? "Fewer filters" : "More filters";
}
$("more-filters").addEventListener("click", () => showFilters(!$("search").classList.contains("all")));
// A field in which the browser finds a mistake must be visible.
$("search").addEventListener("invalid", () => showFilters(true), true);
