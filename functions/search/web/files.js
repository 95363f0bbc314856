// Dropped or chosen files to upload: folders are searched, and metadata and its JPEG become one
// file.

export const MOST = 5000; // files at once

// The files of an event's DataTransfer, which can only be read during the event.
export function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const plain = [...transfer.files];
  return entries.length ? walked(entries) : chosen(plain);
}

export const chosen = async (files) => joined(files.map((data) => ({ name: data.name, data })));

async function walked(entries) {
  const files = [];
  const waiting = entries.reverse();
  while (waiting.length && files.length <= MOST) {
    const entry = waiting.pop();
    if (entry.isDirectory) waiting.push(...(await inside(entry)).filter(isScan).reverse());
    else files.push({ name: entry.fullPath.slice(1), data: await fileOf(entry) });
  }
  // Too many are refused: not all were looked at, so pairs may be torn.
  return files.length > MOST ? files : joined(files);
}

// Files in a folder that are not scans: the system's own files, and the index of a medium.
const isScan = (entry) => !entry.name.startsWith(".") && entry.name !== "DICOMDIR";

const fileOf = (entry) => new Promise((done, failed) => { entry.file(done, failed); });

async function inside(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    const some = await new Promise((done, failed) => { reader.readEntries(done, failed); });
    if (!some.length) return entries; // it gives a hundred at a time
    entries.push(...some);
  }
}

// `x.json` and `x.jpg` are a pair (docs/store.md). Their objects would have random names, so they are
// sent as one file, in the form of a store request (PS3.18 section 10.5).
function joined(files) {
  const metadata = new Map();
  for (const file of files) if (stem(file, /\.json$/i)) metadata.set(stem(file, /\.json$/i), file);
  const result = [];
  const taken = new Set();
  for (const file of files) {
    const text = metadata.get(stem(file, /\.jpe?g$/i));
    if (!text || taken.has(text)) continue;
    taken.add(text).add(file);
    result.push({ name: `${text.name} + ${file.name}`, data: request(text.data, file.data) });
  }
  return [...result, ...files.filter((file) => !taken.has(file))];
}

const stem = ({ name }, ending) => (ending.test(name) ? name.replace(ending, "") : undefined);

function request(text, picture) {
  const boundary = crypto.randomUUID();
  return new Blob([
    `--${boundary}\r\nContent-Type: application/dicom+json\r\n\r\n`, text,
    `\r\n--${boundary}\r\nContent-Type: image/jpeg\r\n\r\n`, picture,
    `\r\n--${boundary}--\r\n`,
  ]);
}
