// Shows the picture that Python sends: a data URL, or nothing.
const frame = element.querySelector(".frame"), picture = element.querySelector("img"), empty = element.querySelector("p");
const show = () => {
  const { url, alt, clear, note } = props.value || {};
  picture.hidden = !url;
  empty.hidden = !!url;
  empty.textContent = note || "The result appears here.";
  picture.alt = alt || "";
  if (url) picture.src = url; else picture.removeAttribute("src");
  frame.classList.toggle("clear", !!url && !!clear);
};
watch("value", show);
show();
