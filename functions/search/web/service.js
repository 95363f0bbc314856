// Calling the service. Everything that a person types is sent in the body of a POST: the platform logs
// URLs, but not bodies.

const WORDS = {
  401: "You are not signed in to this service.",
  403: "You are not allowed to do this.",
  404: "This does not exist.",
};

export async function ask(path, body, accept = "application/dicom+json") {
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
    throw Object.assign(new Error("The service cannot be reached."), { status: 0 });
  }
  if (!response.ok) throw await problem(response);
  return response;
}

export const askJson = async (path, body) => (await ask(path, body, "application/json")).json();

// An error whose message is for a person; `status` is that of the answer, `wait` the seconds that the
// service asks to wait.
async function problem(response) {
  const { status } = response;
  const wait = Number(response.headers.get("Retry-After"));
  let message = WORDS[status] ?? `The service answered ${status}.`;
  try {
    const { error } = await response.json();
    const about = error.parameter ? `${error.parameter}: ` : "";
    message = `${about}${error.message ?? WORDS[status] ?? error.reason}`;
  } catch {
    // The answer is not from the service.
  }
  message = message[0].toUpperCase() + message.slice(1);
  if (wait) message += ` (try again in ${wait} s)`;
  return Object.assign(new Error(message), { status, wait });
}

// Where the rows after these begin; 0 when there are none.
export function following(response) {
  const link = response.headers.get("Link") ?? "";
  return Number(/offset=(\d+)>; rel="next"/.exec(link)?.[1] ?? 0);
}

// The service's warnings, except that there are more rows.
export function remarks(response) {
  const warning = response.headers.get("Warning") ?? "";
  const texts = [...warning.matchAll(/"([^"]*)"/g)].map((found) => found[1]);
  return texts.filter((text) => !text.startsWith("There are more"));
}

// Work that can wait, a few at a time, so that a person's requests come first.
const AT_ONCE = 4;
const waiting = [];
let running = 0;

export function later(work) {
  waiting.push(work);
  pump();
}

// Waiting work is no longer needed.
export function dropWaiting() {
  waiting.length = 0;
}

function pump() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    // A count that cannot be read stays empty; the list is complete without it.
    waiting.shift()().catch(() => {}).finally(() => { running -= 1; pump(); });
  }
}

// Loads once for all calls; after a failure, again.
export function once(load) {
  let promise;
  return () => {
    promise ??= load().catch((error) => { promise = undefined; throw error; });
    return promise;
  };
}
