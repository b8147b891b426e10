// Marks: by pointer, and by keys with a cursor that the arrows move.

import * as api from "./api.js";
import { boxOf } from "./view.js";

export const TOOLS = [
  { name: "look", label: "Look", key: "l", hint: "Touch an object to select it." },
  { name: "box", label: "Box", key: "x", hint: "Draw a box a little larger than the object: it is cut out by its colours." },
  { name: "point", label: "Point on", key: "p", hint: "Point at the object; every point more makes the cut better." },
  { name: "not_point", label: "Point off", key: "n", hint: "Point at what is not the object." },
  { name: "brush", label: "Brush", key: "b", hint: "Paint the object." },
  { name: "erase", label: "Erase", key: "e", hint: "Take pixels from the selected object." },
];
const MOST_POINTS = 2000;

export class Marking {
  constructor(app, view) {
    this.app = app;
    this.view = view;
    this.tool = "box";
    this.radius = 12;
    this.pausing = null;
    this.corner = null; // the first corner of a box drawn by keys
    const picture = view.picture;
    picture.addEventListener("pointerdown", (event) => this.down(event));
    picture.addEventListener("pointermove", (event) => this.move(event));
    picture.addEventListener("pointerup", (event) => this.up(event));
    picture.addEventListener("pointercancel", () => this.cancel());
    picture.addEventListener("keydown", (event) => this.key(event));
    picture.addEventListener("blur", () => this.hideCursor());
  }

  down(event) {
    if (!this.view.shown || event.button) return;
    this.hideCursor();
    const point = this.view.at(event);
    if (this.tool === "look") {
      this.app.select(this.view.objectAt(point));
      return;
    }
    if (!this.app.newest()) return;
    event.preventDefault();
    this.view.picture.focus({ preventScroll: true });
    this.view.picture.setPointerCapture(event.pointerId);
    this.pausing = this.app.pause();
    this.begin(point);
  }

  move(event) {
    const draft = this.view.draft;
    if (!draft || !this.view.shown) return;
    const point = this.view.at(event);
    if (draft.tool === "box") draft.points[1] = point;
    else if (draft.points.length < MOST_POINTS && !this.tool.endsWith("point")) draft.points.push(point);
    this.view.paintMarks();
  }

  up(event) {
    if (!this.view.draft) return;
    this.move(event);
    this.finish();
  }

  cancel() {
    this.view.draft = this.corner = null;
    this.view.paintMarks();
  }

  begin(point) {
    this.view.refused = null;
    const radius = this.tool.endsWith("point") ? 3 : this.radius;
    this.view.draft = { tool: this.tool, points: [point, point], radius, colour: this.app.colour() };
    this.view.paintMarks();
  }

  async finish() {
    const draft = this.view.draft;
    this.view.draft = this.corner = null;
    await this.pausing;
    this.pausing = null;
    await this.app.attempt(async () => {
      const object = await this.app.selected();
      const request = { frame: this.app.state.source.index, object, tool: draft.tool };
      if (draft.tool === "box") request.box = boxOf(draft.points);
      else if (draft.tool.endsWith("point")) request.points = [draft.points[0].map(Math.floor)];
      else Object.assign(request, { points: draft.points.slice(1), radius: draft.radius });
      this.view.refused = draft.tool === "brush" || draft.tool === "erase" ? null : request;
      this.app.heard(await api.post("marks", request));
      this.view.refused = null;
      this.app.say(`${TOOLS.find((tool) => tool.name === draft.tool).label}: object ${object} marked`);
    });
    this.view.paintMarks();
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.view.shown || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) {
      const { width, height } = this.view.shown;
      const far = event.shiftKey ? 1 : Math.max(2, Math.round(width / 60));
      const [x, y] = this.view.cursor ?? [width / 2, height / 2];
      const [right, down] = steps[event.key];
      this.view.cursor = this.view.inside(x + far * right, y + far * down);
      if (this.view.draft) this.view.draft.points[1] = this.view.cursor;
      this.view.paintMarks();
      this.app.say(this.view.cursor.map(Math.round).join(", "));
    } else if (event.key === "Enter" && this.view.cursor) {
      this.enter();
    } else if (event.key === "Escape") {
      this.cancel();
      this.hideCursor();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  enter() {
    const point = this.view.cursor;
    if (this.tool === "look") {
      this.app.select(this.view.objectAt(point));
      return;
    }
    if (!this.app.newest()) return;
    this.pausing ??= this.app.pause();
    if (this.tool === "box" && !this.corner) {
      this.corner = point;
      this.begin(point);
      this.app.say("first corner; move to the opposite one and press Enter");
      return;
    }
    if (!this.view.draft) this.begin(point);
    this.finish();
  }

  hideCursor() {
    if (!this.view.cursor) return;
    this.view.cursor = null;
    this.view.paintMarks();
  }
}
