// Owns how the open conversation looks: its messages, their buttons, and where it is scrolled to.

/** @import { Message } from "./conversation.js" */
/** @import { Chat } from "./chat.js" */

import { Speaker, announce } from "./announce.js";
import { byId, el, icon, iconButton } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { describeStats } from "./stats.js";

/** So near the end counts as at the end, in CSS pixels. */
const NEAR = 80;

/**
 * @typedef {object} Actions
 * @property {(message: Message) => void} edit
 * @property {() => void} regenerate
 * @property {() => void} enterKey
 * @property {() => void} startNew
 */

export class Thread {
  #chat;
  #actions;
  #list = byId("messages");
  #scroller = byId("thread");
  #toEnd = byId("to-end");
  /** @type {Map<string, HTMLElement>} By the messages' ids. */
  #items = new Map();
  /** @type {Map<string, string>} Object URLs by the images' ids. */
  #urls = new Map();
  /** @type {Set<Message>} Changed since the last frame. */
  #changed = new Set();
  #follows = true;
  #speaker = new Speaker();

  /**
   * @param {Chat} chat
   * @param {Actions} actions
   */
  constructor(chat, actions) {
    this.#chat = chat;
    this.#actions = actions;
    chat.addEventListener("opened", () => this.#render());
    chat.addEventListener("message", (event) => {
      this.#update(/** @type {CustomEvent} */ (event).detail);
    });
    this.#scroller.addEventListener("scroll", () => this.#scrolled());
    this.#toEnd.append(icon("down"));
    this.#toEnd.addEventListener("click", () => this.#scrollToEnd());
  }

  #render() {
    const { messages } = this.#chat.open;
    const shown = new Set(messages.flatMap(({ images }) => images.map(({ id }) => id)));
    for (const [id, url] of this.#urls) {
      if (shown.has(id)) continue;
      URL.revokeObjectURL(url);
      this.#urls.delete(id);
    }
    this.#items.clear();
    this.#speaker = new Speaker();
    this.#list.replaceChildren(...messages.map((message) => this.#item(message)));
    byId("welcome").hidden = messages.length > 0;
    this.#list.hidden = messages.length === 0;
    this.#scrollToEnd();
  }

  /** Draw a message again with the next frame.
   * @param {Message} message */
  #update(message) {
    if (!this.#changed.size) requestAnimationFrame(() => this.#flush());
    this.#changed.add(message);
    // Frames stop in a tab that is not seen; its screen reader is not heard either.
    if (this.#chat.isBusy) this.#speaker.grow(message.text);
    else this.#tellEnd(message);
  }

  #flush() {
    for (const message of this.#changed) {
      const item = this.#items.get(message.id);
      if (item) this.#fillAnswer(item, message);
    }
    this.#changed.clear();
    if (this.#follows) this.#scrollToEnd();
    else this.#scrolled();
  }

  /** @param {Message} message */
  #tellEnd(message) {
    this.#speaker.finish(message.text);
    if (message.failure) announce(message.failure.text);
    else announce(message.finish === "stopped" ? "Stopped." : "The answer is complete.");
  }

