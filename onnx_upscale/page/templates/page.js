"use strict";
(() => {
  const each = (selector, act, root = document) => root.querySelectorAll(selector).forEach(act);

  // Heads of tables sort their rows: numbers by data-v, largest first, and texts by what they show.
  const key = (row, place) => {
    const cell = row.cells[place];
    return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent.trim();
  };
  each("thead button", (button) => button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const first = head.classList.contains("n") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    each("th", (th) => th.setAttribute("aria-sort", "none"), head.parentElement);
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
    rows.sort(([a], [b]) => {
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // What is missing, last.
      return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true}));
    });
    body.append(...rows.map(([, row]) => row));
  }));

  // Whatever is pointed at, or reached with the arrow keys, is said below the picture.
  each("figure", (figure) => {
    const said = figure.querySelector(".said");
    let current = null;
    const show = (hit) => {
      if (hit === current) return;
      current = hit;
      each(".on, .with", (other) => other.classList.remove("on", "with"), figure);
      hit.classList.add("on");
      const mine = new Set((hit.dataset.s || "").split(" ").filter(Boolean));
      if (mine.size) each("[data-s]", (other) => {
        if (other !== hit && other.dataset.s.split(" ").some((s) => mine.has(s))) other.classList.add("with");
      }, figure);
      said.textContent = hit.dataset.t;
    };
    figure.addEventListener("pointerover", (event) => {
      const hit = event.target.closest(".hit");
      if (hit) show(hit);
    });
    figure.addEventListener("focusin", (event) => {
      const hit = event.target.querySelector(":scope > .hit");
      if (event.target.closest("a") && hit) show(hit);
    });
    figure.addEventListener("keydown", (event) => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      const picture = event.target.closest("svg[tabindex]");
      if (!step || !picture) return;
      event.preventDefault();
      const hits = [...picture.querySelectorAll(".hit")], at = hits.indexOf(current);
      const next = at < 0 ? (step > 0 ? 0 : hits.length - 1) : at + step;
      const hit = hits[Math.min(Math.max(next, 0), hits.length - 1)];
      if (!hit) return;
      show(hit);
      const box = picture.closest(".scroll");
      if (box) {
        const seen = box.getBoundingClientRect(), mine = hit.getBoundingClientRect();
        if (mine.left < seen.left) box.scrollLeft -= seen.left - mine.left;
        if (mine.right > seen.right) box.scrollLeft += mine.right - seen.right;
      }
    });
  });

  // Commands can be copied.
  each(".copy", (button) => button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code); // The reader copies what is selected.
      if (!document.execCommand("copy")) return;
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }));
})();
