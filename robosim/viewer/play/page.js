// What has to happen in the browser: held keys and buttons, files dropped anywhere, and words for a lost connection.

const KEYS = { " ": -1, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7 };
const SILENT_SECONDS = 20;

const typing = (target) => target.closest("input, textarea, [contenteditable]") !== null;
const heldButton = (what) => document.querySelector(`[data-hold="${what}"]`);
let held = null;

function hold(what) {
  if (held === what || !heldButton(what)) return;
  heldButton(held)?.classList.remove("down");
  held = what;
  heldButton(what).classList.add("down");
  emitEvent("hold", Number(what));
}

function letGo(what = held) {
  if (held === null || held !== what) return;
  heldButton(held)?.classList.remove("down");
  held = null;
  emitEvent("let_go");
}

// Before any element sees it: space would scroll, and a button that was clicked keeps the focus and would be pressed again.
function take(event) {
  event.preventDefault();
  event.stopPropagation();
}
function keydown(event) {
  if (typing(event.target)) return;
  const undo = event.key === "u" || ((event.ctrlKey || event.metaKey) && event.key === "z");
  const what = event.ctrlKey || event.metaKey || event.altKey ? undefined : KEYS[event.key];
  if (undo || what !== undefined) take(event);
  if (event.repeat) return;
  if (what !== undefined) hold(what);
  else if (undo) emitEvent("undo");
}
function keyup(event) {
  if (KEYS[event.key] === undefined) return;
  if (!typing(event.target)) take(event);
  letGo(KEYS[event.key]);
}
document.addEventListener("keydown", keydown, { capture: true });
document.addEventListener("keyup", keyup, { capture: true });
document.addEventListener("pointerdown", (event) => {
  const button = event.target.closest("[data-hold]");
  if (button && event.button === 0) hold(Number(button.dataset.hold));
});
for (const over of ["pointerup", "pointercancel"]) document.addEventListener(over, () => letGo());
window.addEventListener("blur", () => letGo());

// A drag enters every element that it crosses: the page is left when as many were left as were entered.
let depth = 0;
const mark = (change) => {
  depth = Math.max(0, depth + change);
  document.body.classList.toggle("dropping", depth > 0);
};
document.addEventListener("dragenter", () => mark(+1));
document.addEventListener("dragleave", () => mark(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  mark(-depth);
  const file = event.dataTransfer.files[0];
  const upload = document.querySelector(".upload");
  if (!file || !upload) return emitEvent("complain", "Drop a picture file: nothing else can be a start.");
  getElement(Number(upload.id.slice(1))).$refs.qRef.addFiles([file]);
});

// NiceGUI shows this element while the connection is lost; a page that waits for ever should say what for.
window.addEventListener("load", () => {
  const banner = document.getElementById("popup");
  const words = "Connection lost. Reconnecting; the session is kept for a minute.";
  const silent = "robosim play doesn't answer. If it has ended in its terminal, start it there again.";
  let timer = null;
  const change = () => {
    clearTimeout(timer);
    banner.textContent = words;
    if (banner.ariaHidden === "false") timer = setTimeout(() => (banner.textContent = silent), SILENT_SECONDS * 1000);
  };
  banner.textContent = words;
  new MutationObserver(change).observe(banner, { attributeFilter: ["aria-hidden"] });
});
