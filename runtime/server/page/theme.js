// Owns the first frame: sets the theme that the user chose before anything is drawn. It is a plain
// script, because modules run only after the document was read.
"use strict";

try {
  const { theme } = JSON.parse(localStorage.getItem("mvlm.settings") ?? "{}");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked, or what it holds is no JSON: the system's theme stays.
}
