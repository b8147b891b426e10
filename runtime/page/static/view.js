// The picture: a frame with its objects painted in, and over it what is being marked.

import * as api from "./api.js";

const MARK = { box: "#ffdc00", on: "#2fe36a", off: "#ff4b4b", cursor: "#ffffff" };

export class View {
  constructor(picture, loaded) {
    this.picture = picture;
    this.frameCanvas = picture.querySelector("#frame");
    this.markCanvas = picture.querySelector("#marks");
    this.loaded = loaded; // called with what is shown now
    this.alpha = 0.5;
    this.objects = new Map(); // id -> {colour, visible}
    this.shown = null; // {run, clip, index, revision, width, height}
    this.image = null;
    this.labels = null;
    this.wanted = null;
    this.busy = false;
    this.prompts = [];
    this.draft = null; // {tool, points, radius, colour} while something is drawn
    this.refused = null; // {box, points} of a mark that was refused, until the next one
    this.cursor = null; // [x, y], moved by keys
    new ResizeObserver(() => this.paintMarks()).observe(picture);
  }

  // Show a frame as soon as it can be had; of several that are asked for meanwhile, the last.
  want(frame) {
    this.wanted = frame;
    if (!this.busy) this.load();
  }

  async load() {
    this.busy = true;
    while (this.wanted) {
      const frame = this.wanted;
      this.wanted = null;
      const shown = this.shown;
      const same = shown?.run === frame.run && shown.clip === frame.clip && shown.index === frame.index;
      if (same && this.shown.revision === frame.revision) continue;
      try {
        const image = same ? this.image : api.frame(frame.clip, frame.index);
        const labels = api.labels(frame.clip, frame.index, frame.revision);
        [this.image, this.labels] = await Promise.all([image, labels]);
      } catch {
        continue; // another one is wanted by now, or the next change brings it
      }
      this.shown = frame;
      this.paint();
      this.loaded(frame);
    }
    this.busy = false;
  }

  clear() {
    this.wanted = this.shown = this.image = this.labels = null;
    const canvas = this.frameCanvas;
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    this.paintMarks();
  }

  paint() {
    if (!this.shown) return;
    const { width, height } = this.image; // live sources may come back with another size
    const canvas = this.frameCanvas;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      this.picture.style.aspectRatio = `${width} / ${height}`;
      // As large as the page has room for, and never distorted.
      this.picture.style.width = `min(100%, (100vh - var(--below)) * ${width / height})`;
    }
    const context = canvas.getContext("2d");
    context.drawImage(this.image, 0, 0, width, height);
    const overlay = this.overlay(width, height);
    if (overlay) context.drawImage(overlay, 0, 0);
    this.paintMarks();
  }

  // The objects in their colours with a white rim, on nothing.
  overlay(width, height) {
    const ids = this.labels;
    if (!ids || ids.length !== width * height) return null;
    const colours = new Uint32Array(256);
    const strength = Math.round(255 * this.alpha);
    for (const [id, { colour, visible }] of this.objects) {
      const [red, green, blue] = colour;
      if (visible) colours[id] = ((strength << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    }
    const rim = ((Math.min(255, 2 * strength) << 24) | 0xffffff) >>> 0;
    const pixels = new Uint32Array(width * height);
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const colour = colours[ids[at]];
        if (!colour) continue;
        const id = ids[at];
        const inside =
          (x === 0 || ids[at - 1] === id) && (x === width - 1 || ids[at + 1] === id) &&
          (y === 0 || ids[at - width] === id) && (y === height - 1 || ids[at + width] === id);
        pixels[at] = inside ? colour : rim;
      }
    }
    this.layer ??= document.createElement("canvas");
    this.layer.width = width;
    this.layer.height = height;
    const data = new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
    this.layer.getContext("2d").putImageData(data, 0, 0);
    return this.layer;
  }

  paintMarks() {
    const canvas = this.markCanvas;
    const rect = this.picture.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(rect.width * ratio));
    canvas.height = Math.max(1, Math.round(rect.height * ratio));
    if (!this.shown) return;
    const context = canvas.getContext("2d");
    const scale = canvas.width / this.shown.width;
    context.scale(scale, scale);
    const line = (1.8 * ratio) / scale;
    context.lineWidth = line;
    context.lineCap = context.lineJoin = "round";
    for (const prompt of this.prompts) {
      if (prompt.box) strokeBox(context, prompt.box, MARK.box);
      for (const point of prompt.points) dot(context, point, 3 * line, MARK.on);
      for (const point of prompt.not_points) dot(context, point, 3 * line, MARK.off);
    }
    if (this.refused) {
      context.setLineDash([4 * line, 3 * line]);
      if (this.refused.box) strokeBox(context, this.refused.box, MARK.off);
      context.setLineDash([]);
      for (const point of this.refused.points ?? []) dot(context, point, 3 * line, MARK.off);
    }
    const draft = this.draft;
    if (draft?.tool === "box") {
      strokeBox(context, boxOf(draft.points), MARK.box);
    } else if (draft) {
      context.globalAlpha = 0.6;
      context.strokeStyle = draft.tool === "erase" ? "#ffffff" : draft.colour;
      context.lineWidth = 2 * draft.radius;
      context.beginPath();
      context.moveTo(...draft.points[0]);
      for (const point of draft.points) context.lineTo(...point);
      context.stroke();
      context.globalAlpha = 1;
    }
    if (this.cursor) this.paintCursor(context, line);
  }

  paintCursor(context, line) {
    const [x, y] = this.cursor;
    const { width, height } = this.shown;
    for (const [colour, wide] of [["#000000", 2.6 * line], [MARK.cursor, line]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, height);
      context.moveTo(0, y);
      context.lineTo(width, y);
      context.globalAlpha = 0.55;
      context.stroke();
      context.globalAlpha = 1;
    }
  }

  // Where a pointer is, in pixels of the frame, inside it.
  at(event) {
    const rect = this.picture.getBoundingClientRect();
    const { width, height } = this.shown;
    const x = ((event.clientX - rect.left) / rect.width) * width;
    const y = ((event.clientY - rect.top) / rect.height) * height;
    return this.inside(x, y);
  }

  inside(x, y) {
    const { width, height } = this.shown;
    return [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
  }

  // Which object is at a point, 0 for none.
  objectAt([x, y]) {
    return this.labels?.[Math.floor(y) * this.shown.width + Math.floor(x)] ?? 0;
  }
}

// x, y, width, height between two corners.
export function boxOf(points) {
  const [[x1, y1], [x2, y2]] = [points[0], points[points.length - 1]];
  const [x, y] = [Math.floor(Math.min(x1, x2)), Math.floor(Math.min(y1, y2))];
  return [x, y, Math.ceil(Math.max(x1, x2)) - x, Math.ceil(Math.max(y1, y2)) - y];
}

function strokeBox(context, [x, y, width, height], colour) {
  context.strokeStyle = colour;
  context.strokeRect(x, y, width, height);
}

function dot(context, [x, y], radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fillStyle = colour;
  context.fill();
  context.strokeStyle = "#000000";
  context.stroke();
}
