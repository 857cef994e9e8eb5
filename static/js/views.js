// How examples are shown: view, norm and space are attributes of the root that the style sheet reads. The server sets
// them from the URL; what a reader chose before holds where the URL is silent. Runs before the page is drawn, so that
// nothing moves afterwards.
(() => {
  const root = document.documentElement;
  const first = { view: "snippet", norm: "latent", space: "plain" };
  const known = { view: ["snippet", "stacked", "full"], norm: ["latent", "row"], space: ["plain", "glyphs"] };
  const glyph = { " ": "·", "\n": "↵", "\r": "␍", "\t": "→" };
  const plain = Object.fromEntries(Object.entries(glyph).map(([text, sign]) => [sign, text]));

  const asked = new URLSearchParams(location.search);
  for (const name of Object.keys(first)) {
    const kept = localStorage.getItem(`examples-${name}`);
    if (!asked.has(name) && known[name].includes(kept)) root.dataset[name] = kept;
  }

  // Glyphs are elements <i class="o">, so that taking them away gives back exactly what was there.
  const draw = () => {
    const shown = root.dataset.space === "glyphs";
    for (const heat of document.querySelectorAll(".example-heat")) {
      if (!shown) {
        for (const sign of heat.querySelectorAll("i.o")) {
          if (sign.textContent === glyph["\n"]) Object.assign(sign, { className: "n", textContent: "\n" });
          else sign.replaceWith(plain[sign.textContent]);
        }
        heat.normalize();
        continue;
      }
      for (const sign of heat.querySelectorAll("i.n")) Object.assign(sign, { className: "o", textContent: glyph["\n"] });
      const texts = document.createTreeWalker(heat, NodeFilter.SHOW_TEXT);
      const found = [];
      while (texts.nextNode()) if (/\s/.test(texts.currentNode.data) && !texts.currentNode.parentElement.matches("i")) found.push(texts.currentNode);
      for (const text of found) {
        const parts = text.data.split(/([ \n\r\t])/).filter(Boolean).map((part) => {
          if (!glyph[part]) return part;
          const sign = document.createElement("i");
          sign.className = "o";
          sign.textContent = glyph[part];
          return sign;
        });
        text.replaceWith(...parts);
      }
    }
  };

  const address = (href) => {
    const url = new URL(href, location.href);
    for (const [name, value] of Object.entries(first)) {
      if (root.dataset[name] === value) url.searchParams.delete(name);
      else url.searchParams.set(name, root.dataset[name]);
    }
    return url;
  };

  const tell = () => {
    for (const link of document.querySelectorAll("[data-switch]")) {
      const url = address(location.href);
      if (link.dataset.value === first[link.dataset.switch]) url.searchParams.delete(link.dataset.switch);
      else url.searchParams.set(link.dataset.switch, link.dataset.value);
      url.hash = "";
      link.href = url;
      if (root.dataset[link.dataset.switch] === link.dataset.value) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    for (const link of document.querySelectorAll('a[data-key="j"], a[data-key="k"]')) link.href = address(link.href);
    history.replaceState(history.state, "", address(location.href));
  };

  document.addEventListener("DOMContentLoaded", () => {
    draw();
    tell();
    document.addEventListener("click", (event) => {
      const link = event.target.closest("[data-switch]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const { switch: name, value } = link.dataset;
      root.dataset[name] = value;
      localStorage.setItem(`examples-${name}`, value);
      if (name === "space") draw();
      tell();
    });
  });
})();
