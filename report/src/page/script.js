// The page is whole without this: it only adds the theme button and opens what is folded for print.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const store = {
    get() { try { return localStorage.getItem("efuse-report-theme"); } catch { return null; } },
    set(v) { try { localStorage.setItem("efuse-report-theme", v); } catch { /* private window: not kept */ } },
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const show = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  const kept = store.get();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store.set(root.dataset.theme);
    show();
  });
  dark.addEventListener("change", show);
  button.hidden = false;
  show();
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const d of document.querySelectorAll("details:not([open])")) { d.open = true; opened.push(d); }
  });
  addEventListener("afterprint", () => { for (const d of opened.splice(0)) d.open = false; });
})();
