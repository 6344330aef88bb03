// Owns the start: makes the parts, connects them, and listens for what belongs to none of them.

import { announce } from "./announce.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { listenForDialogs } from "./dialogs.js";
import { byId } from "./dom.js";
import { Settings } from "./settings.js";
import { SettingsDialog } from "./settings_dialog.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { Thread } from "./thread.js";

const store = new Store();
const isKept = await store.open();
const settings = new Settings();
const chat = new Chat(store, settings);
const sidebar = new Sidebar(chat, store);
const composer = new Composer(chat);
const dialog = new SettingsDialog(settings, chat, store);
const enterKey = () => dialog.open("setting-key");

new Thread(chat, {
  edit: (message) => composer.edit(message),
  regenerate,
  enterKey,
  startNew,
});

function regenerate() {
  announce("Answering.");
  chat.regenerate();
  // The button is gone, with the answer that it stood below.
  byId("thread").focus({ preventScroll: true });
}

function startNew() {
  sidebar.closeDrawer();
  chat.startNew();
  composer.clear();
  composer.focus();
  announce("New conversation.");
}

function drawHeader() {
  const { title } = chat.open;
  byId("title").textContent = title;
  document.title = chat.open.messages.length ? `${title} – mvlm` : "mvlm";
  byId("model-name").textContent = chat.model?.id ?? "no model";
}

function drawContext() {
  const context = chat.model?.context;
  const stats = chat.open.messages.findLast((message) => message.stats)?.stats;
  const used = (stats?.promptTokens ?? 0) + (stats?.completionTokens ?? 0);
  const isKnown = Boolean(context && used);
  byId("context").hidden = !isKnown;
  if (context && used)
    byId("context").textContent = `Context: ${used} of ${context}`;
}

/** Show what keeps the page from working, above the conversation.
 * @param {string} text Empty hides it. */
function banner(text) {
  byId("banner").hidden = !text;
  byId("banner-text").textContent = text;
  const needsKey = chat.failure?.kind === "key";
  byId("banner-action").textContent = needsKey ? "Enter a key" : "Try again";
  byId("banner-action").hidden = !chat.failure;
}

function drawProblems() {
  const words = "This browser keeps nothing here: conversations are gone once the page is closed.";
  banner(chat.failure?.message ?? (isKept ? "" : words));
}

document.addEventListener("keydown", (event) => {
  const hasDialog = document.querySelector("dialog[open], :popover-open") !== null;
  if (event.key === "Escape" && !hasDialog && !event.isComposing) {
    if (sidebar.closeDrawer() || composer.escape()) event.preventDefault();
  }
  const isShortcut = (event.ctrlKey || event.metaKey) && event.shiftKey && event.code === "KeyO";
  if (isShortcut && !hasDialog) {
    event.preventDefault();
    startNew();
  }
});

for (const button of document.querySelectorAll("[data-draft]"))
  button.addEventListener("click", () => composer.draft(button.textContent ?? ""));
byId("new-conversation").addEventListener("click", startNew);
byId("open-settings").addEventListener("click", () => dialog.open());
byId("model").addEventListener("click", () => dialog.open("setting-model"));
byId("banner-action").addEventListener("click", () =>
  chat.failure?.kind === "key" ? enterKey() : chat.loadModels(),
);
byId("skip").addEventListener("click", (/** @type {Event} */ event) => {
  event.preventDefault();
  composer.focus();
});
chat.addEventListener("opened", drawHeader);
chat.addEventListener("state", () => {
  drawHeader();
  drawContext();
});
chat.addEventListener("models", () => {
  drawHeader();
  drawContext();
  drawProblems();
});
chat.addEventListener("problem", (event) => banner(/** @type {CustomEvent} */ (event).detail));
settings.addEventListener("change", () => {
  drawHeader();
  drawContext();
});

listenForDialogs();
chat.startNew();
await sidebar.draw();
await chat.loadModels();
document.documentElement.dataset.ready = "";
if (chat.failure?.kind === "key") enterKey();
else if (matchMedia("(pointer: fine)").matches) composer.focus();
