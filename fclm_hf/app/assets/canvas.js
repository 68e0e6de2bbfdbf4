// The canvas of `fclm app`: draws what Python sends, and sends what the visitor does. Prompts live in Python.
const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const canvas = find("canvas"), context = canvas.getContext("2d"), stage = find(".stage");
const DRAG = 6; // CSS pixels that tell a drag from a click
const HINTS = {
  add: "Click on the object. Shift-click takes away, dragging draws a box.",
  remove: "Click on what does not belong to the object.",
  box: "Drag a box around the object, or click two opposite corners.",
};
let tool = "add", photo = null, overlay = null, bare = false;
let start = null, corner = null, pointer = null, cursor = null;

const view = () => props.value || { objects: [{ points: [], box: null }], selected: 0, can_undo: false };
const act = (kind, data = {}) => trigger("act", { kind, ...data });

function loadPicture(url, done) {
  if (!url) return done(null);
  const picture = new Image();
  picture.onload = () => done(picture);
  picture.src = url;
}

function showPhoto() {
  const { url } = props.photo || {};
  overlay = corner = start = pointer = cursor = null;
  loadPicture(url, (picture) => {
    photo = picture;
    stage.classList.toggle("photo", !!photo);
    find(".objects").classList.toggle("photo", !!photo);
    if (photo) [canvas.width, canvas.height] = [photo.width, photo.height];
    choose("add");
    fit();
  });
}

function fit() {
  if (!photo) return;
  const scale = Math.min(stage.clientWidth / canvas.width, stage.clientHeight / canvas.height);
  [canvas.style.width, canvas.style.height] = [canvas.width, canvas.height].map((each) => `${each * scale}px`);
  draw();
}

function showView() {
  const { overlay: url, can_undo, objects } = view();
  find('[data-act="undo"]').disabled = !can_undo;
  find('[data-act="clear"]').disabled = !objects.some((each) => !each.empty);
  find("[data-hold]").disabled = !url;
  listObjects();
  loadPicture(url, (picture) => { overlay = picture; draw(); });
}

function makeButton(label, className, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = className;
  button.append(...label);
  button.onclick = action;
  return button;
}

function listObjects() {
  const { objects, selected } = view();
  const chips = objects.map((each, index) => {
    const dot = document.createElement("i");
    dot.style.background = each.color;
    const chip = makeButton([dot, each.label], "", () => act("select", { index }));
    chip.setAttribute("aria-pressed", index === selected);
    return chip;
  });
  chips.push(makeButton(["+ Another object"], "quiet", () => act("add_object")));
  if (objects.length > 1) chips.push(makeButton(["Remove object"], "quiet", () => act("remove_object")));
  find(".objects").replaceChildren(...chips);
}

function drawMark(x, y, label, unit) {
  context.beginPath();
  context.arc(x, y, 8 * unit, 0, 2 * Math.PI);
  context.fillStyle = label ? "#16a34a" : "#dc2626";
  context.fill();
  context.lineWidth = 2 * unit;
  context.strokeStyle = "white";
  context.stroke();
  context.beginPath();
  context.moveTo(x - 4 * unit, y);
  context.lineTo(x + 4 * unit, y);
  if (label) { context.moveTo(x, y - 4 * unit); context.lineTo(x, y + 4 * unit); }
  context.stroke();
}

function drawBox([x0, y0, x1, y1], color, unit, dashed) {
  for (const [width, style] of [[5, "rgba(255,255,255,.85)"], [2.5, color]]) {
    context.setLineDash(dashed ? [6 * unit, 5 * unit] : []);
    context.lineWidth = width * unit;
    context.strokeStyle = style;
    context.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
  }
  context.setLineDash([]);
}

function draw() {
  if (!photo) return;
  const unit = canvas.width / Math.max(1, canvas.clientWidth);
  const scale = canvas.width / (props.photo.width || 1);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(photo, 0, 0);
  if (bare) return;
  if (overlay) {
    context.fillStyle = "rgba(10, 12, 24, .45)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(overlay, 0, 0, canvas.width, canvas.height);
  }
  const { objects, selected } = view(), object = objects[selected];
  if (object.box) drawBox(object.box.map((each) => each * scale), object.color, unit, false);
  for (const [x, y, label] of object.points) drawMark(x * scale, y * scale, label, unit);
  const from = corner || (start && start.moved ? start : null);
  if (from && pointer) drawBox([from.x, from.y, pointer.x, pointer.y], "#111827", unit, true);
  if (corner && !pointer) drawBox([corner.x, corner.y, corner.x, corner.y], "#111827", unit, false);
  if (cursor) {
    context.lineWidth = 1.5 * unit;
    context.strokeStyle = "white";
    context.strokeRect(cursor.x - 9 * unit, cursor.y - 9 * unit, 18 * unit, 18 * unit);
    context.strokeStyle = "#111827";
    context.strokeRect(cursor.x - 11 * unit, cursor.y - 11 * unit, 22 * unit, 22 * unit);
  }
}

