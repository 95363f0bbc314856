// Sending one file to the landing bucket. The service begins an upload there, and the file goes from
// here to Cloud Storage: a resumable upload, which continues after a fault of the network.

import { askJson } from "./service.js";

const TRIES = 6; // without progress
const FIRST_WAIT_MS = 1000;
const LOST = [404, 410]; // the upload does not exist any more
// 0: the network; 308: some of the file is still to be sent.
const PASSING = [0, 308, 408, 429, 500, 502, 503, 504, ...LOST];

// A signal that is aborted ends it early.
export const pause = (ms, signal) => new Promise((resolve) => {
  setTimeout(resolve, ms);
  signal?.addEventListener("abort", resolve, { once: true });
});

// Returns the request id for its outcome. Throws an error with a message for a person, or any error
// when the signal is aborted.
export async function send(data, onProgress, signal) {
  let upload = null;
  let begun = false; // whether some of it may be there
  let furthest = 0; // bytes that were there at one time
  for (let attempt = 1; ; attempt += 1) {
    try {
      await checkReadable(data);
      signal.throwIfAborted();
      upload ??= await askJson("uploads", { size: data.size });
      const there = begun ? await state(upload.url, data.size, signal) : 0;
      begun = true;
      if (there > furthest) {
        furthest = there;
        attempt = 1; // an upload that makes progress is not given up
      }
      if (there < data.size) await put(upload.url, data, there, onProgress, signal);
      return upload.request_id;
    } catch (error) {
      if (signal.aborted || attempt === TRIES || !PASSING.includes(error.status)) throw error;
      if (upload && LOST.includes(error.status)) {
        upload = null;
        begun = false;
      }
      await pause(error.wait ? error.wait * 1000 : FIRST_WAIT_MS * 2 ** (attempt - 1), signal);
    }
  }
}

// A browser reports a file that it cannot read, such as one on a medium that was taken out, as a
// fault of the network.
async function checkReadable(data) {
  try {
    await data.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error("The file was deleted or changed since it was chosen.");
  }
}

// The number of bytes that were received.
async function state(url, size, signal) {
  const answer = await request(url, null, { "Content-Range": `bytes */${size}` }, signal);
  if (answer.status !== 308) return whole(answer, size);
  const last = /^bytes=0-(\d+)$/.exec(answer.getResponseHeader("Range") ?? "");
  return last ? Number(last[1]) + 1 : 0; // bytes that are there are ignored when they are sent again
}

async function put(url, data, from, onProgress, signal) {
  const size = data.size;
  const headers = from ? { "Content-Range": `bytes ${from}-${size - 1}/${size}` } : {};
  const rest = data.slice(from);
  const answer = await request(url, rest, headers, signal, (loaded) => onProgress(from + loaded));
  whole(answer, size);
}

// The size of a complete object, which must be that of the file.
function whole(answer, size) {
  const { status } = answer;
  if (status !== 200 && status !== 201) {
    throw fault(status, status ? `The bucket answered ${status}.` : "The file could not be sent.");
  }
  if (Number(JSON.parse(answer.responseText).size) !== size) {
    throw fault(LOST[0], "The size in the bucket is wrong.");
  }
  return size;
}

const fault = (status, message) => Object.assign(new Error(message), { status });

// Only XMLHttpRequest reports how much of a body was sent.
function request(url, body, headers, signal, onProgress = () => {}) {
  signal.throwIfAborted(); // there is no event for an abort in the past
  return new Promise((resolve) => {
    const asked = new XMLHttpRequest();
    asked.open("PUT", url);
    for (const [name, content] of Object.entries(headers)) asked.setRequestHeader(name, content);
    asked.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    asked.addEventListener("loadend", () => resolve(asked));
    signal.addEventListener("abort", () => asked.abort());
    asked.send(body);
  });
}