  /** @param {Message} message */
  #item(message) {
    const isUser = message.role === "user";
    const item = el("li", { class: `message ${isUser ? "question" : "answer"}` });
    this.#items.set(message.id, item);
    item.append(el("h2", { class: "visually-hidden", text: isUser ? "You" : "Answer" }));
    if (isUser) this.#fillQuestion(item, message);
    else {
      item.append(el("div", { class: "markdown" }), el("div", { class: "below" }));
      this.#fillAnswer(item, message);
    }
    return item;
  }

  /**
   * @param {HTMLElement} item
   * @param {Message} message
   */
  #fillQuestion(item, message) {
    if (message.images.length) {
      const images = message.images.map((image) => {
        const { width, height } = image;
        const shown = el("img", { alt: `Image: ${image.name}`, width, height });
        this.#load(image.id, /** @type {HTMLImageElement} */ (shown));
        return shown;
      });
      item.append(el("div", { class: "images" }, ...images));
    }
    const edit = iconButton("edit", "Edit and ask again", () => this.#actions.edit(message));
    const actions = el("div", { class: "actions" }, edit, copyButton("Copy question", message));
    const bubble = el("div", { class: "bubble", text: message.text });
    item.append(el("div", { class: "said" }, bubble, actions));
  }

  /**
   * @param {HTMLElement} item
   * @param {Message} message
   */
  #fillAnswer(item, message) {
    const [, markdown, below] = item.children;
    const isLast = this.#chat.open.messages.at(-1) === message;
    const isRunning = isLast && this.#chat.isBusy;
    showMarkdown(markdown, message.text);
    item.classList.toggle("running", isRunning);
    item.classList.toggle("waiting", isRunning && !message.text);
    if (isRunning) {
      below.replaceChildren();
      return;
    }
    const parts = [this.#failure(message, isLast), this.#actionsOf(message, isLast)];
    below.replaceChildren(...parts.filter((part) => part !== null));
  }

  /**
   * @param {Message} message
   * @param {boolean} isLast
   */
  #failure(message, isLast) {
    const { failure } = message;
    if (!failure) return null;
    const again = textButton("Try again", this.#actions.regenerate);
    const buttons = [];
    if (failure.kind === "key") buttons.push(textButton("Enter a key", this.#actions.enterKey));
    if (failure.kind === "context")
      buttons.push(textButton("New conversation", this.#actions.startNew));
    else if (isLast) buttons.push(again);
    return el(
      "div",
      { class: "failure" },
      icon("warning"),
      el("p", { text: failure.text }),
      el("div", { class: "buttons" }, ...buttons),
    );
  }

  /**
   * @param {Message} message
   * @param {boolean} isLast
   */
  #actionsOf(message, isLast) {
    const copy = message.text ? copyButton("Copy answer", message) : null;
    const again = isLast && !message.failure;
    const parts = [endOf(message), ...(message.stats ? describeStats(message.stats) : [])];
    return el(
      "div",
      { class: "actions" },
      copy,
      again ? iconButton("again", "Regenerate", this.#actions.regenerate) : null,
      el("ul", { class: "stats", "aria-label": "About this answer" },
        ...parts.filter((part) => part).map((text) => el("li", { text }))),
    );
  }

  /**
   * @param {string} id
   * @param {HTMLImageElement} image
   */
  async #load(id, image) {
    if (!this.#urls.has(id)) {
      const blob = await this.#chat.image(id).catch(() => undefined);
      if (!blob || !image.isConnected) return;
      if (!this.#urls.has(id)) this.#urls.set(id, URL.createObjectURL(blob));
    }
    image.src = /** @type {string} */ (this.#urls.get(id));
    if (this.#follows) this.#scrollToEnd();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#follows = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#toEnd.hidden = this.#follows;
  }

  #scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#scrolled();
  }
}

/** Say why an answer ended, where that is not plain.
 * @param {Message} message */
function endOf({ finish }) {
  if (finish === "stopped") return "stopped";
  return finish === "length" ? "cut at the longest answer" : "";
}

/**
 * @param {string} text
 * @param {() => void} onclick
 */
function textButton(text, onclick) {
  return el("button", { type: "button", class: "button small", text, onclick });
}

/**
 * @param {string} label
 * @param {Message} message
 */
function copyButton(label, message) {
  const button = iconButton("copy", label, async () => {
    const isDone = await copy(message.text);
    announce(isDone ? "Copied." : "The browser did not allow copying.");
    if (!isDone) return;
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

/** Copy a text. `navigator.clipboard` is missing where a server is not reached by TLS.
 * @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = /** @type {HTMLTextAreaElement} */ (el("textarea", { class: "visually-hidden" }));
    area.value = text;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return isDone;
  }
}
