// Owns what a conversation is: its shape, its title, and what of it a request says.

/**
 * @typedef {object} ImageRef An image of a message; the store keeps its file under the same id.
 * @property {string} id
 * @property {string} name
 * @property {string} type Media type of the file that is sent.
 * @property {number} width Pixels.
 * @property {number} height Pixels.
 *
 * @typedef {object} Stats Of an answer; times in seconds.
 * @property {number | null} firstToken From the request to the first text.
 * @property {number | null} tokensPerSecond After the first text.
 * @property {number | null} promptTokens
 * @property {number | null} completionTokens
 * @property {number | null} cachedTokens Of the prompt, which were not computed again.
 *
 * @typedef {object} Failure
 * @property {string} kind One of `api.js`.
 * @property {string} text In words.
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {"user" | "assistant"} role
 * @property {string} text
 * @property {ImageRef[]} images
 * @property {string | null} [model] Which answered.
 * @property {Stats | null} [stats]
 * @property {"stop" | "length" | "stopped" | null} [finish] `stopped`: by the user.
 * @property {Failure | null} [failure]
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title
 * @property {boolean} named Whether the user has named it.
 * @property {number} created Milliseconds since 1970.
 * @property {number} updated Milliseconds since 1970.
 * @property {Message[]} messages
 */

const TITLE_LENGTH = 60;
export const UNTITLED = "New conversation";

/** Return a new id. `crypto.randomUUID` is missing where a server is not reached by TLS. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @returns {Conversation} */
export function newConversation() {
  const now = Date.now();
  return { id: newId(), title: UNTITLED, named: false, created: now, updated: now, messages: [] };
}

/**
 * @param {string} text
 * @param {ImageRef[]} images
 * @returns {Message}
 */
export function question(text, images) {
  return { id: newId(), role: "user", text, images };
}

/**
 * @param {string} model
 * @returns {Message}
 */
export function emptyAnswer(model) {
  const state = { finish: null, stats: null, failure: null };
  return { id: newId(), role: "assistant", text: "", images: [], model, ...state };
}

/**
 * Name a conversation by its first question, unless the user has named it.
 * @param {Conversation} conversation
 */
export function retitle(conversation) {
  if (conversation.named) return;
  const first = conversation.messages.find((message) => message.role === "user");
  const text = first?.text.trim().replace(/\s+/gu, " ") ?? "";
  const letters = Array.from(text);
  const cut = letters.length > TITLE_LENGTH;
  conversation.title = cut ? `${letters.slice(0, TITLE_LENGTH - 1).join("")}…` : text || UNTITLED;
}

/**
 * Return the messages of a request: OpenAI's, with images as data URLs in front of their text.
 * @param {Message[]} messages
 * @param {string} system Left out if empty.
 * @param {(image: ImageRef) => Promise<string>} dataUrl
 */
export async function requestMessages(messages, system, dataUrl) {
  const made = [];
  if (system.trim()) made.push({ role: "system", content: system });
  for (const { role, text, images } of messages) {
    if (role === "assistant") {
      if (text) made.push({ role, content: text });
      continue;
    }
    const urls = await Promise.all(images.map(dataUrl));
    const shown = urls.map((url) => ({ type: "image_url", image_url: { url } }));
    made.push({ role, content: shown.length ? [...shown, { type: "text", text }] : text });
  }
  return made;
}
