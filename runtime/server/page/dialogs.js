// Owns the small dialogs: one that asks whether, and one that asks for a text.

import { byId } from "./dom.js";

/**
 * Ask whether to do something that cannot be undone.
 * @param {string} title
 * @param {string} text
 * @param {string} action Of the button that agrees.
 * @returns {Promise<boolean>}
 */
export async function confirmDialog(title, text, action) {
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-action").textContent = action;
  return opened(byId("confirm"));
}

/**
 * Ask for a text.
 * @param {string} title
 * @param {string} value Which stands there at first.
 * @returns {Promise<string | null>} Null if the user left the dialog, or emptied it.
 */
export async function textDialog(title, value) {
  const input = byId("prompt-input");
  byId("prompt-title").textContent = title;
  input.value = value;
  const answer = opened(byId("prompt"));
  input.select();
  return (await answer) ? input.value.trim() || null : null;
}

/**
 * @param {HTMLDialogElement} dialog
 * @returns {Promise<boolean>} Whether its form was submitted by the button that agrees.
 */
function opened(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Close dialogs by their buttons. Forms with `method=dialog` do the same, except where a policy of
 * the browser counts them as forms that are sent. */
export function listenForDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("form")?.addEventListener("submit", (event) => {
      event.preventDefault();
      const { submitter } = event;
      dialog.close(submitter instanceof HTMLButtonElement ? submitter.value : "yes");
    });
    for (const button of dialog.querySelectorAll("[data-closes]"))
      button.addEventListener("click", () => dialog.close("no"));
    // A click beside the dialog is one on its backdrop, which is the dialog itself.
    dialog.addEventListener("pointerdown", (event) => {
      if (event.target === dialog) dialog.close("no");
    });
  }
}
