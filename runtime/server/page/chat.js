// Owns what happens: the open conversation, the answers that are running, and what is kept of them.

/** @import { Conversation, Message } from "./conversation.js" */
/** @import { PendingImage } from "./images.js" */
/** @import { Settings } from "./settings.js" */
/** @import { Store } from "./store.js" */

import { ApiError, listModels, streamAnswer } from "./api.js";
import * as conversations from "./conversation.js";
import { toDataUrl } from "./images.js";
import { Timer } from "./stats.js";

/** While an answer streams, what has come is kept this often, in milliseconds. */
const KEEP_EVERY = 2000;

/**
 * Events: `opened` (another conversation is open, or its messages were replaced), `message` (the
 * `detail` has changed, and is of the open conversation), `state` (what is running has changed),
 * `list` (the kept conversations have changed), `models`, `problem` (`detail`: a sentence).
 */
export class Chat extends EventTarget {
  #store;
  #settings;
  /** Running answers by their conversations' ids.
   * @type {Map<string, { conversation: Conversation, stop: AbortController }>} */
  #runs = new Map();
  /** Files of images that are not in the store yet, by their ids.
   * @type {Map<string, Blob>} */
  #unstored = new Map();

  /**
   * @param {Store} store
   * @param {Settings} settings
   */
  constructor(store, settings) {
    super();
    this.#store = store;
    this.#settings = settings;
    /** @type {Conversation} */
    this.open = conversations.newConversation();
    /** @type {import("./api.js").Model[]} */
    this.models = [];
    /** @type {ApiError | null} Why the models are not known. */
    this.failure = null;
  }

  /** Whether the open conversation is being answered. */
  get isBusy() {
    return this.#runs.has(this.open.id);
  }

  /** The model that answers; null while none is known. */
  get model() {
    return this.models.find(({ id }) => id === this.#settings.values.model) ?? this.models[0] ?? null;
  }

  /** Ask the server for its models. */
  async loadModels() {
    try {
      this.models = await listModels();
      this.failure = null;
    } catch (error) {
      this.failure = asApiError(error);
    }
    this.#tell("models");
  }

  /** Open an empty conversation, which is kept once it has a question. */
  startNew() {
    this.#show(conversations.newConversation());
  }

  /**
   * Open a kept conversation.
   * @param {string} id
   */
  async show(id) {
    const found = this.#runs.get(id)?.conversation ?? (await this.#store.get(id));
    if (found) this.#show(found);
    else this.startNew();
  }

  /**
   * Ask a question, and stream its answer.
   * @param {string} text
   * @param {PendingImage[]} images
   * @param {string | null} instead The id of an earlier question: it and what follows are replaced.
   */
  async ask(text, images, instead = null) {
    const conversation = this.open;
    if (this.#runs.has(conversation.id)) return;
    const kept = new Set(images.map(({ id }) => id));
    if (instead) this.#cut(conversation, instead, kept);
    for (const { id, blob } of images) this.#unstored.set(id, blob);
    const refs = images.map(({ id, name, type, width, height }) => ({ id, name, type, width, height }));
    conversation.messages.push(conversations.question(text, refs));
    conversations.retitle(conversation);
    await this.#answer(conversation, [...kept]);
  }

  /** Ask the last question of the open conversation again. */
  async regenerate() {
    const conversation = this.open;
    if (this.#runs.has(conversation.id)) return;
    while (conversation.messages.at(-1)?.role === "assistant") conversation.messages.pop();
    if (conversation.messages.length) await this.#answer(conversation, []);
  }

  /**
   * Return the file of an image; undefined if there is none.
   * @param {string} id
   */
  async image(id) {
    return this.#unstored.get(id) ?? this.#store.image(id);
  }

  /** Stop the answer of the open conversation. */
  stop() {
    this.#runs.get(this.open.id)?.stop.abort();
  }

  /**
   * @param {string} id
   * @param {string} title
   */
  async rename(id, title) {
    const conversation = await this.#find(id);
    if (!conversation) return;
    conversation.title = title;
    conversation.named = true;
    await this.#keep(conversation);
    if (id === this.open.id) this.#tell("state");
  }

  /** @param {string} id */
  async remove(id) {
    this.#runs.get(id)?.stop.abort();
    this.#runs.delete(id);
    await this.#store.remove(id);
    this.#tell("list");
    if (id === this.open.id) this.startNew();
  }

  /** @param {string} id */
  async #find(id) {
    if (id === this.open.id) return this.open;
    return this.#runs.get(id)?.conversation ?? (await this.#store.get(id));
  }

  /** @param {Conversation} conversation */
  #show(conversation) {
    this.open = conversation;
    this.#tell("opened");
    this.#tell("state");
  }

  /**
   * Remove a message and all that follow it.
   * @param {Conversation} conversation
   * @param {string} id
   * @param {Set<string>} kept Ids of images that are shown again.
   */
  #cut(conversation, id, kept) {
    const at = conversation.messages.findIndex((message) => message.id === id);
    if (at < 0) return;
    const removed = conversation.messages.splice(at);
    const images = removed.flatMap((message) => message.images).filter((each) => !kept.has(each.id));
    this.#store.removeImages(images).catch(() => {});
  }

