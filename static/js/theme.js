// Runs before the page is drawn, so that a chosen theme never flashes the other one first.
(() => {
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];
  const show = (theme) => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };
  let chosen = localStorage.getItem("theme");
  if (!themes.includes(chosen)) chosen = "system";
  show(chosen);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.textContent = `Theme: ${chosen}`;
    button.hidden = false;
    button.addEventListener("click", () => {
      chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
      show(chosen);
      localStorage.setItem("theme", chosen);
      button.textContent = `Theme: ${chosen}`;
      document.dispatchEvent(new Event("themechange"));
    });
  });
})();
