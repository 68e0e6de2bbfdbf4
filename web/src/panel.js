/** The list of objects and the choice of a background. */

import { fillCutout, findBounds } from "./mattes.js";
import { describePrompts, nameObject } from "./session.js";

const THUMB = 68;
const EYE = "M2.5 10S5 5 10 5s7.5 5 7.5 5-2.5 5-7.5 5-7.5-5-7.5-5z";
const PICTURE_ICON =
  '<svg viewBox="0 0 20 20" aria-hidden="true"><rect x="2.5" y="4" width="15" height="12" rx="2"/>' +
  '<circle cx="7" cy="8.5" r="1.3"/><path d="m3.5 14.5 4-3.5 3 2.5 2.5-2 4 3.5"/></svg>';
const COLORS = [
  ["white", "#ffffff"],
  ["light gray", "#e7e7e4"],
  ["black", "#101114"],
  ["blue", "#9ec1e8"],
  ["sand", "#ecd9bd"],
];

/**
 * Make the buttons of a radio group work as one control: arrow keys move and choose, Tab leaves.
 *
 * @param {HTMLElement} group Element with the role "radiogroup".
 * @param {(value: string) => void} onChoose Called with the `data-value` of the chosen button.
 * @returns {(value: string) => void} Chooses without calling `onChoose`.
 */
export function makeRadioGroup(group, onChoose) {
  const getRadios = () => [...group.querySelectorAll('[role="radio"]')];
  const choose = (value) => {
    for (const radio of getRadios()) {
      const isChosen = radio.dataset.value === value;
      radio.setAttribute("aria-checked", String(isChosen));
      radio.tabIndex = isChosen ? 0 : -1;
    }
  };
  group.addEventListener("click", (event) => {
    const radio = event.target.closest('[role="radio"]');
    if (!radio || radio.dataset.own) return;
    choose(radio.dataset.value);
    onChoose(radio.dataset.value);
  });
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const radios = getRadios();
    const at = radios.indexOf(event.target);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = radios[(at + step + radios.length) % radios.length];
    next.focus();
    if (next.dataset.own) return;
    choose(next.dataset.value);
    onChoose(next.dataset.value);
  });
  return choose;
}

/** Shows the objects of a session. */
export class ObjectList {
  /** @param {{ select: Function, toggle: Function, remove: Function }} on Called with the index of an object. */
  constructor(on) {
    this.on = on;
    this.list = document.getElementById("objects");
  }

  /**
   * @param {Session} session The objects.
   * @param {(object: object) => Uint8Array | undefined} getMatte Returns the matte of an object.
   * @param {{ pixels: Uint8ClampedArray, width: number, height: number }} preview The photo.
   */
  draw(session, getMatte, preview) {
    const focused = document.activeElement?.dataset?.key;
    this.list.replaceChildren(
      ...session.objects.map((object, index) => this.makeItem(object, index, session, getMatte(object), preview)),
    );
    if (focused) this.list.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  makeItem(object, index, session, matte, preview) {
    const item = makeElement("li", { class: index === session.active ? "active" : "" });
    item.classList.toggle("off", !object.visible);
    const name = nameObject(object);
    const pick = makeElement("button", { type: "button", class: "pick", "data-key": `pick-${object.id}` });
    if (index === session.active) pick.setAttribute("aria-current", "true");
    const label = makeElement("span", { class: "label" });
    label.append(makeElement("b", {}, name), makeElement("small", {}, describePrompts(object.prompts)));
    pick.append(makeThumb(matte, preview), label);
    pick.onclick = () => this.on.select(index);
    const eye = makeIcon(object.visible ? `Hide ${name}` : `Show ${name}`, [EYE, object.visible ? "M10 8a2 2 0 1 1 0 4 2 2 0 0 1 0-4z" : "M4 16 16 4"]); // prettier-ignore
    eye.dataset.key = `eye-${object.id}`;
    eye.onclick = () => this.on.toggle(index);
    const bin = makeIcon(`Remove ${name}`, ["M5.5 5.5l9 9M14.5 5.5l-9 9"]);
    bin.onclick = () => this.on.remove(index);
    item.append(pick, eye, bin);
    return item;
  }
}

/** Lets the visitor choose what comes behind a cutout. */
export class BackgroundPicker {
  /** @param {(background: { color?: string, picture?: Blob } | null) => void} onChoose Called with null for none. */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.picture = null;
    this.file = document.getElementById("picture-file");
    const group = document.getElementById("background");
    group.append(makeSwatch("none", "transparent", "transparent"));
    for (const [name, color] of COLORS) group.append(makeSwatch(color, name, "", color));
    this.any = makeSwatch("any", "any color", "any", "#7fb069");
    this.color = makeElement("input", { type: "color", value: "#7fb069", tabindex: "-1", "aria-label": "Any color" });
    this.any.append(this.color);
    this.own = makeSwatch("picture", "a picture of yours", "", "");
    this.own.dataset.own = "true";
    this.own.innerHTML = PICTURE_ICON;
    group.append(this.any, this.own);
    this.choose = makeRadioGroup(group, (value) => this.take(value));
    this.choose("none");
    this.color.addEventListener("input", () => this.take("any"));
    this.color.addEventListener("click", (event) => event.stopPropagation());
    this.own.addEventListener("click", () => this.file.click());
    this.file.addEventListener("change", () => this.takePicture());
  }

  take(value) {
    if (value === "none") this.onChoose(null);
    else if (value === "any") {
      this.any.style.setProperty("--swatch", this.color.value);
      this.onChoose({ color: this.color.value });
      if (document.activeElement !== this.color) this.color.showPicker?.();
    } else this.onChoose({ color: value });
  }

  takePicture() {
    const [picture] = this.file.files;
    this.file.value = "";
    if (!picture) return;
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(picture);
    this.own.style.backgroundImage = `url("${this.url}")`;
    this.own.classList.add("has-picture");
    this.choose("picture");
    this.onChoose({ picture, url: this.url });
  }
}

function makeSwatch(value, name, className, color) {
  const title = name[0].toUpperCase() + name.slice(1);
  const swatch = makeElement("button", { type: "button", role: "radio", class: className, "data-value": value, title, "aria-label": title }); // prettier-ignore
  if (color) swatch.style.setProperty("--swatch", color);
  return swatch;
}

/** Return a small picture of a cutout. */
function makeThumb(matte, { pixels, width, height }) {
  const thumb = makeElement("canvas", { class: "thumb", "aria-hidden": "true" });
  const bounds = matte && findBounds(matte, width);
  thumb.width = thumb.height = THUMB;
  if (!bounds) return thumb;
  const [x0, y0, x1, y1] = bounds;
  const whole = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  fillCutout(image, pixels, matte);
  whole.getContext("2d").putImageData(image, 0, 0, x0, y0, x1 - x0, y1 - y0);
  const scale = Math.min((THUMB - 6) / (x1 - x0), (THUMB - 6) / (y1 - y0));
  const size = [(x1 - x0) * scale, (y1 - y0) * scale];
  const context = thumb.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(whole, x0, y0, x1 - x0, y1 - y0, (THUMB - size[0]) / 2, (THUMB - size[1]) / 2, ...size);
  return thumb;
}

function makeIcon(label, paths) {
  const button = makeElement("button", { type: "button", class: "icon", "aria-label": label, title: label });
  button.innerHTML = `<svg viewBox="0 0 20 20" aria-hidden="true">${paths.map((d) => `<path d="${d}"/>`).join("")}</svg>`;
  return button;
}

function makeElement(name, attributes = {}, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}
