// What the page remembers in this browser. Keys live as long as the tab; conversations too, where a key is needed.

let secret = false;

function read(storage, name) {
  try {
    return storage()?.getItem(`quarry.${name}`) ?? null;
  } catch {
    return null; // Storage may be switched off.
  }
}

function write(storage, name, value) {
  try {
    if (value === null) storage().removeItem(`quarry.${name}`);
    else storage().setItem(`quarry.${name}`, value);
    return true;
  } catch {
    return false; // Switched off, or full.
  }
}

const tab = () => window.sessionStorage;
const browser = () => window.localStorage;

export const getKey = () => read(tab, "key");
export const setKey = (key) => write(tab, "key", key || null);

export const getTheme = () => read(browser, "theme") ?? "auto";
export function setTheme(theme) {
  write(browser, "theme", theme === "auto" ? null : theme);
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export const getLanguage = () => read(browser, "language");
export const setLanguage = (language) => write(browser, "language", language);

/** Keep conversations no longer than this tab: others who use the browser may have no key. */
export function keepSecret() {
  secret = true;
}

export const readConversations = () => read(secret || getKey() ? tab : browser, "conversations");
export const writeConversations = (text) => write(secret || getKey() ? tab : browser, "conversations", text);
