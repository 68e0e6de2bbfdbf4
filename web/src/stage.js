/** The photo: what is drawn over it, and what pointer and keyboard do on it. */

import { fillCutout, fillGray, fillShade } from "./mattes.js";

const SVG = "http://www.w3.org/2000/svg";
const DRAG = 5; // pixels of the screen from which on a press is a box
const STEP = 0.01;
const LARGE_STEP = 0.06;

/** Draws the photo with its selection and turns presses and keys into clicks and boxes. */
export class Stage {
  /**
   * @param {object} on What to do.
   * @param {(x: number, y: number, label: 0 | 1) => void} on.click A place was clicked, in pixels of the preview.
   * @param {(box: number[]) => void} on.box A box was drawn.
   * @param {(key: string) => boolean} on.key A key without a meaning here was pressed; returns whether it has one.
   * @param {(text: string) => void} on.say Tells a screen reader something.
   */
  constructor(on) {
    this.on = on;
    this.tool = "add";
    this.frame = document.getElementById("frame");
    this.marks = document.getElementById("marks");
    this.canvases = Object.fromEntries(
      ["photo", "shade", "cutout", "matte"].map((id) => [id, document.getElementById(id)]),
    );
    this.pointer = null;
    this.cursor = null;
    this.corner = null;
    this.prompts = { points: [], box: null };
    this.marks.addEventListener("pointerdown", (event) => this.press(event));
    this.marks.addEventListener("pointermove", (event) => this.move(event));
    this.marks.addEventListener("pointerup", (event) => this.release(event));
    this.marks.addEventListener("pointercancel", () => this.cancel());
    this.marks.addEventListener("contextmenu", (event) => event.preventDefault());
    this.marks.addEventListener("keydown", (event) => this.handleKey(event));
    new ResizeObserver(() => this.drawMarks()).observe(this.frame);
  }

  /** Show a photo, `pixels` in RGBA of the size of the preview. */
  showPhoto({ pixels, width, height }) {
    this.width = width;
    this.height = height;
    this.frame.style.setProperty("--aspect", width / height);
    for (const canvas of Object.values(this.canvases)) {
      canvas.width = width;
      canvas.height = height;
    }
    this.pixels = pixels;
    this.canvases.photo.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    this.images = new Map();
    this.cursor = { x: width / 2, y: height / 2 };
    this.corner = null;
    this.marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }

  /**
   * Draw the selection.
   *
   * @param {object} selection
   * @param {Uint8Array | null} selection.union Matte of all visible objects, or null if nothing is selected.
   * @param {Uint8Array | null} selection.active Matte of the active object.
   * @param {Uint8Array | null} selection.colors Clean colors, RGB, once they are known.
   */
  draw({ union, active, colors }) {
    const view = this.frame.dataset.view;
    const empty = union ?? new Uint8Array(this.width * this.height);
    if (view === "select") this.paint("shade", (image) => union ? fillShade(image, union, active) : image.data.fill(0));
    if (view === "result") this.paint("cutout", (image) => fillCutout(image, colors ?? this.pixels, empty));
    if (view === "matte") this.paint("matte", (image) => fillGray(image, empty));
  }

  paint(name, fill) {
    if (!this.images.has(name)) this.images.set(name, new ImageData(this.width, this.height));
    const image = this.images.get(name);
    fill(image);
    this.canvases[name].getContext("2d").putImageData(image, 0, 0);
  }

  /** Show the clicks and the box of an object. */
  showPrompts(prompts) {
    this.prompts = prompts;
    this.drawMarks();
  }

  /** Set what a click does: "add", "remove" or "box". */
  setTool(tool) {
    this.tool = tool;
    this.frame.dataset.tool = tool;
  }

  drawMarks() {
    if (!this.width) return;
    const unit = this.width / (this.frame.clientWidth || this.width); // pixels of the preview per pixel of the screen
    this.marks.replaceChildren();
    const box = this.pointer?.box ?? this.prompts.box;
    if (box) this.marks.append(makeBox(box));
    for (const { x, y, label } of this.prompts.points) this.marks.append(makePoint(x, y, label, unit));
    if (this.cursor) this.marks.append(makeCursor(this.cursor, 13 * unit, this.corner));
  }

