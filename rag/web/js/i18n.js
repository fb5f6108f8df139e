// Words in the reader's language.

import en from "./locales/en.js";
import zh from "./locales/zh.js";
import * as settings from "./settings.js";

const LOCALES = { en, zh };
export const LANGUAGES = { en: "English", zh: "中文" };

let language = "en";

/** Take the language that was chosen, else the browser's first that is known here. */
export function chooseLanguage() {
  const wanted = [settings.getLanguage(), ...(navigator.languages ?? [navigator.language])];
  const known = wanted.map((tag) => String(tag ?? "").toLowerCase().split("-")[0]).find((tag) => tag in LOCALES);
  apply(known ?? "en");
}

export function switchLanguage(next) {
  settings.setLanguage(next);
  apply(next);
}

export const currentLanguage = () => language;

function apply(next) {
  language = next;
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
}

/** Give a phrase; `{name}` in it is replaced, and with `n` its plural form is looked for. */
export function t(key, values = {}) {
  const words = LOCALES[language];
  const form = "n" in values ? `${key}.${new Intl.PluralRules(language).select(values.n)}` : key;
  const phrase = words[form] ?? words[`${key}.other`] ?? words[key] ?? en[form] ?? en[key] ?? key;
  return phrase.replace(/\{(\w+)\}/g, (all, name) => (name in values ? shown(values[name]) : all));
}

const shown = (value) => (typeof value === "number" ? value.toLocaleString(language) : String(value));

export function formatBytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (n >= 1000 && power < units.length - 1) {
    n /= 1000;
    power += 1;
  }
  return `${n.toLocaleString(language, { maximumFractionDigits: n < 10 && power ? 1 : 0 })} ${units[power]}`;
}

export function formatTime(seconds) {
  const date = new Date(seconds * 1000);
  const age = (Date.now() - date) / 1000;
  if (age >= 0 && age < 45) return t("time.now");
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  if (age >= 0 && age < 3600) return relative.format(-Math.round(age / 60), "minute");
  if (age >= 0 && age < 86400) return relative.format(-Math.round(age / 3600), "hour");
  const sameYear = date.getFullYear() === new Date().getFullYear();
  return date.toLocaleDateString(language, { month: "short", day: "numeric", ...(sameYear ? {} : { year: "numeric" }) });
}
