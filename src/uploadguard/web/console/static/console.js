// Keyboard shortcuts. Every page works without this file; it adds nothing that a click could not do.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("script");

  const rows = () => [...document.querySelectorAll("tr[data-row]")];
  let at = -1;

  function move(step) {
    const all = rows();
    if (!all.length) {
      const link = document.querySelector(step > 0 ? "a[rel=next]" : "a[data-key=u]");
      if (link) link.click();
      return;
    }
    if (at >= 0) all[at].classList.remove("current");
    at = Math.max(0, Math.min(all.length - 1, at + step));
    all[at].classList.add("current");
    all[at].scrollIntoView({ block: "nearest", behavior: "instant" });
    const link = all[at].querySelector("a");
    if (link) link.focus({ preventScroll: true });
  }

  function open() {
    const row = rows()[at];
    const link = row && row.querySelector("a");
    if (link) link.click();
  }

  // A form with a decision in it is only opened by its key: a second key, Enter, sends it.
  function reach(key) {
    const target = document.querySelector(`[data-key="${key}"]`);
    if (!target) return;
    const fold = target.closest("details");
    if (fold) fold.open = true;
    if (target.matches("summary")) {
      (fold.querySelector("button[data-first]") || target).focus();
      fold.scrollIntoView({ block: "nearest", behavior: "instant" });
    } else if (target.matches("select, input")) {
      target.focus();
      target.scrollIntoView({ block: "nearest", behavior: "instant" });
    } else {
      target.click();
    }
  }

  const help = document.getElementById("keys");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const on = event.target;
    if (on.matches("input:not([type=checkbox]):not([type=radio]), select, textarea")) {
      if (event.key === "Escape") on.blur();
      return;
    }
    if (help && help.open) {
      if (event.key === "?") help.close();
      return;
    }
    const acts = { j: () => move(1), k: () => move(-1), o: open, "?": () => help && help.showModal() };
    if (event.key === "Enter" && on === document.body) acts.Enter = open;
    for (const key of ["c", "y", "n", "e", "r", "u", "x", "/"]) acts[key] = () => reach(key);
    if (acts.x && event.key === "x" && rows().length) {
      acts.x = () => {
        const box = rows()[at] && rows()[at].querySelector("input[type=checkbox]");
        if (box) box.click();
      };
    }
    const act = acts[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });

  for (const button of document.querySelectorAll("[data-help]")) {
    button.addEventListener("click", () => help.showModal());
  }

  // What takes a while must not be sent twice.
  for (const form of document.querySelectorAll("form[method=post]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
  }
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const form of document.querySelectorAll("form[method=post]")) delete form.dataset.sent;
  });
})();
