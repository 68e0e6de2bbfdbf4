/** The page: connects the photo, the panel and the model. */

import { Client } from "./client.js";
import { measureCoverage, uniteMattes } from "./mattes.js";
import { BackgroundPicker, makeRadioGroup, ObjectList } from "./panel.js";
import { hasPrompts, nameObject, Session } from "./session.js";
import { Stage } from "./stage.js";

const PREVIEW_SIZE = 1024;
const MAX_THREADS = 4; // more do not make a model of this size faster
const COLORS_DELAY = 250; // ms without a click until colors are cleaned
const SAMPLES = [
  ["coffee.jpg", "A cup of coffee"],
  ["cat.jpg", "A cat"],
  ["astronaut.jpg", "An astronaut"],
];
const HINTS = {
  select: "Click what to keep. Shift-click takes away, a drag draws a box.",
  result: "Drag the handle to compare. Clicks still correct the cutout.",
  matte: "White stays, black goes, gray is partly transparent.",
};
const TOUCH_HINT = "Tap what to keep. Other tools take away or draw a box.";

const find = (id) => document.getElementById(id);

/** State and behavior of the page. */
class App {
  constructor() {
    this.session = new Session();
    this.mattes = new WeakMap(); // by prompts, so that undo needs no model
    this.background = null;
    this.preview = null;
    this.colors = null;
    this.jobs = 0;
    this.client = new Client(
      (progress) => this.showProgress(progress),
      (error) => this.showModelFailure(error),
    );
    this.stage = new Stage({
      click: (x, y, label) => this.change((session) => session.addPoint(x, y, label)),
      box: (box) => this.change((session) => session.setBox(box)),
      key: (key) => this.handleStageKey(key),
      say: (text) => this.say(text),
    });
    this.list = new ObjectList({
      select: (index) => this.changeQuietly((session) => session.select(index)),
      toggle: (index) => this.change((session) => session.toggle(index)),
      remove: (index) => this.change((session) => session.remove(index)),
    });
    this.setTool = makeRadioGroup(find("tool"), (tool) => this.stage.setTool(tool));
    this.setView = makeRadioGroup(find("view"), (view) => this.showView(view));
    this.picker = new BackgroundPicker((background) => this.setBackground(background));
    this.setBackground(null);
    this.connectButtons();
    this.connectFiles();
    this.showSamples();
    this.load();
  }

  // the model

  async load() {
    document.body.dataset.model = "loading";
    const options = new URLSearchParams(location.search);
    try {
      this.device = await this.client.call("load", {
        backend: options.get("backend") ?? "auto",
        maxThreads: Number(options.get("threads") ?? Math.min(navigator.hardwareConcurrency || 1, MAX_THREADS)),
      });
    } catch (error) {
      this.showModelFailure(error);
      return;
    }
    const { backend, threads } = this.device;
    this.engine = backend === "webgpu" ? "WebGPU" : threads > 1 ? `${threads} threads` : "1 thread";
    document.body.dataset.model = "ready";
    find("device-text").textContent = "Runs on this device";
    this.say("The model is ready.");
    this.showMemory(this.device.memory);
  }

  showProgress({ kind, fraction }) {
    const percent = `${Math.round(100 * fraction)} %`;
    if (kind === "load") find("device-text").textContent = `Loading the model, ${percent}`;
    if (kind === "load" && this.opening) this.showBusy(`Loading the model, ${percent}`);
    if (kind === "save") this.showBusy(`Saving, ${percent}`);
  }

  showMemory(bytes) {
    document.body.dataset.memory = bytes;
    find("device").title = `${this.engine}, ${Math.round(bytes / 1e6)} MB`;
  }

  showModelFailure(error) {
    document.body.dataset.model = "failed";
    find("device-text").textContent = "The model could not be loaded";
    this.showError(`The model could not be loaded: ${error.message}`);
  }

  /** Run something that takes a while; meanwhile the page is marked as busy. */
  async work(job) {
    this.jobs++;
    document.body.setAttribute("aria-busy", "true");
    try {
      return await job();
    } finally {
      if (--this.jobs === 0) document.body.removeAttribute("aria-busy");
    }
  }

  // photos

  open(file, name) {
    return this.work(() => this.openPhoto(file, name));
  }

  async openPhoto(file, name) {
    if (this.saving) return;
    const opening = (this.opening = {});
    this.say(`Opening ${name}`);
    this.showBusy("Reading the photo");
    try {
      const { preview, size, ms, memory } = await this.client.call("open", { file, longest: PREVIEW_SIZE });
      if (this.opening !== opening) return;
      this.showMemory(memory);
      Object.assign(this, { preview, size, encodeTime: ms, decodeTime: null, name, colors: null });
      this.session = new Session();
      document.body.dataset.state = "photo";
      this.stage.showPhoto(preview);
      this.setView("select");
      this.showView("select");
      this.setTool("add");
      this.stage.setTool("add");
      find("name").value = "";
      find("marks").setAttribute("aria-label", `Photo ${name}, ${size.width} by ${size.height} pixels`);
      this.showTiming();
      this.draw();
      find("marks").focus({ preventScroll: true });
      this.say(`${name} is open. Click what you want to keep.`);
    } catch (error) {
      if (this.opening === opening) this.showError(error.message);
    } finally {
      if (this.opening === opening) {
        this.opening = null;
        this.showBusy(null);
      }
    }
  }

