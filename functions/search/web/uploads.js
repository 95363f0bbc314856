// Uploads: files that are dropped on the page or chosen, and their outcomes.

import { $, complain, make } from "./dom.js";
import { MOST, chosen, dropped } from "./files.js";
import { pause, send } from "./sending.js";
import { askJson } from "./service.js";
import { count, size } from "./values.js";

const SENT_AT_ONCE = 3;
const ASKED_AT_ONCE = 8;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 5000;
const WATCHED_MS = 12 * 3600_000;
const TOLD_EACH_MS = 300;

// By outcome: the text for a file.
const WORDS = {
  stored: "Stored", duplicate: "Duplicate", conflict: "Conflict", rejected: "Rejected",
  partial: "Partly stored", skipped: "Skipped", superseded: "Superseded",
};
const GOOD = ["stored", "duplicate"];
// The progress of the files, for the summary.
const SUMMARY = [
  ["waiting", "to send"], ["sending", "being sent"], ["sent", "sent, no outcome yet"],
  ...Object.keys(WORDS).map((word) => [word, word]), ["failed", "not sent"], ["stopped", "stopped"],
];
const MEANING = { duplicate: "the DICOM store already had it, byte for byte" };

let limits = { max_bytes: 0, states: false };
const uploads = []; // of this page, the latest last
const queue = [];
const unknown = new Map(); // request id to upload: those whose outcome is asked for
let stopping = new AbortController();
let running = 0;
let isWatching = false;
let isTelling = false;

export function offerUploads(choices, searchAgain) {
  limits = choices;
  $("upload").hidden = false;
  $("upload").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", async () => {
    add(await chosen([...$("files").files]));
    $("files").value = ""; // the same file can be chosen again
  });
  $("uploads-stop").addEventListener("click", stop);
  $("uploads-again").addEventListener("click", again);
  $("uploads-search").addEventListener("click", searchAgain);
  takeDrops();
}

function takeDrops() {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (isOver) => { $("drop").hidden = !isOver; };
  const take = (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // or the browser opens the file
    event.dataTransfer.dropEffect = "copy";
    mark(true);
  };
  addEventListener("dragenter", take);
  addEventListener("dragover", take);
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) mark(false); });
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(false);
    const files = dropped(event.dataTransfer);
    try {
      add(await files);
    } catch {
      problem("The dropped files cannot be read.");
    }
  });
  addEventListener("beforeunload", (event) => { if (running || queue.length) event.preventDefault(); });
}

function problem(message) {
  $("uploads").hidden = false;
  complain($("uploads-problem"), new Error(message));
}

function add(files) {
  $("uploads-problem").hidden = true;
  if (!files.length) {
    problem("There are no files to upload.");
    return;
  }
  if (files.length > MOST) {
    problem(`These are more than ${count(MOST, "file")}: put them into one zip file.`);
    return;
  }
  for (const file of files) {
    const upload = listed(file);
    uploads.push(upload);
    const limit = limits.max_bytes;
    if (!file.data.size) refuse(upload, "The file is empty.");
    else if (file.data.size > limit) refuse(upload, `Larger than ${size(limit)}.`);
    else queue.push(upload);
  }
  $("uploads").hidden = !uploads.length;
  $("uploads").scrollIntoView({ block: "nearest" });
  tell();
  pump();
}

// The file's name is shown here and not sent.
function listed({ name, data }) {
  const bar = make("progress", { max: data.size || 1, value: 0, aria: { "aria-label": `Sent of ${name}` } });
  const text = make("span", { className: "state" }, "Waiting");
  const node = make("li", { className: "waiting" },
    make("span", { className: "name" }, name),
    make("span", { className: "soft size" }, size(data.size)), text, bar);
  $("uploads-list").append(node);
  return { data, node, bar, text, step: "waiting" };
}

function refuse(upload, why) {
  upload.data = null; // it need not be tried again
  end(upload, "failed", why);
}

function pump() {
  while (running < SENT_AT_ONCE && queue.length) {
    running += 1;
    sendOne(queue.shift(), stopping.signal).finally(() => { running -= 1; pump(); });
  }
}

