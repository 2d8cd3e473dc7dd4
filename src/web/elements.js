// Makes elements. Text is only ever set as text, so that nothing a model or a file says becomes
// markup.

const SVG = "http://www.w3.org/2000/svg";

/// An element with attributes (those that begin with `on` are listeners) and children.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/// The same in a drawing.
export function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/// One of the icons that stand in the page.
export function icon(name) {
  return shape("svg", { class: "icon", "aria-hidden": "true" }, shape("use", { href: `#icon-${name}` }));
}

/// The page's own element of this id.
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/// Puts a text where it can be pasted from. The clipboard's own interface is there over HTTPS and
/// on this machine only; elsewhere the older way helps.
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const holder = element("textarea", { readonly: true, class: "visually-hidden" });
  holder.value = text;
  const before = document.activeElement;
  (document.querySelector("dialog[open]") ?? document.body).append(holder);
  holder.select();
  const copied = document.execCommand("copy");
  holder.remove();
  before?.focus();
  if (!copied) throw new Error("The browser does not let this page copy. Select the text instead.");
}
