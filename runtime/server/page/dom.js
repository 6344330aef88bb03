// Owns how elements are made: with text, attributes and listeners, and never from HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [props] `text`, `class`, listeners as `onclick`, properties that are
 *   booleans, and attributes. A value of null or undefined is left out.
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElement}
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") Reflect.set(made, name, value);
    else made.setAttribute(name, String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

/**
 * Make an icon of the document's symbols, which assistive technology passes over.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/**
 * Make a button that shows an icon only; its label is spoken, and shown as a tooltip.
 * @param {string} symbol
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 */
export function iconButton(symbol, label, onclick) {
  const props = { type: "button", class: "icon-button", "aria-label": label, title: label, onclick };
  return el("button", props, icon(symbol));
}

/**
 * Return an element of the document by its id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the document has no #${id}`);
  return found;
}
