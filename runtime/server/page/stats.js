// Owns how fast an answer was: its times while it streams, and the line of text about them.

/** @import { Stats } from "./conversation.js" */

/** Text that comes within less came at once, and says nothing about the speed; in seconds. */
const SHORTEST = 0.01;

/** The times of an answer that streams. */
export class Timer {
  #begin = performance.now();
  /** @type {number | null} */
  #first = null;
  #last = 0;

  /** Note that text has come. */
  tick() {
    this.#last = performance.now();
    this.#first ??= this.#last;
  }

  /**
   * @param {any} usage OpenAI's; null if the answer was not finished.
   * @returns {Stats}
   */
  stats(usage) {
    const completion = count(usage?.completion_tokens);
    const seconds = this.#first === null ? 0 : (this.#last - this.#first) / 1000;
    const isMeasured = completion !== null && completion > 1 && seconds > SHORTEST;
    return {
      firstToken: this.#first === null ? null : (this.#first - this.#begin) / 1000,
      tokensPerSecond: isMeasured ? (completion - 1) / seconds : null,
      promptTokens: count(usage?.prompt_tokens),
      completionTokens: completion,
      cachedTokens: count(usage?.prompt_tokens_details?.cached_tokens),
    };
  }
}

/** @param {unknown} value */
function count(value) {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : null;
}

/**
 * Say in words what was measured, part by part; what is unknown is left out.
 * @param {Stats} stats
 * @returns {string[]}
 */
export function describeStats(stats) {
  const { firstToken, tokensPerSecond, promptTokens, completionTokens, cachedTokens } = stats;
  const parts = [];
  if (completionTokens !== null) parts.push(amount(completionTokens, "token"));
  if (tokensPerSecond !== null) parts.push(`${short(tokensPerSecond)} tokens/s`);
  if (firstToken !== null) parts.push(`first after ${short(firstToken)} s`);
  if (promptTokens !== null && cachedTokens !== null)
    parts.push(`${cachedTokens} of ${amount(promptTokens, "prompt token")} cached`);
  return parts;
}

/**
 * @param {number} value
 * @param {string} unit
 */
function amount(value, unit) {
  return `${value} ${unit}${value === 1 ? "" : "s"}`;
}

/** @param {number} value */
function short(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
