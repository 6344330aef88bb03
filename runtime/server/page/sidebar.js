// Owns the list of conversations, the menu of each, and the drawer that the list is on a phone.

/** @import { Chat } from "./chat.js" */
/** @import { Conversation } from "./conversation.js" */
/** @import { Store } from "./store.js" */

import { announce } from "./announce.js";
import { confirmDialog, textDialog } from "./dialogs.js";
import { byId, el, iconButton } from "./dom.js";
import { exportFile } from "./transfer.js";

const PHONE = matchMedia("(max-width: 760px)");

export class Sidebar {
  #chat;
  #store;
  #list = byId("conversations");
  #menu = byId("conversation-menu");
  /** @type {{ conversation: Conversation, button: HTMLElement } | null} */
  #of = null;

  /**
   * @param {Chat} chat
   * @param {Store} store
   */
  constructor(chat, store) {
    this.#chat = chat;
    this.#store = store;
    chat.addEventListener("list", () => this.draw());
    chat.addEventListener("opened", () => this.#mark());
    chat.addEventListener("state", () => this.#mark());
    byId("open-sidebar").addEventListener("click", () => this.#setDrawer(true));
    byId("close-sidebar").addEventListener("click", () => this.closeDrawer());
    byId("scrim").addEventListener("click", () => this.closeDrawer());
    PHONE.addEventListener("change", () => this.#setDrawer(false));
    byId("menu-rename").addEventListener("click", () => this.#act(this.#rename));
    byId("menu-export").addEventListener("click", () => this.#act(this.#export));
    byId("menu-delete").addEventListener("click", () => this.#act(this.#remove));
  }

  /** Draw the list again. */
  async draw() {
    const conversations = await this.#store.list();
    byId("no-conversations").hidden = conversations.length > 0;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.focus;
    this.#list.replaceChildren(...conversations.map((each) => this.#item(each)));
    this.#mark();
    if (focused) this.#list.querySelector(`[data-focus="${focused}"]`)?.focus();
  }

  /** Close the drawer; return whether it was open. */
  closeDrawer() {
    if (!document.body.classList.contains("drawer-open")) return false;
    this.#setDrawer(false);
    byId("open-sidebar").focus();
    return true;
  }

  /** @param {boolean} isOpen */
  #setDrawer(isOpen) {
    document.body.classList.toggle("drawer-open", isOpen);
    byId("open-sidebar").setAttribute("aria-expanded", String(isOpen));
    byId("main").inert = isOpen;
    if (isOpen) byId("close-sidebar").focus();
  }

  /** @param {Conversation} conversation */
  #item(conversation) {
    const { id, title } = conversation;
    const open = el("button", {
      type: "button",
      class: "conversation",
      "data-id": id,
      "data-focus": `open-${id}`,
      text: title,
      title,
      onclick: async () => {
        await this.#chat.show(id);
        this.closeDrawer();
      },
    });
    const more = iconButton("more", `More for ${title}`, () => {
      this.#openMenu(conversation, more);
    });
    more.setAttribute("aria-haspopup", "dialog");
    more.dataset.focus = `more-${id}`;
    return el("li", {}, open, more);
  }

  #mark() {
    for (const button of this.#list.querySelectorAll(".conversation")) {
      const isOpen = button.dataset.id === this.#chat.open.id;
      if (isOpen) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
  }

  /**
   * @param {Conversation} conversation
   * @param {HTMLElement} button
   */
  #openMenu(conversation, button) {
    this.#of = { conversation, button };
    this.#menu.showPopover();
    const { right, bottom, top } = button.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.#menu;
    const isBelow = bottom + offsetHeight + 8 < innerHeight;
    this.#menu.style.left = `${Math.max(8, right - offsetWidth)}px`;
    this.#menu.style.top = `${isBelow ? bottom + 4 : top - offsetHeight - 4}px`;
    byId("menu-rename").focus();
  }

  /** @param {(conversation: Conversation) => Promise<void>} action */
  async #act(action) {
    this.#menu.hidePopover();
    if (!this.#of) return;
    const { conversation } = this.#of;
    await action.call(this, conversation);
    await this.draw();
    const more = this.#list.querySelector(`[data-focus="more-${conversation.id}"]`);
    (more ?? byId("new-conversation")).focus();
  }

  /** @param {Conversation} conversation */
  async #rename({ id, title }) {
    const name = await textDialog("Rename conversation", title);
    if (name) await this.#chat.rename(id, name.slice(0, 200));
  }

  /** @param {Conversation} conversation */
  async #export({ id, title }) {
    const conversation = await this.#store.get(id);
    if (conversation) download(await exportFile([conversation], this.#store), title);
  }

  /** @param {Conversation} conversation */
  async #remove({ id, title }) {
    const text = `“${title}” and its images are removed from this browser.`;
    if (!(await confirmDialog("Delete this conversation?", text, "Delete"))) return;
    await this.#chat.remove(id);
    announce("Deleted.");
  }
}

/**
 * Hand a file to the user.
 * @param {Blob} blob
 * @param {string} title
 */
export function download(blob, title) {
  const name = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/gu, "").slice(0, 60);
  const href = URL.createObjectURL(blob);
  el("a", { href, download: `${name || "conversation"}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
