// Elements from plain calls. Text is always text: nothing in here parses markup.

/** Make an element. Functions become listeners, true an empty attribute; null, undefined and false leave it out. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

// Drawn on a grid of 24, 1.75 wide.
const PATHS = {
  logo: "m12 3.500 8.500 4.400L12 12.300 3.500 7.900zM3.500 12.300 12 16.700l8.500-4.400M3.500 16.500 12 20.900l8.500-4.400",
  chat: "M4.500 5.500h15v10.500h-8l-4.500 3.800v-3.800h-2.500z",
  documents: "M6 3.500h8l4 4v13h-12zM14 3.500v4h4M9 12.500h6M9 16h6",
  search: "M11 4.500a6.500 6.500 0 1 0 0 13a6.500 6.500 0 1 0 0-13M16 16l4 4",
  connect: "M9.500 14.500l5-5M8 11.500l-2 2a3.500 3.500 0 0 0 5 5l2-2M16 12.500l2-2a3.500 3.500 0 0 0-5-5l-2 2",
  plus: "M12 5.500v13M5.500 12h13",
  menu: "M4.500 7.500h15M4.500 12h15M4.500 16.500h15",
  close: "M6.500 6.500l11 11M17.500 6.500l-11 11",
  send: "M12 19v-13M6.500 11.500l5.500-5.500 5.500 5.500",
  stop: "M8 8h8v8h-8z",
  copy: "M9 9h10v10.500h-10zM5.500 15.500v-11h9.500",
  check: "M5.500 12.500l4.300 4.300 8.700-9.300",
  retry: "M19 12a7 7 0 1 1-2.200-5.100M17.500 3.500v3.800h-3.800",
  edit: "M5 19l.8-3.600 9.900-9.900 2.800 2.800-9.900 9.900zM13.500 7.700l2.800 2.800",
  trash: "M5 7.500h14M9.500 7.500v-2.500h5v2.500M7 7.500l.8 12h8.400l.8-12M10.500 11v5.500M13.500 11v5.500",
  upload: "M12 15.500v-10M7.800 9.500l4.200-4.200 4.200 4.200M5 15.500v4h14v-4",
  download: "M12 5v10M7.800 11l4.200 4.200 4.200-4.200M5 15.500v4h14v-4",
  folder: "M3.500 6h6l2 2.500h9v10.500h-17z",
  warning: "M12 4.500l8.500 15h-17zM12 10v4.500M12 17v.2",
  clock: "M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16M12 8v4.300l2.800 1.700",
  sun: "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 2.800v2M12 19.200v2M2.800 12h2M19.200 12h2M5.500 5.500l1.400 1.400M17.100 17.100l1.400 1.400M18.500 5.500l-1.400 1.400M6.900 17.100l-1.400 1.400",
  moon: "M19.500 14.300a8 8 0 0 1-9.800-9.800a8 8 0 1 0 9.800 9.800z",
  auto: "M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16M12 4v16M12 8l4.500 1M12 12h5.500M12 16l4.500-1",
  globe: "M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16M4 12h16M12 4c-5 5-5 11 0 16M12 4c5 5 5 11 0 16",
  key: "M15 5a4.500 4.500 0 1 0 0 9a4.500 4.500 0 1 0 0-9M11.800 12.700l-7.300 7.300M7 17.500l2 2M9.500 15l1.800 1.800",
  down: "M6.500 9.500l5.500 5.500 5.500-5.500",
  up: "M6.500 14.500l5.500-5.500 5.500 5.500",
  link: "M13 5.500h5.500v5.500M18.500 5.500l-8 8M15.500 14v4.500h-10v-10h4.500",
  quote: "M5.500 11.500h5v6h-5zM5.500 11.500c0-3 1.500-4.700 4-5M13.500 11.500h5v6h-5zM13.500 11.500c0-3 1.500-4.700 4-5",
  keyboard: "M3.500 6.500h17v11h-17zM7 10h.2M10.300 10h.2M13.700 10h.2M17 10h.2M8 14h8",
};

/** Draw an icon. Screen readers skip it: what it means stands in the label of its button. */
export function icon(name, size = 20) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: size, height: size, class: "icon", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** Make a button with an icon and a label; `bare` shows the icon alone. */
export function button(label, { icon: name = null, bare = false, class: kind = "", ...attributes } = {}) {
  return h(
    "button",
    { type: "button", class: `button ${bare ? "bare" : ""} ${kind}`.trim(), ...(bare ? { "aria-label": label, title: label } : {}), ...attributes },
    name && icon(name, bare ? 18 : 17),
    !bare && h("span", null, label),
  );
}

/** Put `children` in the place of what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return element;
}

/** Say something to screen readers only. */
export function announce(text) {
  let region = document.getElementById("announcer");
  if (!region) {
    region = h("div", { id: "announcer", class: "unseen", role: "status", "aria-live": "polite" });
    document.body.append(region);
  }
  region.textContent = text;
}
