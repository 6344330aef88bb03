// Owns the requests to the server: OpenAI's API at the page's own address, and its errors in words.

import { readEvents } from "./sse.js";

const KEY = "mvlm.key";

/**
 * A request that failed.
 *
 * Kinds: `key`, `busy`, `unavailable`, `context`, `model`, `large`, `timeout`, `request`, `server`,
 * `network` (no connection), `cut` (the connection ended within an answer).
 */
export class ApiError extends Error {
  /**
   * @param {string} kind
   * @param {string} message In words, for the user.
   */
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** The API key; it is kept until the tab is closed. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  /** @param {string} value */
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/**
 * @typedef {object} Model
 * @property {string} id
 * @property {number | null} context Positions.
 */

/**
 * List the models.
 * @returns {Promise<Model[]>}
 * @throws {ApiError}
 */
export async function listModels() {
  const response = await request("v1/models", {});
  const { data } = await response.json();
  return data.map((/** @type {any} */ each) => ({
    id: String(each.id),
    context: Number.isInteger(each.max_model_len) ? each.max_model_len : null,
  }));
}

/**
 * @typedef {object} Piece
 * @property {string} text
 * @property {string | null} finish
 * @property {any} usage With the last piece; else null.
 */

/**
 * Ask, and yield the answer as it comes.
 * @param {object} body Of `/v1/chat/completions`.
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece, void, void>}
 * @throws {ApiError} Also a DOMException named AbortError, after the signal.
 */
export async function* streamAnswer(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const cut = new ApiError("cut", "The connection ended before the answer did.");
  if (!response.body) throw cut;
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") return;
      yield piece(JSON.parse(data));
    }
  } catch (error) {
    // The browser's own errors: a connection that broke, or an event that is no JSON.
    if (error instanceof TypeError || error instanceof SyntaxError) throw cut;
    throw error;
  }
  throw cut;
}

/**
 * @param {any} event
 * @returns {Piece}
 */
function piece(event) {
  if (event.error) throw failure(event.error.code === "timeout" ? 504 : 500, event.error, null);
  const choice = event.choices?.[0];
  return {
    text: choice?.delta?.content ?? "",
    finish: choice?.finish_reason ?? null,
    usage: event.usage ?? null,
  };
}

/**
 * @param {string} path Relative to the page, which may lie below a proxy's prefix.
 * @param {RequestInit} options
 */
async function request(path, options) {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error instanceof TypeError) {
      const words = "The server cannot be reached. See whether it is still running, then try again.";
      throw new ApiError("network", words);
    }
    throw error;
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => null);
  throw failure(response.status, document?.error, response.headers.get("Retry-After"));
}

/**
 * @param {number} status
 * @param {any} error OpenAI's, or nothing, as from a proxy.
 * @param {string | null} retryAfter
 */
function failure(status, error, retryAfter) {
  const told = typeof error?.message === "string" ? error.message : "";
  const seconds = /^\d{1,4}$/u.test(retryAfter ?? "") ? Number(retryAfter) : 0;
  const wait = seconds > 1 ? `in ${seconds} seconds` : "in a moment";
  if (status === 401) return new ApiError("key", "The server asks for a valid key.");
  if (status === 429)
    return new ApiError("busy", `The server has as many questions as it takes. Try again ${wait}.`);
  if (status === 503)
    // It starts or stops, or has no room for the model: it says which.
    return new ApiError(
      "unavailable",
      `The server cannot answer now${told ? ` (${told})` : ""}. Try again ${wait}.`,
    );
  if (error?.code === "context_length_exceeded") {
    const words =
      "The conversation is longer than the model's context. Edit an earlier question, use fewer " +
      "images, or begin a new conversation.";
    return new ApiError("context", words);
  }
  if (error?.code === "model_not_found")
    return new ApiError("model", "The server has no such model. Choose another in the settings.");
  if (status === 413)
    return new ApiError("large", "The images are too large for the server. Use fewer of them.");
  if (status === 504 || status === 408)
    return new ApiError("timeout", "The answer took longer than the server allows.");
  if (status >= 500)
    return new ApiError("server", `The server has failed (status ${status}).`);
  return new ApiError("request", `The server refused: ${told || `status ${status}`}`);
}
