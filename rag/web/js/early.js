// Before the first paint, so that nothing flashes: the theme and the language that were chosen earlier.
"use strict";
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("quarry.theme");
  } catch {
    // Storage may be switched off: the system's theme it is.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
