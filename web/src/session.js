/** What the visitor has marked, with undo. States are never changed in place. */

const MAX_HISTORY = 60;
const NO_PROMPTS = Object.freeze({ points: [], box: null, text: "", salient: false });

/**
 * @typedef {object} Prompts
 * @property {{ x: number, y: number, label: 0 | 1 }[]} points Clicks in pixels of the preview.
 * @property {number[] | null} box Corners x0, y0, x1, y1 in pixels of the preview.
 * @property {string} text Name of the object, or "".
 * @property {boolean} salient Whether "what stands out" was asked for.
 */

/** Return whether prompts name something. */
export function hasPrompts(prompts) {
  return prompts.salient || prompts.points.length > 0 || prompts.box !== null || prompts.text !== "";
}

/** The objects of a photo and which of them is being marked, with undo and redo. */
export class Session {
  constructor() {
    this.nextId = 1;
    this.history = [{ objects: [this.makeObject()], active: 0 }];
    this.place = 0;
  }

  /** The objects, `{ id, visible, prompts }`. */
  get objects() {
    return this.history[this.place].objects;
  }

  /** Index of the object that prompts go to. */
  get active() {
    return this.history[this.place].active;
  }

  get canUndo() {
    return this.place > 0;
  }

  get canRedo() {
    return this.place < this.history.length - 1;
  }

  undo() {
    if (this.canUndo) this.place--;
  }

  redo() {
    if (this.canRedo) this.place++;
  }

  /** Add a click to the active object. */
  addPoint(x, y, label) {
    this.changePrompts((prompts) => ({ ...prompts, salient: false, points: [...prompts.points, { x, y, label }] }));
  }

  /** Set the box of the active object. */
  setBox(box) {
    this.changePrompts((prompts) => ({ ...prompts, salient: false, box }));
  }

  /** Set the name of the active object. */
  setText(text) {
    this.changePrompts((prompts) => ({ ...prompts, salient: false, text }));
  }

  /** Make the active object, or a new one if it is marked already, what stands out. */
  setSalient() {
    if (hasPrompts(this.objects[this.active].prompts)) this.addObject();
    this.changePrompts(() => ({ ...NO_PROMPTS, salient: true }));
  }

  /** Start another object, unless the last one is still unmarked. */
  addObject() {
    const last = this.objects.length - 1;
    if (!hasPrompts(this.objects[last].prompts)) this.select(last);
    else this.push([...this.objects, this.makeObject()], last + 1);
  }

  /** Let prompts go to another object. This alone is not a step of the history. */
  select(index) {
    this.history[this.place] = { ...this.history[this.place], active: index };
  }

  /** Remove an object. */
  remove(index) {
    const left = this.objects.filter((_, i) => i !== index);
    const active = this.active > index ? this.active - 1 : this.active;
    this.push(left.length ? left : [this.makeObject()], Math.min(active, Math.max(left.length - 1, 0)));
  }

  /** Show a hidden object or hide a visible one. */
  toggle(index) {
    this.push(this.objects.map((each, i) => (i === index ? { ...each, visible: !each.visible } : each)), this.active);
  }

  makeObject() {
    return { id: this.nextId++, visible: true, prompts: NO_PROMPTS };
  }

  changePrompts(change) {
    const objects = this.objects.map((each, i) =>
      i === this.active ? { ...each, visible: true, prompts: change(each.prompts) } : each,
    );
    this.push(objects, this.active);
  }

  push(objects, active) {
    this.history = [...this.history.slice(0, this.place + 1), { objects, active }].slice(-MAX_HISTORY);
    this.place = this.history.length - 1;
  }
}

/** Return what an object is called: its name, or its number. */
export function nameObject(object) {
  if (object.prompts.text) return object.prompts.text;
  return object.prompts.salient ? "What stands out" : `Object ${object.id}`;
}

/** Return how an object is marked, such as "2 clicks, box". */
export function describePrompts({ points, box, text, salient }) {
  const parts = [];
  if (text) parts.push("name");
  if (points.length) parts.push(points.length === 1 ? "1 click" : `${points.length} clicks`);
  if (box) parts.push("box");
  if (salient) parts.push("no prompt needed");
  return parts.join(", ") || "click it in the photo";
}
