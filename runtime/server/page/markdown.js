// Owns Markdown: text of a model to nodes of the document. `marked` finds the tokens; the nodes are
// made here, so that HTML is shown as text, images are links, and links lead to the web or to mail.

import { Lexer } from "./vendor/marked.esm.js";
import { el } from "./dom.js";

const MOST_CHARACTERS = 200_000;
const DEEPEST = 40;
const SAFE_LINK = /^(https?:\/\/|mailto:)/iu;

/** What was shown last in an element, block by block, so that a stream replaces only what changed.
 * @type {WeakMap<Element, string[]>} */
const shown = new WeakMap();

/**
 * Show Markdown in an element.
 * @param {Element} target
 * @param {string} text
 */
export function showMarkdown(target, text) {
  const blocks = lex(text);
  const before = shown.get(target) ?? [];
  const raws = blocks.map((block) => block.raw);
  let same = 0;
  while (same < before.length && same < raws.length && before[same] === raws[same]) same += 1;
  while (target.childNodes.length > same) target.lastChild?.remove();
  for (const block of blocks.slice(same)) target.append(renderBlock(block, 0));
  shown.set(target, raws);
}

/**
 * Return the tokens of the blocks; a text that is too long or nested too deep is one of plain text.
 * @param {string} text
 * @returns {any[]}
 */
function lex(text) {
  const plain = [{ type: "plain", raw: text, text }];
  if (text.length > MOST_CHARACTERS) return plain;
  try {
    return Lexer.lex(text, { gfm: true, breaks: true }).filter(isShown);
  } catch {
    return plain;
  }
}

/** Whether a token has a node: blank lines and the targets of references have none.
 * @param {any} token */
function isShown(token) {
  return token.type !== "space" && token.type !== "def";
}

/** Blocks by their type. @type {Record<string, (token: any, depth: number) => Node>} */
const BLOCKS = {
  heading: (token, depth) => {
    // The page's own headings come before those of an answer.
    const level = Math.min(6, token.depth + 2);
    return el(`h${level}`, {}, ...inline(token.tokens, depth));
  },
  paragraph: (token, depth) => el("p", {}, ...inline(token.tokens, depth)),
  text: (token, depth) => {
    const children = token.tokens ? inline(token.tokens, depth) : [unescaped(token.text)];
    // One node for each block of the answer, which the stream relies on.
    return depth === 0 ? el("p", {}, ...children) : fragment(children);
  },
  blockquote: (token, depth) => el("blockquote", {}, ...blocks(token.tokens, depth)),
  code: (token) => el("pre", { tabindex: "0" }, el("code", { text: token.text })),
  hr: () => el("hr"),
  list: (token, depth) => {
    const start = token.ordered && token.start !== 1 ? token.start : null;
    const items = token.items.map((/** @type {any} */ item) => listItem(item, depth));
    return el(token.ordered ? "ol" : "ul", { start }, ...items);
  },
  table: (token, depth) => {
    const head = el("tr", {}, ...token.header.map((/** @type {any} */ c) => cell("th", c, depth)));
    const rows = token.rows.map((/** @type {any[]} */ row) =>
      el("tr", {}, ...row.map((each) => cell("td", each, depth))),
    );
    const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows));
    return el("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, table);
  },
  plain: (token) => el("p", { class: "plain", text: token.text }),
};

/** Parts of a line by their type. @type {Record<string, (token: any, depth: number) => Node>} */
const INLINE = {
  strong: (token, depth) => el("strong", {}, ...inline(token.tokens, depth)),
  em: (token, depth) => el("em", {}, ...inline(token.tokens, depth)),
  del: (token, depth) => el("del", {}, ...inline(token.tokens, depth)),
  codespan: (token) => el("code", { text: token.text }),
  br: () => el("br"),
  link: (token, depth) => link(token.href, token.raw, inline(token.tokens, depth)),
  image: (token) => link(token.href, token.raw, [`image: ${token.text || token.href}`]),
  text: (token, depth) =>
    fragment(token.tokens ? inline(token.tokens, depth) : [unescaped(token.text)]),
  escape: (token) => document.createTextNode(token.text),
};

/**
 * @param {any} token
 * @param {number} depth
 * @returns {Node}
 */
function renderBlock(token, depth) {
  if (depth > DEEPEST) return document.createTextNode(token.raw);
  const render = Object.hasOwn(BLOCKS, token.type) ? BLOCKS[token.type] : null;
  if (render) return render(token, depth);
  return Object.hasOwn(INLINE, token.type)
    ? INLINE[token.type](token, depth)
    : el("p", { class: "plain", text: token.raw.trimEnd() }); // HTML, and what we do not know
}

/**
 * @param {any[]} tokens
 * @param {number} depth
 */
function blocks(tokens, depth) {
  return tokens.filter(isShown).map((token) => renderBlock(token, depth + 1));
}

/**
 * @param {any[]} tokens
 * @param {number} depth
 * @returns {Node[]}
 */
function inline(tokens, depth) {
  return tokens.map((token) =>
    depth <= DEEPEST && Object.hasOwn(INLINE, token.type)
      ? INLINE[token.type](token, depth + 1)
      : document.createTextNode(token.raw),
  );
}

/**
 * @param {any} item
 * @param {number} depth
 */
function listItem(item, depth) {
  // The box of a task is made from the item; newer lexers have a token for it, too.
  const tokens = item.tokens.filter((/** @type {any} */ token) => token.type !== "checkbox");
  const box = item.task
    ? el("input", {
        type: "checkbox",
        disabled: true,
        checked: Boolean(item.checked),
        "aria-label": item.checked ? "done" : "to do",
      })
    : null;
  return el("li", { class: item.task ? "task" : null }, box, ...blocks(tokens, depth));
}

/**
 * @param {string} tag
 * @param {any} token
 * @param {number} depth
 */
function cell(tag, token, depth) {
  const align = ["left", "center", "right"].includes(token.align) ? `align-${token.align}` : null;
  return el(tag, { class: align }, ...inline(token.tokens, depth));
}

/**
 * @param {string} href
 * @param {string} raw Shown instead where the link leads elsewhere.
 * @param {(Node | string)[]} children
 */
function link(href, raw, children) {
  if (!SAFE_LINK.test(href)) return document.createTextNode(raw);
  return el("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

/** @type {Record<string, string>} */
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", nbsp: "\u00a0" };

/** Return a text with the common character references of HTML as characters.
 * @param {string} text */
function unescaped(text) {
  return text.replace(/&(amp|lt|gt|quot|#39|nbsp);/gu, (_, name) => ENTITIES[name]);
}

/** @param {(Node | string)[]} children */
function fragment(children) {
  const made = document.createDocumentFragment();
  made.append(...children);
  return made;
}