  /**
   * Append an answer, and let it grow.
   * @param {Conversation} conversation Its last message is a question.
   * @param {string[]} images Ids of new ones.
   */
  async #answer(conversation, images) {
    const answer = conversations.emptyAnswer(this.model?.id ?? this.#settings.values.model);
    const asked = [...conversation.messages];
    conversation.messages.push(answer);
    const stop = new AbortController();
    const run = { conversation, stop };
    this.#runs.set(conversation.id, run);
    this.#tell("opened");
    this.#tell("state");
    await this.#keep(conversation, images);
    try {
      await this.#stream(conversation, asked, answer, stop.signal);
    } catch (error) {
      if (stop.signal.aborted) answer.finish = "stopped";
      else answer.failure = describe(asApiError(error));
    }
    // Another run may have begun, or the conversation was deleted.
    if (this.#runs.get(conversation.id) !== run) return;
    this.#runs.delete(conversation.id);
    await this.#keep(conversation);
    this.#changed(conversation, answer);
    this.#tell("state");
    // A model that was loaded on demand has told its context only now.
    if (answer.finish && this.model?.context === null) await this.loadModels();
  }

  /**
   * @param {Conversation} conversation
   * @param {Message[]} asked
   * @param {Message} answer
   * @param {AbortSignal} signal
   */
  async #stream(conversation, asked, answer, signal) {
    if (!this.model) await this.loadModels();
    if (!this.model) throw this.failure ?? new ApiError("server", "The server has no models.");
    answer.model = this.model.id;
    const body = {
      model: this.model.id,
      messages: await conversations.requestMessages(asked, this.#settings.values.system, (image) =>
        this.#dataUrl(image.id),
      ),
      ...this.#settings.sampling(),
    };
    const timer = new Timer();
    let kept = performance.now();
    let usage = null;
    try {
      for await (const piece of streamAnswer(body, signal)) {
        usage = piece.usage ?? usage;
        if (piece.finish === "stop" || piece.finish === "length") answer.finish = piece.finish;
        if (!piece.text) continue;
        timer.tick();
        answer.text += piece.text;
        this.#changed(conversation, answer);
        if (performance.now() - kept > KEEP_EVERY && this.#runs.has(conversation.id)) {
          kept = performance.now();
          await this.#keep(conversation);
        }
      }
    } finally {
      answer.stats = timer.stats(usage);
    }
  }

  /** @param {string} id */
  async #dataUrl(id) {
    const blob = await this.image(id);
    if (!blob) throw new ApiError("request", "An image of this conversation is no longer there.");
    return toDataUrl(blob);
  }

  /**
   * @param {Conversation} conversation
   * @param {string[]} [images] Ids of new ones.
   */
  async #keep(conversation, images = []) {
    conversation.updated = Date.now();
    const files = images.map((id) => [id, this.#unstored.get(id)]);
    try {
      await this.#store.put(conversation, new Map(/** @type {any} */ (files)));
      for (const id of images) this.#unstored.delete(id);
    } catch {
      this.#tell("problem", "The browser could not keep this conversation: its storage may be full.");
    }
    this.#tell("list");
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} message
   */
  #changed(conversation, message) {
    if (conversation.id === this.open.id) this.#tell("message", message);
  }

  /**
   * @param {string} type
   * @param {unknown} [detail]
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @param {unknown} error */
function asApiError(error) {
  if (error instanceof ApiError) return error;
  console.warn(error);
  return new ApiError("server", "The server's answer was not understood.");
}

/** @param {ApiError} error */
function describe({ kind, message }) {
  return { kind, text: message };
}
