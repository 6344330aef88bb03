// Owns the file of exported conversations: how it is written, and how one that comes from anywhere
// is checked before anything of it is kept.

/** @import { Conversation, ImageRef, Message, Stats } from "./conversation.js" */
/** @import { Store } from "./store.js" */

import { newId } from "./conversation.js";
import { toDataUrl } from "./images.js";

const FORMAT = "mvlm-conversations";
const VERSION = 1;
const MOST_BYTES = 512 << 20;
const MOST_CONVERSATIONS = 10_000;
const MOST_MESSAGES = 10_000;
const MOST_IMAGES = 64;
const MOST_CHARACTERS = 1 << 20;
const IMAGE_TYPES = ["image/jpeg", "image/png", "image/webp"];

/** A file that is not imported; its message is for the user. */
export class ImportError extends Error {}

/**
 * Write conversations to a file, images and all.
 * @param {Conversation[]} conversations
 * @param {Store} store
 * @returns {Promise<Blob>}
 */
export async function exportFile(conversations, store) {
  /** @param {ImageRef} ref */
  const image = async ({ id, name, width, height }) => {
    const blob = await store.image(id);
    return blob ? { name, width, height, data: await toDataUrl(blob) } : null;
  };
  /** @param {Message} message */
  const message = async ({ id, images, ...rest }) => ({
    ...rest,
    images: (await Promise.all(images.map(image))).filter((each) => each !== null),
  });
  const written = [];
  for (const { id, messages, ...rest } of conversations)
    written.push({ ...rest, messages: await Promise.all(messages.map(message)) });
  const document = {
    format: FORMAT,
    version: VERSION,
    exported: new Date().toISOString(),
    conversations: written,
  };
  return new Blob([JSON.stringify(document, null, 1)], { type: "application/json" });
}

/**
 * Check a file, and keep its conversations beside the ones that are there.
 * @param {File} file
 * @param {Store} store
 * @returns {Promise<number>} How many there are.
 * @throws {ImportError} Nothing was kept.
 */
export async function importFile(file, store) {
  if (file.size > MOST_BYTES) throw new ImportError("The file is larger than 512 MB.");
  let document;
  try {
    document = JSON.parse(await file.text());
  } catch {
    throw new ImportError("The file is no JSON.");
  }
  if (document?.format !== FORMAT)
    throw new ImportError("The file is no export of conversations from this page.");
  if (document.version !== VERSION)
    throw new ImportError(`The file has version ${document.version}, not ${VERSION}.`);
  const list = array(document.conversations, "conversations", MOST_CONVERSATIONS);
  const read = [];
  for (const [at, each] of list.entries())
    read.push(await readConversation(each, `conversations[${at}]`));
  for (const { conversation, images } of read) await store.put(conversation, images);
  return read.length;
}

/**
 * @param {any} given
 * @param {string} where
 */
async function readConversation(given, where) {
  /** @type {Map<string, Blob>} */
  const images = new Map();
  const messages = [];
  for (const [at, each] of array(given?.messages, `${where}.messages`, MOST_MESSAGES).entries())
    messages.push(await readMessage(each, `${where}.messages[${at}]`, images));
  /** @type {Conversation} */
  const conversation = {
    id: newId(),
    title: string(given.title, `${where}.title`, 200),
    named: given.named === true,
    created: time(given.created, `${where}.created`),
    updated: time(given.updated, `${where}.updated`),
    messages,
  };
  return { conversation, images };
}

/**
 * @param {any} given
 * @param {string} where
 * @param {Map<string, Blob>} files Gets the images' files.
 * @returns {Promise<Message>}
 */
async function readMessage(given, where, files) {
  const { role } = given ?? {};
  if (role !== "user" && role !== "assistant")
    throw new ImportError(`${where}.role: expected user or assistant.`);
  const images = [];
  for (const [at, each] of array(given.images, `${where}.images`, MOST_IMAGES).entries()) {
    const { ref, blob } = await readImage(each, `${where}.images[${at}]`);
    files.set(ref.id, blob);
    images.push(ref);
  }
  const message = { id: newId(), role, text: string(given.text, `${where}.text`), images };
  if (role === "user") return message;
  return {
    ...message,
    model: typeof given.model === "string" ? given.model.slice(0, 200) : null,
    finish: ["stop", "length", "stopped"].includes(given.finish) ? given.finish : null,
    stats: readStats(given.stats),
    failure: given.failure ? readFailure(given.failure, `${where}.failure`) : null,
  };
}

/**
 * @param {any} given
 * @param {string} where
 */
async function readImage(given, where) {
  const match = /^data:([a-z/]+);base64,([A-Za-z0-9+/]*={0,2})$/u.exec(given?.data ?? "");
  if (!match || !IMAGE_TYPES.includes(match[1]))
    throw new ImportError(`${where}.data: expected a JPEG, PNG or WebP as a data URL.`);
  let blob;
  try {
    const bytes = Uint8Array.from(atob(match[2]), (character) => character.charCodeAt(0));
    blob = new Blob([bytes], { type: match[1] });
    const bitmap = await createImageBitmap(blob);
    const { width, height } = bitmap;
    bitmap.close();
    const name = string(given.name, `${where}.name`, 300);
    return { ref: { id: newId(), name, type: match[1], width, height }, blob };
  } catch (error) {
    if (error instanceof ImportError) throw error;
    throw new ImportError(`${where}.data: the image is damaged.`);
  }
}

/**
 * @param {any} given
 * @returns {Stats | null}
 */
function readStats(given) {
  if (typeof given !== "object" || given === null) return null;
  const number = (/** @type {unknown} */ value) =>
    typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : null;
  return {
    firstToken: number(given.firstToken),
    tokensPerSecond: number(given.tokensPerSecond),
    promptTokens: number(given.promptTokens),
    completionTokens: number(given.completionTokens),
    cachedTokens: number(given.cachedTokens),
  };
}

/**
 * @param {any} given
 * @param {string} where
 */
function readFailure(given, where) {
  return {
    kind: string(given.kind, `${where}.kind`, 40),
    text: string(given.text, `${where}.text`, 1000),
  };
}

/**
 * @param {unknown} value
 * @param {string} where
 * @param {number} most
 * @returns {any[]}
 */
function array(value, where, most) {
  if (!Array.isArray(value)) throw new ImportError(`${where}: expected a list.`);
  if (value.length > most) throw new ImportError(`${where}: expected at most ${most} entries.`);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} where
 * @param {number} [most] Characters.
 */
function string(value, where, most = MOST_CHARACTERS) {
  if (typeof value !== "string") throw new ImportError(`${where}: expected a text.`);
  if (value.length > most) throw new ImportError(`${where}: expected at most ${most} characters.`);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} where
 */
function time(value, where) {
  if (typeof value !== "number" || !Number.isFinite(value) || Math.abs(value) > 8.64e15)
    throw new ImportError(`${where}: expected milliseconds since 1970.`);
  return value;
}
