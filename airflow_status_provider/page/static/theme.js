// Before the first paint: in the colours of the Airflow around this page, now and whenever they change.
(() => {
  const OURS = {
    ground: "bg",
    raised: "bg-muted",
    line: "border",
    text: "fg",
    faint: "fg-muted",
    link: "fg-info",
    bad: "fg-error",
  };
  const root = document.documentElement;
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  let around = null;
  try {
    around = parent === window ? null : parent.document.documentElement;
  } catch {
    // framed by a page of another site
  }

  function dark() {
    if (around) return around.classList.contains("dark");
    const chosen = localStorage.getItem("theme");
    return chosen === "dark" || (chosen !== "light" && preferred.matches);
  }

  function apply() {
    root.classList.toggle("dark", dark());
    const colours = around && getComputedStyle(around);
    for (const [ours, airflows] of Object.entries(OURS)) {
      root.style.setProperty(`--${ours}`, colours?.getPropertyValue(`--chakra-colors-${airflows}`) || null);
    }
  }

  apply();
  preferred.addEventListener("change", apply);
  addEventListener("storage", apply);
  if (around) new MutationObserver(apply).observe(around, { attributeFilter: ["class", "style"] });
})();
