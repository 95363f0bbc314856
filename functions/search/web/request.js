// "Show the request": the search as curl and as Python, for use in a script.

import { $, copyButton } from "./dom.js";

const IN_BODY = "# The values are in the body: URLs are logged by platforms and proxies.";
const IN_URL = "# dicomweb-client puts the values into the URL, which platforms and proxies log:\n"
  + "# for names and IDs of patients, use the POST of the curl command.";

export function showRequest(query) {
  $("curl").textContent = curl(query);
  $("python").textContent = python(query);
  $("copy-curl").replaceChildren(copyButton("Copy", $("curl").textContent, {
    aria: { "aria-label": "Copy the curl command" },
  }));
  $("copy-python").replaceChildren(copyButton("Copy", $("python").textContent, {
    aria: { "aria-label": "Copy the Python program" },
  }));
  $("request").showModal();
}

const base = () => new URL(".", location.href).href.replace(/\/$/, "");
const isLocal = () => ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);

// In single quotes a shell changes nothing; only the quote itself must be escaped.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(query) {
  const lines = [IN_BODY, `curl ${quoted(`${base()}/studies/_query`)} \\`];
  if (!isLocal()) lines.push('  -H "Authorization: Bearer $(gcloud auth print-identity-token)" \\');
  lines.push(`  --json ${quoted(JSON.stringify({ ...query, limit: 100 }))}`);
  return lines.join("\n");
}

// A JSON string is a Python string too, if its lone surrogates are escaped, as by JSON.stringify.
const literal = (text) => JSON.stringify(text);

function python(query) {
  const { includefield, fuzzymatching, ...filters } = query;
  const named = filters.PatientName || filters.PatientID || filters.AccessionNumber;
  const lines = ["from dicomweb_client import DICOMwebClient", ""];
  if (named) lines.push(IN_URL);
  lines.push(`client = DICOMwebClient(${literal(base())}${isLocal() ? "" : ", headers=HEADERS"})`);
  if (!isLocal()) {
    lines.splice(1, 0, "", "# TOKEN: gcloud auth print-identity-token",
      'HEADERS = {"Authorization": f"Bearer {TOKEN}"}');
  }
  lines.push("studies = client.search_for_studies(");
  if (fuzzymatching) lines.push("    fuzzymatching=True,");
  const pairs = Object.entries(filters).map(([name, text]) => `${literal(name)}: ${literal(text)}`);
  if (pairs.length) lines.push(`    search_filters={${pairs.join(", ")}},`);
  lines.push(`    fields=[${includefield.map(literal).join(", ")}],`, "    limit=100,", ")");
  lines.push("for study in studies:", '    print(study["0020000D"]["Value"][0])');
  return lines.join("\n");
}
