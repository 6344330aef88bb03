// Owns the question that is being written: its text, its images, and asking, stopping or editing.

/** @import { Message } from "./conversation.js" */
/** @import { Chat } from "./chat.js" */
/** @import { PendingImage } from "./images.js" */

import { announce } from "./announce.js";
import { byId, el, iconButton } from "./dom.js";
import { ImageFileError, readImage } from "./images.js";

const MOST_IMAGES = 16;

export class Composer {
  #chat;
  /** @type {HTMLTextAreaElement} */
  #text = byId("question");
  #previews = byId("previews");
  #note = byId("composer-note");
  /** @type {{ image: PendingImage, url: string }[]} */
  #images = [];
  /** @type {string | null} The id of the question that is edited. */
  #edited = null;
  #reading = 0;

  /** @param {Chat} chat */
  constructor(chat) {
    this.#chat = chat;
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener("input", () => this.#refresh());
    this.#text.addEventListener("keydown", (event) => this.#onKey(event));
    byId("stop").addEventListener("click", () => this.#stop());
    byId("cancel-edit").addEventListener("click", () => this.clear());
    this.#listenForImages();
    chat.addEventListener("state", () => this.#refresh());
    chat.addEventListener("opened", () => {
      const isThere = chat.open.messages.some((message) => message.id === this.#edited);
      if (this.#edited && !isThere) this.clear();
      this.say("");
    });
    this.#refresh();
  }

  focus() {
    this.#text.focus();
  }

  /** Empty it, and leave editing. */
  clear() {
    this.#edited = null;
    this.#text.value = "";
    for (const { url } of this.#images) URL.revokeObjectURL(url);
    this.#images = [];
    this.#drawPreviews();
    this.say("");
    this.#refresh();
  }

  /**
   * Take an earlier question back, to ask it in other words or with other images.
   * @param {Message} message
   */
  async edit(message) {
    if (this.#chat.isBusy) return;
    const images = [];
    for (const ref of message.images) {
      const blob = await this.#chat.image(ref.id);
      if (blob) images.push({ ...ref, blob, original: null });
    }
    this.clear();
    this.#edited = message.id;
    this.#text.value = message.text;
    this.#add(images);
    this.#refresh();
    this.focus();
    announce("Editing an earlier question.");
  }

  /**
   * Take text as a draft.
   * @param {string} text
   */
  draft(text) {
    this.#text.value = text;
    this.#refresh();
    this.focus();
  }

  /** Leave editing, or else stop the answer; return whether there was something to do. */
  escape() {
    if (this.#chat.isBusy) this.#stop();
    else if (this.#edited) this.clear();
    else return false;
    return true;
  }

  /** Show a sentence about what the user just did; empty hides it.
   * @param {string} text */
  say(text) {
    this.#note.textContent = text;
    this.#note.hidden = !text;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    // Enter that chooses a word of an input method is not one of ours.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#send();
    } else if (event.key === "ArrowUp" && !this.#text.value && !this.#images.length) {
      const last = this.#chat.open.messages.findLast((message) => message.role === "user");
      if (!last) return;
      event.preventDefault();
      this.edit(last);
    }
  }

  #send() {
    const text = this.#text.value.trim();
    if (this.#chat.isBusy || this.#reading) return;
    if (!text) {
      if (this.#images.length) this.say("Write a question about the image.");
      return;
    }
    const images = this.#images.map(({ image }) => image);
    const edited = this.#edited;
    this.clear();
    announce("Answering.");
    this.#chat.ask(text, images, edited);
  }

  #stop() {
    this.#chat.stop();
    this.focus();
  }

  #listenForImages() {
    for (const id of ["file-input", "camera-input"]) {
      const input = byId(id);
      input.addEventListener("change", () => {
        this.#read([...input.files]);
        input.value = ""; // The same file may be chosen again.
      });
      for (const button of document.querySelectorAll(`[data-opens="${id}"]`))
        button.addEventListener("click", () => input.click());
    }
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.#read(files);
    });
    this.#listenForDrops();
  }

  #listenForDrops() {
    const { classList } = document.body;
    const holdsFiles = (/** @type {DragEvent} */ event) =>
      Boolean(event.dataTransfer?.types.includes("Files"));
    document.addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      classList.add("dropping");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) classList.remove("dropping");
    });
    document.addEventListener("drop", (event) => {
      classList.remove("dropping");
      if (!holdsFiles(event)) return;
      event.preventDefault();
      this.#read([...(event.dataTransfer?.files ?? [])]);
    });
  }

  /** @param {File[]} files */
  async #read(files) {
    this.say("");
    const room = MOST_IMAGES - this.#images.length;
    const problems = files.length > room ? [`A question may have ${MOST_IMAGES} images.`] : [];
    this.#reading += 1;
    this.#refresh();
    for (const file of files.slice(0, room)) {
      try {
        this.#add([await readImage(file)]);
      } catch (error) {
        if (!(error instanceof ImageFileError)) throw error;
        problems.push(error.message);
      }
    }
    this.#reading -= 1;
    if (problems.length) this.say(problems.join(" "));
    this.#refresh();
    this.focus();
  }

  /** @param {PendingImage[]} images */
  #add(images) {
    for (const image of images)
      this.#images.push({ image, url: URL.createObjectURL(image.blob) });
    if (images.length) announce(`Added: ${images.map(({ name }) => name).join(", ")}.`);
    this.#drawPreviews();
  }

  #drawPreviews() {
    const items = this.#images.map((each) => {
      const { name, width, height, original } = each.image;
      const size = `${width} × ${height}`;
      const details = original ? `${name}: ${original}, sent as ${size}` : `${name}: ${size}`;
      const remove = iconButton("close", `Remove ${name}`, () => this.#remove(each));
      return el("li", { title: details }, el("img", { src: each.url, alt: details }), remove);
    });
    this.#previews.replaceChildren(...items);
    this.#previews.hidden = items.length === 0;
    this.#refresh();
  }

  /** @param {{ image: PendingImage, url: string }} removed */
  #remove(removed) {
    URL.revokeObjectURL(removed.url);
    this.#images = this.#images.filter((each) => each !== removed);
    announce(`Removed: ${removed.image.name}.`);
    this.#drawPreviews();
    this.focus();
  }

  #refresh() {
    const { isBusy } = this.#chat;
    const hasImages = this.#images.length > 0;
    byId("send").hidden = isBusy;
    byId("send").disabled = !this.#text.value.trim() || this.#reading > 0;
    byId("stop").hidden = !isBusy;
    byId("editing").hidden = this.#edited === null;
    byId("composer").classList.toggle("is-editing", this.#edited !== null);
    this.#text.placeholder = hasImages ? "Ask about the image" : "Ask a question";
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }
}
