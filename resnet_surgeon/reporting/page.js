"use strict";
// The page can be read without this: it adds sorting, filtering and copying.
const table = document.getElementById("tensors");

if (table) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
  };

  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent.trim();
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const order = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      };
      rows.sort((a, b) => (ascending ? order(a, b) : order(b, a)));
      body.replaceChildren(...rows);
    });
  });

  const name = document.getElementById("filter-name");
  const fate = document.getElementById("filter-fate");
  const count = document.getElementById("filter-count");
  const filter = () => {
    const text = name.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = row.cells[0].textContent.toLowerCase().includes(text) && (!fate.value || row.dataset.fate === fate.value);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${rows.length} tensors`;
  };
  name.addEventListener("input", filter);
  fate.addEventListener("change", filter);
  filter();
  document.getElementById("filters").hidden = false;
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
    button.textContent = "Copied";
  });
}
