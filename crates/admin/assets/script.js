// What moves and what saves a step. Everything works without it.
"use strict";
const $ = (s, of = document) => of.querySelector(s), all = (s, of = document) => [...of.querySelectorAll(s)];
const body = document.body, lang = document.documentElement.lang;

// Times are worded anew, in the page's language.
const words = new Intl.RelativeTimeFormat(lang, { style: "narrow" });
function age() {
  for (const t of all("time")) {
    if (t.textContent === t.title) continue;
    const s = Math.round((new Date(t.dateTime) - Date.now()) / 1000), a = Math.abs(s);
    if (a > 86400) continue;
    t.textContent = a < 60 ? words.format(s, "second") : a < 3600 ? words.format(Math.trunc(s / 60), "minute") : words.format(Math.trunc(s / 3600), "hour");
  }
}
setInterval(age, 30000);

// Fragments come with the id of the element whose content they are; what has the focus, or is open, is left alone.
function cell({ id, html }) {
  const old = document.getElementById(id);
  if (!old || (old.contains(document.activeElement) && document.activeElement !== body) || $("details[open]", old)) return;
  const box = document.createElement(old.tagName === "TR" ? "tr" : "div");
  box.innerHTML = html;
  const same = box.children.length === 1 && box.firstElementChild.id === id;
  if (same) old.replaceWith(box.firstElementChild); else old.replaceChildren(...box.childNodes);
  if (old.className === "under") old.hidden = !old.textContent.trim();
}

const view = body.dataset.live, live = $("#live");
let source, paused = false, heard = 0;
function say(state) {
  if (!live) return;
  live.hidden = false;
  live.className = "live " + (state === "on" ? "on" : "off");
  live.firstElementChild.textContent = state === "on" ? "●" : "○";
  live.lastElementChild.textContent = live.dataset["live" + state[0].toUpperCase() + state.slice(1)];
}
function line({ html }) {
  const log = $("#log"), end = log.scrollTop + log.clientHeight > log.scrollHeight - 40;
  log.insertAdjacentHTML("beforeend", html);
  while (log.children.length > 1000) log.firstElementChild.remove();
  if (end) log.scrollTop = log.scrollHeight;
}
function listen() {
  if (!view || source || paused || document.hidden) return;
  source = new EventSource("/events?view=" + view);
  source.onopen = () => { heard = Date.now(); say("on"); };
  source.onerror = () => say("off");
  const on = (name, f) => source.addEventListener(name, (e) => { heard = Date.now(); f(JSON.parse(e.data)); });
  on("cell", cell);
  on("line", line);
  on("gone", () => hush());
  on("bye", () => location.reload());
}
function hush() { if (source) source.close(); source = null; }
document.addEventListener("visibilitychange", () => document.hidden ? hush() : listen());
addEventListener("pagehide", hush);
if (live) live.onclick = () => { paused = !paused; if (paused) { hush(); say("paused"); } else listen(); };
listen();
const log = $("#log");
if (log) log.scrollTop = log.scrollHeight;

// Secrets are shown on demand, for 30 seconds.
for (const b of all("[data-reveal]")) {
  const field = document.getElementById(b.dataset.reveal);
  let hide;
  b.hidden = false;
  b.onclick = () => {
    field.type = field.type === "password" ? "text" : "password";
    b.setAttribute("aria-pressed", field.type === "text");
    clearTimeout(hide);
    if (field.type === "text") hide = setTimeout(() => b.onclick(), 30000);
  };
}
for (const b of all("[data-copy]")) {
  b.hidden = !navigator.clipboard;
  b.onclick = () => navigator.clipboard.writeText(document.getElementById(b.dataset.copy).innerText);
}
for (const p of all("[data-file-for]")) {
  p.hidden = false;
  $("input", p).onchange = async (e) => { document.getElementById(p.dataset.fileFor).value = await e.target.files[0].text(); };
}
const picked = $("#picked");
if (picked) document.addEventListener("change", () => { picked.textContent = all("input[name=id]:checked").length || ""; });
for (const a of all("[data-follow]")) location.replace(a.href);
if ($("#problems")) $("#problems").focus();

// A test of a connection, step by step.
const test = $("#test-button"), form = $("#account-form");
if (test && form) test.onclick = async (e) => {
  if (!form.reportValidity()) return e.preventDefault();
  e.preventDefault();
  test.disabled = true;
  try {
    const answer = await fetch("/accounts/test", { method: "POST", headers: { Accept: "text/event-stream" }, body: new URLSearchParams(new FormData(form)) });
    // Fields that need a look are told by the page itself.
    if (!answer.ok) { test.onclick = null; test.disabled = false; return test.click(); }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = "", part; !(part = await reader.read()).done;) {
      text += part.value;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const data = text.slice(0, end).split("\n").find((l) => l.startsWith("data: "));
        if (data) $("#test").innerHTML = JSON.parse(data.slice(6)).html;
      }
    }
  } finally { test.disabled = false; }
};
