"use strict";
(() => {
  const read = (id) => {
    const element = document.getElementById(id);
    return element && JSON.parse(element.textContent);
  };

  // --- figures: drawn in the reader's theme, and in a light one of the paper's width for print ---

  const { themes, figures } = read("figures");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const paperWidth = 680;

  const themed = (figure, theme) =>
    JSON.parse(JSON.stringify(figure), (key, value) => {
      const isToken = typeof value === "string" && value.startsWith("\u0001");
      return isToken ? themes[theme][value.slice(1)] : value;
    });

  const draw = (element, theme, width) => {
    const figure = themed(figures[Number(element.dataset.figure)], theme);
    if (narrow.matches) figure.layout.dragmode = false;
    if (width) Object.assign(figure.layout, { width, autosize: false });
    return Plotly.react(element, figure.data, figure.layout, {
      displaylogo: false,
      responsive: !width,
      showSendToCloud: false,
      plotlyServerURL: "",
      displayModeBar: false,
    });
  };

  const drawAll = (theme, widthOf) =>
    Promise.all([...document.querySelectorAll("[data-figure]")].map((element) => draw(element, theme, widthOf?.(element))));
  const screen = () => drawAll(dark.matches ? "dark" : "light");

  screen().then((drawn) => {
    document.documentElement.dataset.drawn = String(drawn.length);
  });
  dark.addEventListener("change", screen);

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const details of closed) details.open = !details.matches("[data-bulk], .facts details");
    drawAll("light", (element) => (element.closest(".panels") ? paperWidth / 2 - 10 : paperWidth));
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
    screen();
  });

  // --- tables keep their meaning where style makes cards of them ---

  const roles = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
  for (const table of document.querySelectorAll("table.cards")) {
    for (const element of [table, ...table.querySelectorAll("thead, tbody, tr, td, th")]) {
      element.setAttribute("role", roles[element.tagName] ?? (element.scope === "col" ? "columnheader" : "rowheader"));
    }
  }

  // --- a link into something folded opens it ---

  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let element = target; element; element = element.parentElement) {
      if (element.tagName === "DETAILS") element.open = true;
    }
  };
  addEventListener("hashchange", unfold);
  unfold();

  // --- the record, for download ---

  const pairs = (object) =>
    Object.entries(object)
      .map(([key, value]) => {
        const text = String(value);
        return `${key}=${text.replace(/%/g, "%25").replace(/;/g, "%3B").replace(/\n/g, "%0A").replace(/\r/g, "%0D")}`;
      })
      .join(";");

  const rowsOf = (manifest, sample) => {
    const where = [manifest.run_id, manifest.scenario.name ?? "", sample.round, sample.position, sample.environment,
      sample.workload, pairs(sample.params)];
    const end = [sample.status, pairs(sample.flags)];
    const metrics = sample.status === "ok" ? Object.entries(sample.metrics) : [];
    if (!metrics.length) return [[...where, "", "", "", ...end]];
    return metrics.map(([name, metric]) => [...where, name, metric.unit, metric.value, ...end]);
  };

  const absentRows = (manifest, samples) => {
    const measured = new Set(samples.map((sample) => sample.cell));
    const states = Object.fromEntries(manifest.environments.map((record) => [record.label, record.state]));
    return manifest.cells
      .filter((cell) => (states[cell.environment] ?? "measured") !== "measured" && !measured.has(cell.id))
      .map((cell) => [manifest.run_id, manifest.scenario.name ?? "", "", "", cell.environment, cell.workload,
        pairs(cell.params), "", "", "", states[cell.environment], ""]);
  };

  const columns = ["run", "scenario", "round", "position", "environment", "workload", "params", "metric", "unit", "value",
    "status", "flags"];
  // As in benchbox/export.py: what neither a terminal obeys nor a spreadsheet computes. Numbers stay numbers.
  const disarmed = (field) => {
    if (typeof field !== "string") return field;
    const text = field
      .replace(/\p{Cf}/gu, "")
      .replace(/\p{Cs}/gu, "\ufffd")
      .replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, (char) => ("\n\t".includes(char) ? char : " "));
    return /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\n]/u.test(text) ? `'${text}` : text;
  };
  const quoted = (field) => {
    const text = String(disarmed(field));
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const asCsv = (manifest, samples) => {
    const measured = samples.filter((sample) => sample.round > 0).flatMap((sample) => rowsOf(manifest, sample));
    return [columns, ...measured, ...absentRows(manifest, samples)].map((row) => `${row.map(quoted).join(",")}\n`).join("");
  };
  const asJson = (manifest, samples) => `${JSON.stringify({ manifest, samples }, null, 1)}\n`;
  const forms = { csv: [asCsv, "text/csv"], json: [asJson, "application/json"] };

  const download = (form) => {
    const manifest = read("manifest");
    const [make, type] = forms[form];
    const url = URL.createObjectURL(new Blob([make(manifest, read("samples"))], { type }));
    const link = Object.assign(document.createElement("a"), { href: url, download: `${manifest.run_id}.${form}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };

  document.documentElement.classList.add(document.getElementById("samples") ? "whole" : "light");
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => download(button.dataset.download));
  }
})();
