// Owns the dialog of the settings: its fields, the API key, and what is done to all conversations.

/** @import { Chat } from "./chat.js" */
/** @import { Settings } from "./settings.js" */
/** @import { Store } from "./store.js" */

import { announce } from "./announce.js";
import { key } from "./api.js";
import { confirmDialog } from "./dialogs.js";
import { byId, el } from "./dom.js";
import { RANGES, inRange } from "./settings.js";
import { download } from "./sidebar.js";
import { ImportError, exportFile, importFile } from "./transfer.js";

/** Fields of numbers: the setting, and the id of its input.
 * @type {[keyof typeof RANGES, string][]} */
const NUMBERS = [
  ["temperature", "setting-temperature"],
  ["topP", "setting-top-p"],
  ["maxTokens", "setting-max-tokens"],
  ["seed", "setting-seed"],
];

export class SettingsDialog {
  #settings;
  #chat;
  #store;
  /** @type {HTMLDialogElement} */
  #dialog = byId("settings");

  /**
   * @param {Settings} settings
   * @param {Chat} chat
   * @param {Store} store
   */
  constructor(settings, chat, store) {
    this.#settings = settings;
    this.#chat = chat;
    this.#store = store;
    this.#listenForFields();
    this.#listenForKey();
    this.#listenForConversations();
    chat.addEventListener("models", () => this.#drawModels());
  }

  /** @param {string} [focus] The id of the field to begin with. */
  open(focus) {
    this.#draw();
    this.#say("");
    this.#sayOfKey();
    if (!this.#dialog.open) this.#dialog.showModal();
    if (focus) byId(focus).focus();
  }

  #draw() {
    const { values } = this.#settings;
    byId("setting-system").value = values.system;
    for (const [name, id] of NUMBERS) {
      byId(id).value = values[name] ?? "";
      this.#mark(name, id, true);
    }
    byId(`theme-${values.theme}`).checked = true;
    byId("setting-key").value = key.get();
    this.#drawModels();
  }

  #drawModels() {
    const { models, model } = this.#chat;
    const select = byId("setting-model");
    select.replaceChildren(...models.map(({ id }) => el("option", { value: id, text: id })));
    if (!models.length) select.append(el("option", { value: "", text: "none is known" }));
    select.disabled = !models.length;
    select.value = model?.id ?? "";
  }

  #listenForFields() {
    byId("setting-model").addEventListener("change", (/** @type {any} */ event) => {
      this.#settings.set({ model: event.target.value });
    });
    byId("setting-system").addEventListener("input", (/** @type {any} */ event) => {
      this.#settings.set({ system: event.target.value });
    });
    for (const [name, id] of NUMBERS) {
      const input = byId(id);
      const { min, max, step } = RANGES[name];
      Object.assign(input, { min, max, step });
      input.addEventListener("input", () => {
        const value = input.value === "" ? null : Number(input.value);
        const isRight = !input.validity.badInput && (value === null || inRange(name, value));
        this.#mark(name, id, isRight);
        if (isRight) this.#settings.set({ [name]: value });
      });
    }
    for (const theme of /** @type {const} */ (["system", "light", "dark"]))
      byId(`theme-${theme}`).addEventListener("change", () => this.#settings.set({ theme }));
    byId("reset-settings").addEventListener("click", () => {
      this.#settings.reset();
      this.#draw();
      this.#say("The settings were reset.");
    });
  }

  /**
   * Mark a field whose number is out of its range.
   * @param {keyof typeof RANGES} name
   * @param {string} id
   * @param {boolean} isRight
   */
  #mark(name, id, isRight) {
    const { min, max, integer } = RANGES[name];
    const error = byId(`${id}-error`);
    byId(id).setAttribute("aria-invalid", String(!isRight));
    const range = max > 1e6 ? `of at least ${min}` : `from ${min} to ${max}`;
    error.textContent = isRight ? "" : `Expected ${integer ? "a whole number" : "a number"} ${range}.`;
    error.hidden = isRight;
  }

  #listenForKey() {
    const input = byId("setting-key");
    input.addEventListener("change", async () => {
      key.set(input.value.trim());
      await this.#chat.loadModels();
      this.#sayOfKey();
    });
    // Enter would close the dialog before the key was tried.
    input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      input.dispatchEvent(new Event("change"));
    });
  }

  /** Say whether the server takes the key. */
  #sayOfKey() {
    const { failure } = this.#chat;
    const isRefused = failure?.kind === "key";
    byId("setting-key").setAttribute("aria-invalid", String(isRefused && key.get() !== ""));
    const words = key.get() ? "The server takes this key." : "This server asks for no key.";
    const refused = key.get()
      ? "The server does not take this key."
      : "The server asks for a key. Its operator has it.";
    byId("key-state").textContent = isRefused ? refused : failure ? failure.message : words;
    byId("key-state").classList.toggle("error", isRefused);
  }

  #listenForConversations() {
    byId("export-all").addEventListener("click", async () => {
      const all = await this.#store.list();
      download(await exportFile(all, this.#store), "mvlm conversations");
      this.#say(`Exported ${count(all.length)}.`);
    });
    const input = byId("import-input");
    byId("import").addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      const [file] = input.files;
      input.value = "";
      if (file) await this.#import(file);
    });
    byId("delete-all").addEventListener("click", async () => {
      const all = await this.#store.list();
      const text = `${count(all.length)}, with their images, are removed from this browser.`;
      if (!(await confirmDialog("Delete all conversations?", text, "Delete all"))) return;
      for (const { id } of all) await this.#chat.remove(id);
      this.#say(`Deleted ${count(all.length)}.`);
    });
  }

  /** @param {File} file */
  async #import(file) {
    try {
      const imported = await importFile(file, this.#store);
      this.#chat.dispatchEvent(new Event("list"));
      this.#say(`Imported ${count(imported)}.`);
    } catch (error) {
      const isOurs = error instanceof ImportError;
      this.#say(`Nothing was imported. ${isOurs ? error.message : "The browser could not keep it."}`);
    }
  }

  /** @param {string} text */
  #say(text) {
    byId("settings-note").textContent = text;
    byId("settings-note").hidden = !text;
    if (text) announce(text);
  }
}

/** @param {number} conversations */
function count(conversations) {
  return `${conversations} conversation${conversations === 1 ? "" : "s"}`;
}
