// Rest the pointer on a link with data-card, or reach it by keyboard, and a card about that feature shows; Esc closes it.
const WAIT = 250;
const LINGER = 200;
const KEPT = 100;
const cards = new Map();
let timer = 0;
let owner = null;

const card = document.createElement("div");
card.id = "card";
card.className = "floating";
card.setAttribute("role", "tooltip");
card.hidden = true;
document.body.append(card);

function load(url) {
  if (!cards.has(url)) {
    if (cards.size >= KEPT) cards.delete(cards.keys().next().value);
    const asked = fetch(url).then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(answer.statusText))));
    asked.catch(() => cards.delete(url));
    cards.set(url, asked);
  }
  return cards.get(url);
}

function place(link) {
  const at = link.getBoundingClientRect();
  const room = document.documentElement;
  const left = Math.max(8, Math.min(at.left, room.clientWidth - card.offsetWidth - 8));
  const below = at.bottom + 6;
  const fits = below + card.offsetHeight <= room.clientHeight || at.top < card.offsetHeight + 6;
  card.style.left = `${left + scrollX}px`;
  card.style.top = `${(fits ? below : at.top - card.offsetHeight - 6) + scrollY}px`;
}

async function show(link) {
  let text;
  try {
    text = await load(link.dataset.card);
  } catch {
    return;
  }
  if (owner !== link || !link.isConnected) return;
  card.innerHTML = text;
  card.hidden = false;
  place(link);
  link.setAttribute("aria-describedby", "card");
}

function close() {
  clearTimeout(timer);
  owner?.removeAttribute("aria-describedby");
  owner = null;
  card.hidden = true;
}

function open(link) {
  clearTimeout(timer);
  if (owner === link) return;
  close();
  owner = link;
  timer = setTimeout(show, WAIT, link);
}

function leave() {
  clearTimeout(timer);
  timer = setTimeout(close, LINGER);
}

const linkOf = (event) => (event.target instanceof Element ? event.target.closest("[data-card]") : null);

document.addEventListener("pointerover", (event) => {
  if (event.pointerType !== "mouse") return;
  const link = linkOf(event);
  if (link) open(link);
  else if (card.contains(event.target)) clearTimeout(timer);
  else if (owner && owner !== document.activeElement) leave();
});
document.addEventListener("focusin", (event) => {
  const link = linkOf(event);
  if (link?.matches(":focus-visible")) open(link);
  else if (!card.contains(event.target)) close();
});
document.addEventListener("focusout", (event) => {
  if (event.target === owner && !card.contains(event.relatedTarget)) close();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && owner) close();
});
