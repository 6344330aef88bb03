// Owns what the browser keeps: conversations, and apart from them the files of their images, in
// IndexedDB. Where there is none, as in some private windows, both last until the page is closed.

/** @import { Conversation, ImageRef } from "./conversation.js" */

const NAME = "mvlm";
const VERSION = 1;

/** @typedef {{ id: string, conversation: string, blob: Blob }} StoredImage */

export class Store {
  /** @type {IDBDatabase | null} */
  #db = null;
  /** @type {{ conversations: Map<string, Conversation>, images: Map<string, StoredImage> }} */
  #memory = { conversations: new Map(), images: new Map() };

  /** Open the database; return whether what is stored is kept. */
  async open() {
    try {
      const request = indexedDB.open(NAME, VERSION);
      request.onupgradeneeded = () => {
        const db = request.result;
        db.createObjectStore("conversations", { keyPath: "id" });
        db.createObjectStore("images", { keyPath: "id" }).createIndex("of", "conversation");
      };
      this.#db = await settled(request);
      this.#db.onversionchange = () => this.#db?.close();
    } catch {
      this.#db = null;
    }
    return this.#db !== null;
  }

  /** Return all conversations, the last one first. */
  async list() {
    /** @type {Conversation[]} */
    const found = this.#db
      ? await settled(this.#read("conversations").getAll())
      : structuredClone([...this.#memory.conversations.values()]);
    return found.sort((a, b) => b.updated - a.updated);
  }

  /**
   * @param {string} id
   * @returns {Promise<Conversation | undefined>}
   */
  async get(id) {
    if (this.#db) return settled(this.#read("conversations").get(id));
    return structuredClone(this.#memory.conversations.get(id));
  }

  /**
   * Write a conversation, and the files of images that are new.
   * @param {Conversation} conversation
   * @param {Map<string, Blob>} [images] By their ids.
   */
  async put(conversation, images = new Map()) {
    /** @type {StoredImage[]} */
    const files = Array.from(images, ([id, blob]) => ({ id, conversation: conversation.id, blob }));
    if (!this.#db) {
      this.#memory.conversations.set(conversation.id, structuredClone(conversation));
      for (const file of files) this.#memory.images.set(file.id, file);
      return;
    }
    const transaction = this.#db.transaction(["conversations", "images"], "readwrite");
    transaction.objectStore("conversations").put(conversation);
    for (const file of files) transaction.objectStore("images").put(file);
    await completed(transaction);
  }

  /**
   * Return the file of an image; undefined if there is none.
   * @param {string} id
   * @returns {Promise<Blob | undefined>}
   */
  async image(id) {
    if (!this.#db) return this.#memory.images.get(id)?.blob;
    return (await settled(this.#read("images").get(id)))?.blob;
  }

  /**
   * Remove a conversation and its images.
   * @param {string} id
   */
  async remove(id) {
    if (!this.#db) {
      this.#memory.conversations.delete(id);
      for (const image of [...this.#memory.images.values()])
        if (image.conversation === id) this.#memory.images.delete(image.id);
      return;
    }
    const transaction = this.#db.transaction(["conversations", "images"], "readwrite");
    transaction.objectStore("conversations").delete(id);
    const images = transaction.objectStore("images");
    const keys = images.index("of").getAllKeys(id);
    keys.onsuccess = () => keys.result.forEach((key) => images.delete(key));
    await completed(transaction);
  }

  /**
   * Remove files that no message shows any longer.
   * @param {ImageRef[]} images
   */
  async removeImages(images) {
    if (!images.length) return;
    if (!this.#db) {
      for (const { id } of images) this.#memory.images.delete(id);
      return;
    }
    const transaction = this.#db.transaction("images", "readwrite");
    for (const { id } of images) transaction.objectStore("images").delete(id);
    await completed(transaction);
  }

  /** @param {string} name */
  #read(name) {
    return /** @type {IDBDatabase} */ (this.#db).transaction(name).objectStore(name);
  }
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @param {IDBTransaction} transaction
 * @returns {Promise<void>}
 */
function completed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}
