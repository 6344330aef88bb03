// Owns what a screen reader hears without asking: the state of an answer, and its sentences as they
// are finished, politely and not letter by letter.

import { byId, el } from "./dom.js";

const MOST_LINES = 8;
const SENTENCE_END = /[.!?:](?=\s)|\n/gu;

/** Speak a sentence when nothing else is spoken.
 * @param {string} text */
export function announce(text) {
  const log = byId("announcements");
  log.append(el("p", { text }));
  while (log.childElementCount > MOST_LINES) log.firstElementChild?.remove();
}

/** Speaks an answer that grows, by whole sentences. */
export class Speaker {
  #spoken = 0;

  /** @param {string} text All that has come. */
  grow(text) {
    let end = this.#spoken;
    for (const match of text.slice(this.#spoken).matchAll(SENTENCE_END))
      end = this.#spoken + match.index + match[0].length;
    this.#say(text.slice(this.#spoken, end));
    this.#spoken = end;
  }

  /** @param {string} text All of the answer. */
  finish(text) {
    this.#say(text.slice(this.#spoken));
    this.#spoken = text.length;
  }

  /** @param {string} text */
  #say(text) {
    if (text.trim()) announce(text.trim());
  }
}
