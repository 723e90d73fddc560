"use strict";

// Everything that comes from outside (names of files, labels, errors) reaches the page as text, never as HTML.

const AT_ONCE = 4; // pictures on their way at the same time
const FIRST_SCORES = 8; // scores shown before "show all"
const MODEL_EVERY_MS = 10_000;

const at = (id) => document.getElementById(id);
const state = { model: null, key: sessionStorage.getItem("labelmill-key"), queue: [], running: 0, done: 0, shown: 0 };

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (state.key) headers["X-API-Key"] = state.key;
  const response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(90_000) });
  const fields = await response.json();
  if (response.ok) return { fields, response };
  throw Object.assign(new Error(fields.detail ?? `HTTP ${response.status}`), { fields, code: response.status, response });
}

// The model in the header.

async function showModel() {
  try {
    const { fields } = await ask("v1/model");
    state.model = fields;
    at("key-form").hidden = true;
    at("endpoint").textContent = fields.endpoint;
    document.title = `${fields.endpoint} · ${fields.model}`;
    const name = document.createElement("b");
    name.textContent = fields.model;
    const about = ` · ${fields.architecture} · ${fields.labels.length} ${fields.labels.length === 1 ? "label" : "labels"}`;
    at("model").replaceChildren(name, about);
    at("digest").textContent = `bundle ${fields.bundle_digest.slice(0, 12)}`;
    at("digest").title = `sha256 of the bundle: ${fields.bundle_digest}`;
    at("about").textContent = `up to ${Math.floor(fields.max_request_bytes / 2 ** 20) || "<1"} MB each`;
    notice(fields.error && `${fields.model} goes on answering: ${fields.error}`);
    pump();
  } catch (error) {
    if (error.code === 401) wantKey();
    else notice(`The endpoint does not answer: ${error.message}`);
  }
}

function notice(text) {
  at("notice").hidden = !text;
  at("notice").textContent = text || "";
}

function wantKey() {
  const wrong = Boolean(state.key);
  state.key = null;
  sessionStorage.removeItem("labelmill-key");
  at("key-form").hidden = false;
  at("key-form").classList.toggle("wrong", wrong);
  if (wrong) at("key-hint").textContent = "That is not one of this endpoint's keys.";
  at("key").focus();
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = at("key").value.trim();
  sessionStorage.setItem("labelmill-key", state.key);
  at("key").value = "";
  showModel();
});

// Pictures on their way.

function add(files) {
  const jobs = Array.from(files, (file) => ({ file, card: newCard(file) }));
  at("results").prepend(...jobs.map((job) => job.card));
  state.queue.push(...jobs);
  state.shown += jobs.length;
  at("drop").classList.toggle("small", state.shown > 0);
  count();
  pump();
}

function pump() {
  while (state.running < AT_ONCE && state.queue.length && at("key-form").hidden) {
    const job = state.queue.shift();
    state.running += 1;
    label(job).finally(() => {
      state.running -= 1;
      pump();
    });
  }
}

async function label(job, tries = 5) {
  const started = performance.now();
  try {
    const { fields } = await ask("v1/label", { method: "POST", body: job.file, headers: { "Content-Type": "application/octet-stream" } });
    if (state.model && fields.model !== state.model.model) await showModel();
    showRow(job.card, fields, performance.now() - started);
  } catch (error) {
    if (error.code === 401) {
      state.queue.unshift(job);
      wantKey();
      return;
    }
    if (error.code === 503 && tries > 1) {
      await new Promise((go) => setTimeout(go, 1000 * (Number(error.response.headers.get("Retry-After")) || 1)));
      return label(job, tries - 1);
    }
    showProblem(job.card, error);
  }
  if (job.card.isConnected) state.done += 1;
  count();
}

// Cards.

function newCard(file) {
  const card = at("card").content.firstElementChild.cloneNode(true);
  card.classList.add("waiting");
  card.querySelector("h2").textContent = file.name || "pasted picture";
  card.querySelector("h2").title = file.name;
  card.querySelector(".status").textContent = "waiting";
  card.querySelector(".facts").textContent = size(file.size);
  const image = card.querySelector("img");
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  image.addEventListener("error", () => {
    URL.revokeObjectURL(image.src);
    image.hidden = true;
    card.querySelector(".no-preview").hidden = false;
  });
  image.src = URL.createObjectURL(file);
  return card;
}

function showRow(card, row, tookMs) {
  card.classList.remove("waiting");
  card.querySelector(".status").textContent = row.labels.length ? row.status : "ok, no label";
  const facts = card.querySelector(".facts");
  facts.textContent = [`${row.width_px} × ${row.height_px}`, facts.textContent, `${Math.round(tookMs)} ms`, row.model].join(" · ");
  const thresholds = state.model?.model === row.model ? state.model.thresholds : null;
  const decided = new Set(row.labels.map((entry) => entry.label));
  const lines = row.scores.map((score) => {
    const threshold = thresholds ? thresholds[state.model.labels.indexOf(score.label)] : null;
    return scoreLine(score, decided.has(score.label), threshold);
  });
  const list = card.querySelector(".scores");
  list.replaceChildren(...lines.slice(0, FIRST_SCORES));
  const more = card.querySelector(".more");
  more.hidden = lines.length <= FIRST_SCORES;
  more.textContent = `Show all ${lines.length}`;
  more.addEventListener("click", () => {
    list.append(...lines.slice(FIRST_SCORES));
    more.hidden = true;
  });
}

function scoreLine({ label, confidence }, decided, threshold) {
  const line = at("score").content.firstElementChild.cloneNode(true);
  line.classList.toggle("decided", decided);
  line.querySelector(".label").textContent = label;
  line.querySelector(".label").title = label;
  line.querySelector(".fill").style.width = `${100 * confidence}%`;
  line.querySelector(".percent").textContent = `${(100 * confidence).toFixed(1)} %`;
  if (threshold !== null && threshold !== undefined) {
    const tick = line.querySelector(".tick");
    tick.hidden = false;
    tick.style.left = `${100 * Math.min(1, threshold)}%`;
    line.title = `confidence ${confidence.toFixed(4)}, threshold ${threshold.toFixed(4)}`;
  }
  return line;
}

function showProblem(card, error) {
  card.classList.remove("waiting");
  card.classList.add("bad");
  card.querySelector(".status").textContent = error.fields?.picture_status ?? (error.code ? `HTTP ${error.code}` : "not sent");
  card.querySelector(".problem").hidden = false;
  card.querySelector(".problem").textContent = error.message;
}

function count() {
  at("tools").hidden = state.shown === 0;
  const pictures = `${state.shown} ${state.shown === 1 ? "picture" : "pictures"}`;
  at("count").textContent = state.done < state.shown ? `${state.done} of ${pictures}` : pictures;
  document.querySelector(".legend").hidden = !state.model?.thresholds;
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  return bytes < 2 ** 20 ? `${Math.round(bytes / 1024)} kB` : `${(bytes / 2 ** 20).toFixed(1)} MB`;
}

// The ways in: choose, drop, paste.

at("files").addEventListener("change", () => {
  add(at("files").files);
  at("files").value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    add(event.clipboardData.files);
  }
});
at("clear").addEventListener("click", () => {
  at("results").replaceChildren();
  Object.assign(state, { queue: [], done: 0, shown: 0 });
  at("drop").classList.remove("small");
  count();
});

showModel();
setInterval(() => document.hidden || !at("key-form").hidden || showModel(), MODEL_EVERY_MS);