  press(event) {
    if (!event.isPrimary || event.button === 1) return;
    this.marks.classList.remove("keys");
    this.marks.setPointerCapture(event.pointerId);
    this.pointer = { start: this.locate(event), clientX: event.clientX, clientY: event.clientY, box: null };
  }

  move(event) {
    const { pointer } = this;
    if (!pointer) return;
    const distance = Math.hypot(event.clientX - pointer.clientX, event.clientY - pointer.clientY);
    const canDrag = event.pointerType !== "touch" || this.tool === "box";
    if (!canDrag || (distance < DRAG && !pointer.box)) return;
    pointer.box = makeCorners(pointer.start, this.locate(event));
    this.drawMarks();
  }

  release(event) {
    const { pointer } = this;
    this.cancel();
    if (!pointer) return;
    const [x, y] = pointer.start;
    if (!pointer.box) {
      const takesAway = this.tool === "remove" || event.shiftKey || event.button === 2;
      if (this.tool === "box") this.on.say("Drag to draw a box.");
      else this.on.click(x, y, takesAway ? 0 : 1);
      return;
    }
    this.giveBox(pointer.box);
  }

  cancel() {
    this.pointer = null;
    this.drawMarks();
  }

  giveBox(box) {
    if (box[2] - box[0] >= 2 && box[3] - box[1] >= 2) this.on.box(box);
  }

  /** Return where an event happened, in pixels of the preview. */
  locate(event) {
    const bounds = this.marks.getBoundingClientRect();
    const place = (value, start, length, size) => Math.min(Math.max((value - start) / length, 0), 1) * size;
    return [
      place(event.clientX, bounds.left, bounds.width, this.width),
      place(event.clientY, bounds.top, bounds.height, this.height),
    ];
  }

  handleKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (arrow) this.moveCursor(arrow, event.shiftKey ? LARGE_STEP : STEP);
    else if (key === "Enter" || key === " ") this.clickCursor(event.shiftKey);
    else if (key === "b") this.setCorner();
    else if (key === "Escape" && this.corner) this.corner = null;
    else if (!this.on.key(key)) return;
    event.preventDefault();
    this.marks.classList.add("keys");
    this.drawMarks();
  }

  moveCursor([dx, dy], step) {
    const length = step * Math.max(this.width, this.height);
    const clamp = (value, size) => Math.min(Math.max(value, 0), size);
    this.cursor = { x: clamp(this.cursor.x + dx * length, this.width), y: clamp(this.cursor.y + dy * length, this.height) };
    this.on.say(this.describe(this.cursor));
  }

  clickCursor(takesAway) {
    const { x, y } = this.cursor;
    this.on.click(x, y, takesAway || this.tool === "remove" ? 0 : 1);
  }

  setCorner() {
    const { x, y } = this.cursor;
    if (!this.corner) {
      this.corner = [x, y];
      this.on.say(`Box starts at ${this.describe(this.cursor)}.`);
      return;
    }
    const box = makeCorners(this.corner, [x, y]);
    this.corner = null;
    this.giveBox(box);
  }

  describe({ x, y }) {
    return `${Math.round((100 * x) / this.width)} % across, ${Math.round((100 * y) / this.height)} % down`;
  }
}

function makeCorners([x0, y0], [x1, y1]) {
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
}

function makeShape(name, attributes, parent) {
  const shape = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  parent?.append(shape);
  return shape;
}

function makePoint(x, y, label, unit) {
  const group = makeShape("g", { class: "mark", transform: `translate(${x} ${y}) scale(${unit})` });
  makeShape("circle", { r: 9, class: label ? "add" : "remove" }, group);
  makeShape("path", { d: label ? "M-4 0H4M0-4V4" : "M-4 0H4" }, group);
  return group;
}

function makeBox([x0, y0, x1, y1]) {
  const group = makeShape("g", { class: "mark" });
  const place = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  makeShape("rect", { ...place, class: "under" }, group);
  makeShape("rect", place, group);
  return group;
}

function makeCursor({ x, y }, reach, corner) {
  const group = makeShape("g", { class: "cursor" });
  const cross = `M${x - reach} ${y}H${x + reach}M${x} ${y - reach}V${y + reach}`;
  const box = corner ? `M${corner[0]} ${corner[1]}H${x}V${y}H${corner[0]}Z` : "";
  for (const name of ["under", "over"]) makeShape("path", { d: cross + box, class: name, fill: "none" }, group);
  return group;
}
