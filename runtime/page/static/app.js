// The page: hears what the server says, shows it, and asks for what somebody wants.

import * as api from "./api.js";
import { Marking, TOOLS } from "./marking.js";
import { Objects, Sources, css, element, icon, showFigures } from "./panels.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const KEYS = [
  ["Space", "play or pause"],
  [".", "one frame on"],
  [", and ;", "look one frame back, or on again"],
  ["Home, End", "the oldest frame kept, the newest"],
  ...TOOLS.map(({ key, label }) => [key.toUpperCase(), label]),
  ["[ and ]", "smaller or larger brush"],
  ["Ctrl+Z or U", "undo the last mark of this frame"],
  ["A", "new object"],
  ["1 … 9", "select an object"],
  ["V", "show or hide the selected object"],
  ["R", "rest: follow the selected object no further for now, or again"],
  ["Delete", "remove the selected object"],
  ["Arrows, Enter", "on the picture, where Tab leads: move the cursor (Shift: by a pixel), and mark"],
  ["O", "open another video"],
  ["?", "these keys"],
];

class App {
  constructor() {
    this.state = null;
    this.current = Number(sessionStorage.getItem("object")) || 0; // the object that is marked
    this.back = null; // the frame looked at, null for the newest
    this.view = new View($("picture"), (frame) => this.showPosition(frame));
    this.marking = new Marking(this, this.view);
    this.objects = new Objects(this, $("objects"));
    this.sources = new Sources(this, $("sources"));
    this.wire();
    this.setTool(sessionStorage.getItem("tool") || "box");
    api.listen((state) => this.heard(state), (lost) => this.lost(lost));
  }

