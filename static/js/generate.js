// The two continuations appear token by token. Without this script the form loads the page with both of them whole.
const form = document.getElementById("intervene");
const stop = document.getElementById("stop");
const busy = document.getElementById("busy");
const result = document.getElementById("result");
const LONGEST = 4000;
let running = null;

function body() {
  const data = new FormData(form);
  const [features, kinds, strengths, where] = ["feature", "kind", "strength", "where"].map((name) => data.getAll(name));
  const positions = (text) => (/^[\s,]*\d/.test(text) ? text.split(/[\s,]+/).filter(Boolean).map(Number) : text.trim() || "all");
  const edits = features
    .map((feature, i) => ({
      feature: feature.trim(), kind: kinds[i], strength: Number(strengths[i] || 1), positions: positions(where[i]),
    }))
    .filter((edit) => edit.feature);
  const number = (name) => Number(data.get(name));
  return {
    text: data.get("text"), chat: data.has("chat"), edits, stream: true,
    max_new: number("max_new"), temperature: number("temperature"), top_p: number("top_p"), seed: number("seed"),
  };
}

function side(title, text) {
  const section = document.createElement("section");
  const heading = document.createElement("h2");
  const shown = document.createElement("p");
  const prompt = document.createElement("span");
  heading.textContent = title;
  prompt.textContent = text;
  prompt.className = "muted";
  shown.className = "heat";
  shown.dir = "auto";
  shown.append(prompt);
  section.append(heading, shown);
  return [section, shown];
}

function say(message) {
  const told = document.createElement("p");
  told.setAttribute("role", "alert");
  told.className = "error";
  told.textContent = message;
  result.append(told);
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const [name, data] = part.split("\n");
      yield [name.slice(7), JSON.parse(data.slice(6))];
    }
  }
}

async function run() {
  const asked = body();
  if (!asked.edits.length) return say("Name a feature to edit, as SLUG/NUMBER.");
  running = new AbortController();
  const [left, plain] = side("As it is", asked.text);
  const [right, edited] = side("With the edits", asked.text);
  const both = document.createElement("div");
  both.className = "halves";
  both.append(left, right);
  const about = document.createElement("p");
  about.className = "muted";
  let total = 0;
  let count = 0;
  let made = 0;
  let ended = false;
  try {
    const answer = await fetch(form.dataset.api, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked), signal: running.signal,
    });
    if (!answer.ok) return say((await answer.json()).message);
    result.replaceChildren(both, about);
    for await (const [name, data] of events(answer)) {
      if (name === "error") say(data.message);
      ended ||= name !== "step";
      if (name !== "step") continue;
      made += 1;
      if (data.baseline) plain.append(data.baseline.text);
      if (data.edited) edited.append(data.edited.text);
      if (data.kl === null) continue;
      total += data.kl;
      count += 1;
      about.textContent = `KL of what comes next, edited from unedited: ${(total / count).toPrecision(3)} nats a token on average.`;
    }
    if (!ended) return say("The server stopped before the text was whole; try again.");
    const effect = await fetch(form.dataset.effect + new URL(address()).search, { signal: running.signal });
    if (effect.ok) result.insertAdjacentHTML("beforeend", await effect.text());
  } catch (error) {
    if (error.name !== "AbortError") say("The server does not answer; try again in a moment.");
    else if (made < asked.max_new) about.textContent += ` Stopped after ${made} of ${asked.max_new} tokens.`;
  }
}

// All of the form, rows without a feature left out.
function address() {
  const data = new FormData(form);
  const features = data.getAll("feature");
  const rows = ["feature", "kind", "strength", "where"];
  const query = new URLSearchParams();
  for (const [name, value] of data) if (name !== "run" && !rows.includes(name)) query.append(name, value);
  for (const name of rows) data.getAll(name).forEach((value, i) => features[i].trim() && query.append(name, value));
  return `${form.action}?${query}`;
}

form.addEventListener("click", (event) => {
  const preset = event.target.closest("[name=preset]");
  if (!preset) return;
  event.preventDefault();
  const row = preset.closest(".edit");
  row.querySelector("[name=kind]").value = preset.dataset.kind;
  row.querySelector("[name=strength]").value = preset.dataset.strength;
});

form.addEventListener("submit", async (event) => {
  if (address().length > LONGEST) return; // the server keeps the text, and its address names it
  event.preventDefault();
  running?.abort();
  result.querySelector("[role=alert]")?.remove();
  busy.textContent = "Going on…";
  stop.hidden = false;
  history.replaceState(null, "", address());
  await run();
  busy.textContent = "";
  stop.hidden = true;
});

stop.addEventListener("click", () => running?.abort());
