// What stands beside the picture: objects, figures, exports, and the choice of a video.

import * as api from "./api.js";

export const css = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;

export function element(tag, properties = {}, ...children) {
  const { aria, ...own } = properties;
  const made = Object.assign(document.createElement(tag), own);
  for (const [name, value] of Object.entries(aria ?? {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function icon(name, solid = false) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", solid ? "icon solid" : "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

// The list of objects. Rows are kept, so that the keyboard's focus and a name half typed stay.
export class Objects {
  constructor(app, list) {
    this.app = app;
    this.list = list;
    this.rows = new Map();
  }

  show(objects, selected) {
    for (const [id, row] of this.rows) {
      if (objects.some((object) => object.id === id)) continue;
      row.item.remove();
      this.rows.delete(id);
    }
    objects.forEach((object, place) => {
      const row = this.rows.get(object.id) ?? this.add(object);
      if (this.list.children[place] !== row.item) this.list.insertBefore(row.item, this.list.children[place]);
      this.update(row, object, object.id === selected);
    });
  }

  add({ id, colour }) {
    const square = element("span", {}, String(id));
    square.style.background = css(colour);
    const row = {
      swatch: element("button", { type: "button", className: "swatch" }, square),
      name: element("input", { type: "text", maxLength: 60, aria: { "aria-label": `Name of object ${id}` } }),
      rest: element("button", { type: "button" }),
      eye: element("button", { type: "button" }),
      remove: element("button", { type: "button" }, icon("remove")),
      told: element("span", { className: "told" }),
    };
    row.item = element("li", {}, row.swatch, row.name, row.rest, row.eye, row.remove, row.told);
    row.item.dataset.id = id;
    row.swatch.onclick = () => this.app.select(id);
    row.name.onfocus = () => this.app.select(id);
    row.name.onchange = () => this.app.act(() => api.call("PATCH", `/api/objects/${id}`, { name: row.name.value }));
    row.name.onkeydown = (event) => { if (event.key === "Enter") row.name.blur(); };
    row.rest.onclick = () => this.app.rest(id);
    row.eye.onclick = () => this.app.toggle(id);
    row.remove.onclick = () => this.app.remove(id);
    this.rows.set(id, row);
    return row;
  }

  update(row, object, current) {
    row.item.setAttribute("aria-current", String(current));
    if (document.activeElement !== row.name) row.name.value = object.name;
    row.swatch.setAttribute("aria-label", `Select ${object.name}`);
    row.swatch.setAttribute("aria-pressed", String(current));
    row.rest.hidden = !object.followed;
    row.rest.setAttribute("aria-pressed", String(object.paused));
    row.rest.setAttribute("aria-label", `Pause ${object.name}`);
    row.rest.title = object.paused ? "Follow again" : "Follow no further for now";
    row.rest.replaceChildren(icon(object.paused ? "play" : "pause", true));
    row.eye.title = object.visible ? "Hide" : "Show";
    row.remove.title = "Remove";
    row.eye.setAttribute("aria-pressed", String(object.visible));
    row.eye.setAttribute("aria-label", `Show ${object.name}`);
    row.remove.setAttribute("aria-label", `Remove ${object.name}`);
    row.eye.replaceChildren(icon(object.visible ? "eye" : "hidden"));
    const [text, bad] = told(object);
    row.told.textContent = text;
    row.told.classList.toggle("bad", bad);
  }
}

function told(object) {
  if (object.marked) return [object.followed ? "corrected here" : "marked here", false];
  if (object.removed) return ["removed from the next frame on", true];
  if (!object.followed) return ["not marked yet", true];
  if (object.paused) return ["paused: its memory is kept", false];
  if (object.lost) return [`not in sight · seen in ${object.seen} of ${object.frames} frames`, true];
  return [`seen in ${object.seen} of ${object.frames} frames`, false];
}

const milliseconds = (value) => (value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);

export function showFigures(list, figures, live) {
  const memory = figures.memory;
  const rows = !memory ? [] : [
    ["Frames per second", figures.fps ? figures.fps.toFixed(1) : "–"],
    ["Latency p50", milliseconds(figures.p50)],
    ["p90", milliseconds(figures.p90)],
    ["p99", milliseconds(figures.p99)],
    ...(live ? [["Oldest shown", milliseconds(figures.oldest)], ["Dropped", String(figures.dropped)]] : [["Dropped", "none: a file"]]),
    ["Memory", `${memory.frames} of ${memory.capacity ?? "unlimited"} frames`],
    ["", `${(memory.bytes / 2 ** 20).toFixed(0)} MiB`],
  ];
  list.replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

// The dialog that opens a video, a camera or a stream.
export class Sources {
  constructor(app, dialog) {
    this.app = app;
    this.dialog = dialog;
    this.error = dialog.querySelector("#sources-error");
    dialog.querySelector("#camera-form").onsubmit = (event) => {
      event.preventDefault();
      this.open({ camera: Number(dialog.querySelector("#camera").value) });
    };
    dialog.querySelector("#stream-form").onsubmit = (event) => {
      event.preventDefault();
      this.open({ stream: dialog.querySelector("#stream").value.trim() });
    };
  }

  async show() {
    this.error.textContent = "";
    if (!this.dialog.open) this.dialog.showModal();
    const list = this.dialog.querySelector("#videos");
    try {
      const { videos, given } = await api.call("GET", "/api/videos");
      const button = (label, choice) =>
        element("button", { type: "button", onclick: () => this.open(choice) }, label);
      list.replaceChildren(
        ...(given ? [button(given, { given: true })] : []),
        ...videos.map((name) => button(name, { video: name })),
      );
      if (!list.children.length) {
        list.replaceChildren(element("p", {}, "No folder of videos was given: start with --videos FOLDER, or open a camera or a stream."));
      }
    } catch (error) {
      this.error.textContent = error.message;
    }
  }

  async open(choice) {
    this.error.textContent = "";
    try {
      this.app.heard(await api.post("open", choice));
      this.dialog.close();
    } catch (error) {
      this.error.textContent = error.message;
    }
  }
}