  wire() {
    $("tool-buttons").append(...TOOLS.map((tool) => {
      const button = element("button", { type: "button", onclick: () => this.setTool(tool.name) }, icon(tool.name), element("span", {}, tool.label));
      button.dataset.tool = tool.name;
      button.setAttribute("aria-label", tool.label);
      button.setAttribute("aria-keyshortcuts", tool.key.toUpperCase());
      button.title = `${tool.label} (${tool.key.toUpperCase()})`;
      return button;
    }));
    $("choose").onclick = () => this.sources.show();
    $("play").onclick = () => this.play();
    $("step").onclick = () => this.step();
    $("undo").onclick = () => this.undo();
    $("add").onclick = () => this.add();
    $("newest").onclick = () => this.look(null);
    $("scrub").oninput = () => this.look(Number($("scrub").value));
    $("radius").oninput = () => { this.marking.radius = Number($("radius").value); };
    $("alpha").oninput = () => { this.view.alpha = $("alpha").value / 100; this.view.paint(); };
    $("mask").onchange = () => this.sendMask();
    $("help").onclick = () => $("keys").showModal();
    $("alert").onclick = () => this.warn("");
    $("key-list").append(...KEYS.flatMap(([key, what]) => [element("dt", {}, key), element("dd", {}, what)]));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  heard(state) {
    if (this.state && state.version < this.state.version && state.run === this.state.run) return;
    const before = this.state;
    this.state = state;
    const source = state.source;
    if (before && before.clip !== state.clip) this.back = null;
    if (before?.source?.index !== source?.index) this.view.refused = null;
    if (!before && !source && !state.label) this.sources.show();
    if (state.message && state.message !== before?.message) this.warn(state.message);
    else if (source?.event && source.event !== before?.source?.event) this.warn(source.event);
    this.view.objects = new Map(state.objects.map((object) => [object.id, object]));
    if (!state.objects.some((object) => object.id === this.current)) this.current = state.objects.at(-1)?.id ?? 0;
    this.show(before);
    if (source) this.wantFrame();
    else this.view.clear();
  }

  show() {
    const { state } = this;
    const { source } = state;
    $("label").textContent = state.label;
    $("empty").hidden = Boolean(source);
    $("mode").hidden = !source?.live && !source?.ended;
    $("mode").textContent = source?.ended ? "ended" : "live";
    for (const id of ["step", "add", "scrub", "mask"]) $(id).disabled = !source;
    $("play").disabled = !source || source.ended;
    $("step").disabled = !source || source.ended;
    $("play").replaceChildren(icon(state.playing ? "pause" : "play", true), element("span", {}, state.playing ? "Pause" : "Play"));
    $("undo").disabled = !state.marks.steps;
    for (const id of ["masks-zip", "overlay-mp4"]) $(id).setAttribute("aria-disabled", String(!source));
    $("masks-zip").href = source ? "/api/masks.zip" : "#";
    $("overlay-mp4").href = source ? "/api/overlay.mp4" : "#";
    $("kept").textContent = !source ? "" : source.first
      ? `Frames ${source.first} to ${source.index}; older ones went to make room.`
      : `Frames 0 to ${source.index}, as vos-deploy-run writes them.`;
    this.objects.show(state.objects, this.current);
    showFigures($("figures"), state.figures, source?.live);
    if (source) {
      $("scrub").min = source.first;
      $("scrub").max = source.index;
    }
    this.view.prompts = this.back === null ? state.marks.prompts : [];
    this.view.paintMarks();
  }

  // Ask for the frame to look at, with the labels it has now.
  wantFrame() {
    const { run, clip, source } = this.state;
    const index = this.back === null ? source.index : Math.max(this.back, source.first);
    // Of a frame that is past, nothing changes any more.
    const revision = index === source.index ? source.revision : "past";
    this.view.want({ run, clip, index, revision, width: source.width, height: source.height });
    $("scrub").value = index;
    $("newest").hidden = this.back === null;
    $("picture").classList.toggle("past", this.back !== null);
  }

  showPosition(frame) {
    const { source } = this.state;
    const total = source?.count ? ` / ${source.count - 1}` : "";
    $("position").textContent = `${frame.index}${total}`;
    $("picture").setAttribute("aria-label", `Frame ${frame.index} of ${this.state.label}. Arrow keys move a cursor, Enter marks.`);
  }

  look(index) {
    const { source } = this.state ?? {};
    if (!source) return;
    this.back = index === null || index >= source.index ? null : Math.max(index, source.first);
    this.show();
    this.wantFrame();
  }

  // Only the newest frame is marked: go there first.
  newest() {
    if (this.back === null) return true;
    this.look(null);
    this.warn("Only the newest frame can be marked: here it is.");
    return false;
  }

  setTool(name) {
    this.marking.tool = TOOLS.some((tool) => tool.name === name) ? name : "box";
    this.marking.cancel();
    sessionStorage.setItem("tool", this.marking.tool);
    $("picture").dataset.tool = this.marking.tool;
    $("radius-label").hidden = !["brush", "erase"].includes(this.marking.tool);
    for (const button of $("tool-buttons").children) button.setAttribute("aria-pressed", String(button.dataset.tool === this.marking.tool));
    $("hint").textContent = TOOLS.find((tool) => tool.name === this.marking.tool).hint;
  }

  colour() {
    return css(this.view.objects.get(this.current)?.colour ?? [255, 220, 0]);
  }

  select(id) {
    if (!this.view.objects.has(id) || id === this.current) return;
    this.current = id;
    sessionStorage.setItem("object", id);
    this.show();
    this.say(`${this.view.objects.get(id).name} selected`);
  }

  // The id of the object to mark, a new one where there is none.
  async selected() {
    if (!this.view.objects.has(this.current)) await this.addNow();
    return this.current;
  }

  async addNow() {
    const state = await api.post("objects");
    this.current = state.added;
    this.heard(state);
    this.select(state.added);
  }

  add() { return this.attempt(() => this.addNow()); }
  play() { return this.act(() => api.post(this.state.playing ? "pause" : "play"), () => this.look(null)); }
  step() { return this.act(() => api.post("step"), () => this.look(null)); }
  undo() { return this.act(() => api.post("undo", { frame: this.state.source.index })); }
  remove(id) { return this.act(() => api.call("DELETE", `/api/objects/${id}`)); }

  rest(id) {
    const { paused } = this.view.objects.get(id);
    return this.act(() => api.call("PATCH", `/api/objects/${id}`, { paused: !paused }));
  }

  toggle(id) {
    const { visible } = this.view.objects.get(id);
    return this.act(() => api.call("PATCH", `/api/objects/${id}`, { visible: !visible }));
  }

  // Before a mark: the picture stands still, and is the one that the mark is made in.
  async pause() {
    if (this.state.playing) await this.act(() => api.post("pause"));
  }

  sendMask() {
    const [file] = $("mask").files;
    $("mask").value = "";
    if (file && this.newest()) this.act(async () => {
      await this.pause();
      return api.post(`mask?frame=${this.state.source.index}`, file);
    });
  }

  // Do something that answers with a state.
  act(action, before) {
    return this.attempt(async () => {
      before?.();
      this.heard(await action());
    });
  }

  async attempt(action) {
    this.warn("");
    try {
      await action();
    } catch (error) {
      this.warn(error.message);
    }
  }

  say(text) { $("status").textContent = text; }
  warn(text) { $("alert").textContent = text; }

  lost(lost) {
    if (lost) this.warn("The server does not answer: is vos-deploy-run still running?");
    else if ($("alert").textContent.startsWith("The server does not")) this.warn("");
  }

  key(event) {
    const typing = event.target.matches("input[type=text], input[type=url], input[type=number]");
    if (typing || document.querySelector("dialog[open]") || event.altKey || event.metaKey) return;
    if (event.ctrlKey && event.key.toLowerCase() !== "z") return;
    const pressed = event.target.matches("button, a, input") && [" ", "Enter"].includes(event.key);
    const slid = event.target.matches("input[type=range]") && ["Home", "End"].includes(event.key);
    if (pressed || slid) return;
    const done = this.shortcut(event.key.length === 1 ? event.key.toLowerCase() : event.key, event);
    if (done) event.preventDefault();
  }

  shortcut(key, event) {
    const source = this.state?.source;
    const tool = TOOLS.find((one) => one.key === key);
    if (key === "o") this.sources.show();
    else if (key === "?") $("keys").showModal();
    else if (event.ctrlKey || key === "u") source && this.state.marks.steps && this.undo();
    else if (tool) this.setTool(tool.name);
    else if (key === "[" || key === "]") this.resize(key === "]" ? 1.25 : 0.8);
    else if (!source) return false;
    else if (key === " ") this.play();
    else if (key === ".") this.step();
    else if (key === ",") this.look((this.back ?? source.index) - 1);
    else if (key === ";") this.look((this.back ?? source.index) + 1);
    else if (key === "Home") this.look(source.first);
    else if (key === "End") this.look(null);
    else if (key === "a") this.add();
    else if (key === "v" && this.current) this.toggle(this.current);
    else if (key === "r" && this.view.objects.get(this.current)?.followed) this.rest(this.current);
    else if (key === "Delete" && this.current) this.remove(this.current);
    else if (/^[1-9]$/.test(key)) this.select(Number(key));
    else return false;
    return true;
  }

  resize(factor) {
    const slider = $("radius");
    slider.value = Math.round(slider.value * factor + (factor > 1 ? 1 : -1));
    this.marking.radius = Number(slider.value);
    this.say(`brush of ${this.marking.radius} pixels`);
  }
}

window.app = new App();