async function sendOne(upload, signal) {
  step(upload, "sending", "Sending");
  try {
    const id = await send(upload.data, (sent) => { upload.bar.value = sent; }, signal);
    upload.data = null; // the browser need not keep it
    sent(upload, id);
  } catch (error) {
    if (signal.aborted) end(upload, "stopped", "Stopped");
    else end(upload, "failed", `Not sent. ${error.message}`);
  }
}

function sent(upload, id) {
  upload.bar.hidden = true;
  if (!limits.states) {
    end(upload, "sent", "Sent. Its outcome will be published on the outcomes topic.");
    return;
  }
  step(upload, "sent", "Sent; waiting for its outcome");
  upload.until = Date.now() + WATCHED_MS;
  unknown.set(id, upload);
  watch();
}

function stop() {
  stopping.abort();
  stopping = new AbortController();
  for (const upload of queue.splice(0)) end(upload, "stopped", "Stopped");
}

// Send files again that were not sent, or stopped.
const isLeft = ({ data, step: now }) => data && (now === "failed" || now === "stopped");

function again() {
  for (const upload of uploads.filter(isLeft)) {
    upload.bar.value = 0;
    upload.bar.hidden = false;
    step(upload, "waiting", "Waiting");
    queue.push(upload);
  }
  pump();
}

// Outcomes

async function watch() {
  if (isWatching) return;
  isWatching = true;
  for (let wait = FIRST_WAIT_MS; unknown.size;) {
    if (wait) await pause(wait);
    const some = [...unknown].slice(0, ASKED_AT_ONCE);
    const known = await Promise.all(some.map(([id, upload]) => look(id, upload)));
    // If all of these have an outcome, the next ones probably have one too.
    if (!known.includes(false)) wait = 0;
    else if (known.includes(true)) wait = FIRST_WAIT_MS;
    else wait = Math.min(Math.max(wait, FIRST_WAIT_MS) * 1.5, LONGEST_WAIT_MS);
  }
  isWatching = false;
}

// Whether the outcome of an upload is known now.
async function look(id, upload) {
  unknown.delete(id);
  let found = null;
  try {
    found = await askJson(`requests/${id}`);
  } catch {
    // The service did not answer.
  }
  if (found?.state === "done") {
    show(upload, found.outcome);
    return true;
  }
  if (Date.now() < upload.until) unknown.set(id, upload); // behind the others
  else end(upload, "sent", "No outcome yet: it will be published on the outcomes topic.");
  return false;
}

function show(upload, { outcome, reason, detail, counts }) {
  const { members, ...words } = counts ?? {};
  const parts = Object.entries(words).map(([word, number]) => `${number} ${word}`);
  const inside = members ? `${count(members, "file")} in it: ${parts.join(", ")}` : "";
  const isPlain = GOOD.includes(outcome);
  const reasons = [reason === outcome ? "" : reason, detail].filter(Boolean);
  const why = isPlain ? MEANING[outcome] : reasons.join(": ");
  const about = [inside, members && isPlain ? "" : why].filter(Boolean).join("; ");
  end(upload, outcome, [WORDS[outcome] ?? outcome, about].filter(Boolean).join(": "));
}

function step(upload, name, text) {
  upload.step = name;
  upload.text.textContent = text;
  upload.node.className = name;
  tell();
}

function end(upload, name, text) {
  step(upload, name, text);
  upload.bar.hidden = true;
  if (GOOD.includes(name)) upload.node.className = "done";
  else if (name !== "sent" && name !== "stopped") {
    upload.node.className = "failed";
    $("uploads-list").prepend(upload.node); // what needs a person comes first
  }
}

function summary() {
  const parts = [];
  for (const [name, label] of SUMMARY) {
    const number = uploads.filter((upload) => upload.step === name).length;
    if (number) parts.push(`${number} ${label}`);
  }
  return `${count(uploads.length, "file")}: ${parts.join(", ")}`;
}

// The summary, a few times a second at most: a screen reader reads it aloud.
function tell() {
  if (isTelling) return;
  isTelling = true;
  setTimeout(() => {
    isTelling = false;
    $("uploads-status").textContent = summary();
    $("uploads-stop").hidden = !running && !queue.length;
    $("uploads-again").hidden = !uploads.some(isLeft);
    $("uploads-search").hidden = !uploads.some(({ step: now }) => now === "stored" || now === "partial");
  }, TOLD_EACH_MS);
}