function locate(event) {
  const area = canvas.getBoundingClientRect();
  return {
    x: (event.clientX - area.left) * canvas.width / area.width,
    y: (event.clientY - area.top) * canvas.height / area.height,
  };
}

const toPhoto = (value) => value * props.photo.width / canvas.width;
const sendBox = (from, to) => act("box", { box: [from.x, from.y, to.x, to.y].map(toPhoto) });

function press(place, away) {
  if (tool === "box" && !away) {
    if (corner) { sendBox(corner, place); corner = pointer = null; } else corner = place;
    return draw();
  }
  const label = away || tool === "remove" ? 0 : 1, [x, y] = [toPhoto(place.x), toPhoto(place.y)];
  drawMark(place.x, place.y, label, canvas.width / canvas.clientWidth); // at once; Python's answer follows
  act("point", { x, y, label });
}

function choose(name) {
  tool = name;
  corner = pointer = null;
  stage.classList.toggle("box", tool === "box");
  for (const button of all("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === tool);
  find(".hint").textContent = photo ? HINTS[tool] : "";
  draw();
}

function sendFile(files) {
  const input = document.querySelector("#fclm-hidden input[type=file]");
  if (!input || !files.length) return;
  const chosen = new DataTransfer();
  chosen.items.add(files[0]);
  input.files = chosen.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

canvas.onpointerdown = (event) => {
  if (event.button > 2) return;
  canvas.setPointerCapture(event.pointerId);
  start = { ...locate(event), clientX: event.clientX, clientY: event.clientY, moved: false };
};
canvas.onpointermove = (event) => {
  if (start && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > DRAG) start.moved = true;
  if (start?.moved || corner) { pointer = locate(event); draw(); }
};
canvas.onpointerup = (event) => {
  if (!start) return;
  const from = start, place = locate(event);
  start = pointer = cursor = null;
  if (from.moved) { corner = null; sendBox(from, place); draw(); }
  else press(place, event.shiftKey || event.button === 2);
};
canvas.onpointercancel = () => { start = pointer = null; draw(); };
canvas.oncontextmenu = (event) => event.preventDefault(); // the right button takes away

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { a: "add", r: "remove", b: "box" };
canvas.onkeydown = (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "z" && (event.ctrlKey || event.metaKey)) act("undo");
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (MOVES[key]) {
    const step = (event.shiftKey ? 2 : 16) * canvas.width / canvas.clientWidth;
    cursor ||= { x: canvas.width / 2, y: canvas.height / 2 };
    cursor.x = Math.min(canvas.width, Math.max(0, cursor.x + step * MOVES[key][0]));
    cursor.y = Math.min(canvas.height, Math.max(0, cursor.y + step * MOVES[key][1]));
    if (corner) pointer = { ...cursor };
    draw();
  } else if ((key === "Enter" || key === " ") && cursor) press({ ...cursor }, event.shiftKey);
  else if (key === "Escape") { corner = pointer = cursor = null; draw(); }
  else if (TOOLS[key]) choose(TOOLS[key]);
  else return;
  event.preventDefault();
};

for (const button of all("[data-tool]")) button.onclick = () => choose(button.dataset.tool);
for (const button of all("[data-act]")) button.onclick = () => act(button.dataset.act);
for (const button of all("[data-choose]"))
  button.onclick = () => document.querySelector("#fclm-hidden input[type=file]")?.click();
const hold = find("[data-hold]");
for (const [names, value] of [["pointerdown keydown", true], ["pointerup pointerleave keyup blur", false]])
  for (const name of names.split(" ")) hold.addEventListener(name, () => { bare = value; draw(); });

stage.ondragover = (event) => { event.preventDefault(); stage.classList.add("drop"); };
stage.ondragleave = () => stage.classList.remove("drop");
stage.ondrop = (event) => {
  event.preventDefault();
  stage.classList.remove("drop");
  sendFile(event.dataTransfer.files);
};
document.addEventListener("paste", (event) => {
  if (element.isConnected && event.clipboardData?.files.length) sendFile(event.clipboardData.files);
});
new ResizeObserver(fit).observe(stage);

find(".examples").append(...(props.examples || []).map(({ url, name }, index) => {
  const picture = new Image();
  [picture.src, picture.alt] = [url, name];
  const button = makeButton([picture], "", () => act("example", { index }));
  button.title = name;
  return button;
}));
watch("photo", showPhoto);
watch("value", showView);
showPhoto();
showView();
