// The API key, where the server wants one. It is kept for this tab and sent to this server only.

import { askText } from "./dialog.js";
import { t } from "./i18n.js";
import { keepSecret, setKey } from "./settings.js";

let asking = null;

/** Ask for a key; requests that fail meanwhile wait for the same answer. */
export function askKey(isWrong) {
  asking ??= ask(isWrong).finally(() => {
    asking = null;
  });
  return asking;
}

async function ask(isWrong) {
  keepSecret();
  const key = await askText(t("key.title"), {
    sign: "key",
    type: "password",
    label: t("key.label"),
    hint: t("key.hint"),
    action: t("key.use"),
    problem: isWrong ? t("key.wrong") : "",
  });
  if (key === null) return false;
  setKey(key);
  return true;
}
