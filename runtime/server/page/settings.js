// Owns the settings: their values, which are kept in localStorage, and what requests say of them.

const STORED = "mvlm.settings";

/**
 * @typedef {object} Values
 * @property {string} model Empty: the server's first.
 * @property {string} system Empty: the model's own system message.
 * @property {number | null} temperature 0 gives the most likely answer; null leaves it to the server.
 * @property {number | null} topP
 * @property {number | null} maxTokens
 * @property {number | null} seed
 * @property {"system" | "light" | "dark"} theme
 */

/** @type {Values} */
const DEFAULTS = {
  model: "",
  system: "",
  temperature: 0,
  topP: null,
  maxTokens: null,
  seed: null,
  theme: "system",
};

/** Ranges as the server takes them. */
export const RANGES = {
  temperature: { min: 0, max: 2, step: "any", integer: false },
  topP: { min: 0, max: 1, step: "any", integer: false },
  maxTokens: { min: 1, max: 1048576, step: 1, integer: true },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, integer: true },
};

/** The values; a listener hears of each change. */
export class Settings extends EventTarget {
  constructor() {
    super();
    /** @type {Values} */
    this.values = { ...DEFAULTS, ...stored() };
  }

  /**
   * Change values, and keep them.
   * @param {Partial<Values>} changes
   */
  set(changes) {
    Object.assign(this.values, changes);
    const { theme } = this.values;
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(STORED, JSON.stringify(this.values));
    } catch {
      // Storage is full or blocked: the values hold until the page is closed.
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Return the defaults to all values but the model. */
  reset() {
    this.set({ ...DEFAULTS, model: this.values.model });
  }

  /** Return the fields of a request that are set. */
  sampling() {
    const { temperature, topP, maxTokens, seed } = this.values;
    const fields = { temperature, top_p: topP, max_tokens: maxTokens, seed };
    return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
  }
}

/** Whether a number is one that the server takes.
 * @param {keyof typeof RANGES} name
 * @param {unknown} value
 */
export function inRange(name, value) {
  const { min, max, integer } = RANGES[name];
  if (typeof value !== "number" || !(value >= min && value <= max)) return false;
  return !integer || Number.isInteger(value);
}

/** Read what is kept; what is damaged is left out. */
function stored() {
  let kept;
  try {
    kept = JSON.parse(localStorage.getItem(STORED) ?? "{}");
  } catch {
    return {};
  }
  /** @type {Partial<Values>} */
  const values = {};
  if (typeof kept?.model === "string") values.model = kept.model;
  if (typeof kept?.system === "string") values.system = kept.system;
  if (["system", "light", "dark"].includes(kept?.theme)) values.theme = kept.theme;
  for (const name of /** @type {(keyof typeof RANGES)[]} */ (Object.keys(RANGES)))
    if (kept?.[name] === null || inRange(name, kept?.[name])) values[name] = kept[name];
  return values;
}
