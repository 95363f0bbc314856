// Finding and making elements. Data of the store is always inserted as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const { dataset, aria, role, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  if (role) node.setAttribute("role", role);
  Object.assign(node.dataset, dataset ?? {});
  for (const [name, content] of Object.entries(aria ?? {})) node.setAttribute(name, content);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function button(text, action, properties = {}) {
  const node = make("button", { type: "button", className: "small", ...properties }, text);
  node.addEventListener("click", action);
  return node;
}

export function complain(node, error) {
  node.textContent = error.message;
  node.hidden = false;
}

// Opens or closes the part of a toggle; it is filled when it is first opened.
export async function unfold(toggle, part, place, fill) {
  const opening = toggle.getAttribute("aria-expanded") !== "true";
  toggle.setAttribute("aria-expanded", String(opening));
  part.hidden = !opening;
  if (!opening || place.dataset.filled) return;
  place.dataset.filled = "yes";
  place.replaceChildren(make("p", { className: "soft loading", role: "status" }, "Loading…"));
  try {
    place.replaceChildren(...await fill());
  } catch (error) {
    delete place.dataset.filled; // opened again, it is asked for again
    place.replaceChildren(make("p", { role: "alert" }, error.message));
  }
}

// Copies a text and shows that on the button.
export function copyButton(label, content, properties = {}) {
  const node = button(label, async () => {
    try {
      await navigator.clipboard.writeText(content);
      node.textContent = "Copied";
    } catch {
      node.textContent = "The browser does not allow it";
    }
    setTimeout(() => { node.textContent = label; }, 2000);
  }, properties);
  return node;
}

// Calls back when an element comes near the visible part of the page, once.
export function whenSeen(node, action) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    action();
  }, { rootMargin: "300px" });
  observer.observe(node);
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
