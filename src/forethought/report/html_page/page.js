// Opens the questions of a table in place, and sorts them by a column. Without it all of them are open.
document.documentElement.classList.add("js");

for (const button of document.querySelectorAll("button.open")) {
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    document.getElementById(button.getAttribute("aria-controls")).classList.toggle("shown", !isOpen);
  });
}

for (const table of document.querySelectorAll("table.questions")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const isDown = head.getAttribute("aria-sort") === "descending";
    const key = (body) => body.rows[0].cells[column].dataset.key;
    const bodies = [...table.tBodies];
    const isNumber = bodies.every((body) => key(body) !== "" && !isNaN(key(body)));
    const compare = (a, b) => isNumber ? key(a) - key(b) : key(a).localeCompare(key(b));
    bodies.sort((a, b) => isDown ? compare(a, b) : compare(b, a));
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isDown ? "ascending" : "descending");
    table.append(...bodies);
  }));
}