  connectFiles() {
    const file = find("file");
    const choose = () => file.click();
    find("choose").onclick = choose;
    find("replace").onclick = choose;
    file.onchange = () => {
      if (file.files.length) this.open(file.files[0], file.files[0].name);
      file.value = "";
    };
    const root = document.documentElement;
    root.addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dragging");
    });
    root.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dragging");
    });
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      this.takeFiles(event.dataTransfer.files);
    });
    root.addEventListener("paste", (event) => this.takeFiles(event.clipboardData.files));
  }

  takeFiles(files) {
    const file = [...files].find((each) => each.type.startsWith("image/"));
    if (file) this.open(file, file.name);
    else if (files.length) this.showError(`${files[0].name} is not a photo.`);
  }

  showSamples() {
    for (const [name, title] of SAMPLES) {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const image = document.createElement("img");
      button.type = "button";
      button.title = title;
      image.src = `photos/${name}`;
      image.alt = title;
      button.append(image);
      button.onclick = async () => this.open(await (await fetch(image.src)).blob(), name);
      item.append(button);
      find("samples").append(item);
    }
  }

  // prompts and mattes

  change(step) {
    if (!this.preview || this.opening || this.saving) return;
    step(this.session);
    this.update();
  }

  changeQuietly(step) {
    step(this.session);
    this.draw();
  }

  /** Decode what has no matte yet, the newest state only, and draw. */
  update() {
    return this.work(() => this.decodeNewest());
  }

  async decodeNewest() {
    this.draw();
    if (this.updating) {
      this.isStale = true;
      return;
    }
    this.updating = true;
    try {
      do {
        this.isStale = false;
        await this.decodeMissing();
      } while (this.isStale);
    } catch (error) {
      this.session.undo();
      this.showError(error.message);
      this.draw();
    } finally {
      this.updating = false;
    }
  }

  async decodeMissing() {
    const { preview, session } = this;
    for (const { visible, prompts } of session.objects) {
      if (!visible || !hasPrompts(prompts) || this.mattes.has(prompts)) continue;
      const { matte, ms } = await this.client.call("decode", { prompts });
      if (this.preview !== preview) return;
      this.mattes.set(prompts, matte);
      this.decodeTime = ms;
      this.showTiming();
      this.draw();
      if (prompts.text && !matte.some(Boolean)) this.showError(`“${prompts.text}” does not seem to be in the photo.`);
      else this.say(`The matte covers ${Math.round(100 * measureCoverage(matte))} % of the photo.`);
    }
  }

  /** Return the mattes of the visible objects together, or null if there are none. */
  unite() {
    const { width, height } = this.preview;
    const mattes = this.session.objects
      .filter((object) => object.visible && this.mattes.has(object.prompts))
      .map((object) => this.mattes.get(object.prompts));
    return mattes.length ? uniteMattes(mattes, width * height) : null;
  }

  draw() {
    if (!this.preview) return;
    const { session } = this;
    const object = session.objects[session.active];
    const union = this.unite();
    if (this.colors && !isSame(this.colors.matte, union)) this.colors = null;
    this.union = union;
    this.stage.showPrompts(object.prompts);
    this.stage.draw({
      union,
      active: object.visible ? this.mattes.get(object.prompts) : null,
      colors: this.colors?.colors,
    });
    this.list.draw(session, (each) => this.mattes.get(each.prompts), this.preview);
    this.enableButtons(union !== null);
    if (document.activeElement !== find("name")) find("name").value = object.prompts.text;
    this.cleanColorsSoon();
  }

  /** Estimate the colors without those of the background once the visitor looks at the result. */
  cleanColorsSoon() {
    clearTimeout(this.colorsTimer);
    if (!this.union || this.colors || find("frame").dataset.view !== "result") return;
    const { preview, union } = this;
    const clean = async () => {
      const { colors } = await this.client.call("cleanColors", { matte: union });
      if (this.preview !== preview || !isSame(this.union, union)) return;
      this.colors = { matte: union, colors };
      this.draw();
    };
    this.colorsTimer = setTimeout(() => this.work(clean), COLORS_DELAY);
  }

  // saving

  /** Make a PNG of the full size: "cutout" or "matte". */
  async makeFile(kind) {
    const { width, height } = this.preview;
    const objects = this.session.objects.filter((each) => each.visible && hasPrompts(each.prompts));
    const background = this.background && { color: this.background.color, picture: this.background.picture };
    this.saving = true;
    this.enableButtons(false);
    this.showBusy("Saving");
    this.say("Saving");
    try {
      return await this.client.call("save", {
        kind,
        objects: objects.map((each) => each.prompts),
        preview: { width, height },
        background,
      });
    } finally {
      this.saving = false;
      this.showBusy(null);
      this.enableButtons(this.union !== null);
    }
  }

  save(kind) {
    return this.work(() => this.saveFile(kind));
  }

  async saveFile(kind) {
    if (!this.union || this.saving) return;
    try {
      const { file, ms } = await this.makeFile(kind);
      const link = document.createElement("a");
      const suffix = kind === "cutout" && this.background ? "new-background" : kind;
      link.href = URL.createObjectURL(file);
      link.download = `${this.name.replace(/\.[^.]*$/, "")}-${suffix}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      this.say(`Saved ${link.download}, ${(ms / 1000).toFixed(1)} seconds.`);
    } catch (error) {
      this.showError(error.message);
    }
  }

  async copy() {
    if (!this.union || this.saving) return;
    try {
      // Safari wants the promise, not what it resolves to
      const file = this.makeFile("cutout").then((result) => result.file);
      await navigator.clipboard.write([new ClipboardItem({ "image/png": file })]);
      this.showError("Copied.");
    } catch (error) {
      this.showError(`The cutout could not be copied: ${error.message}`);
    }
  }

  setBackground(background) {
    this.background = background;
    const { style, classList } = find("result");
    classList.toggle("transparent", !background);
    style.backgroundColor = background?.color ?? "";
    style.backgroundImage = background?.url ? `url("${background.url}")` : "";
    find("save").textContent = background ? "Save picture" : "Save cutout";
    if (this.preview && background) {
      this.setView("result");
      this.showView("result");
    }
  }

  // buttons, keys and messages

  connectButtons() {
    find("undo").onclick = () => this.change((session) => session.undo());
    find("redo").onclick = () => this.change((session) => session.redo());
    find("new-object").onclick = () => this.addObject();
    find("salient").onclick = () => this.change((session) => session.setSalient());
    find("save").onclick = () => this.save("cutout");
    find("save-matte").onclick = () => this.save("matte");
    find("copy").onclick = () => this.copy();
    find("theme").onclick = switchTheme;
    find("slider").oninput = ({ target }) => this.setSplit(target.value);
    find("name-form").onsubmit = (event) => {
      event.preventDefault();
      this.change((session) => session.setText(find("name").value.trim()));
    };
    document.addEventListener("keydown", (event) => this.handleKey(event));
  }

  handleKey(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.target.matches('input[type="text"]')) return;
    const key = event.key.toLowerCase();
    if (key === "z") this.change((session) => (event.shiftKey ? session.redo() : session.undo()));
    else if (key === "y") this.change((session) => session.redo());
    else if (key === "s" && this.preview) this.save("cutout");
    else return;
    event.preventDefault();
  }

  handleStageKey(key) {
    const actions = {
      a: () => this.chooseTool("add"),
      r: () => this.chooseTool("remove"),
      n: () => this.addObject(),
      t: () => find("name").focus(),
      Backspace: () => this.change((session) => session.undo()),
      1: () => this.chooseView("select"),
      2: () => this.chooseView("result"),
      3: () => this.chooseView("matte"),
    };
    actions[key]?.();
    return key in actions;
  }

  chooseTool(tool) {
    this.setTool(tool);
    this.stage.setTool(tool);
    this.say(tool === "add" ? "Clicks add." : "Clicks take away.");
  }

  chooseView(view) {
    this.setView(view);
    this.showView(view);
    this.say(`View: ${view}`);
  }

  showView(view) {
    find("frame").dataset.view = view;
    const isTouch = matchMedia("(pointer: coarse)").matches;
    find("hint").textContent = view === "select" && isTouch ? TOUCH_HINT : HINTS[view];
    this.draw();
  }

  addObject() {
    this.change((session) => session.addObject());
    this.say(`${nameObject(this.session.objects[this.session.active])}: click it in the photo.`);
  }

  setSplit(percent) {
    find("frame").style.setProperty("--split", `${percent}%`);
  }

  enableButtons(hasMatte) {
    find("undo").disabled = this.saving || !this.session.canUndo;
    find("redo").disabled = this.saving || !this.session.canRedo;
    for (const id of ["save", "save-matte", "copy"]) find(id).disabled = this.saving || !hasMatte;
    const { size } = this;
    find("save-note").textContent = size ? `PNG, ${size.width} × ${size.height} pixels` : "";
  }

  showTiming() {
    const parts = [];
    if (this.decodeTime !== null) parts.push(`Matte ${Math.round(this.decodeTime)} ms`);
    parts.push(`photo ${Math.round(this.encodeTime)} ms`, this.engine);
    find("timing").textContent = parts.join(" · ");
  }

  showBusy(text) {
    find("busy").hidden = text === null;
    find("busy-text").textContent = text ?? "";
  }

  showError(text) {
    const toast = find("toast");
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => (toast.hidden = true), 7000);
  }

  say(text) {
    find("live").textContent = text;
  }
}

function isSame(first, second) {
  if (first === second) return true;
  if (!first || !second || first.length !== second.length) return false;
  return first.every((value, i) => value === second[i]);
}

function switchTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // storage is switched off: it lasts as long as the page
  }
}

if (!window.fclmUnsupported.length) new App();
