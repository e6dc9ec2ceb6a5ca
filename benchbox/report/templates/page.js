"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = {
    displaylogo: false,
    responsive: true,
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  };
  const hasWebgl = (() => {
    try {
      return Boolean(document.createElement("canvas").getContext("webgl"));
    } catch {
      return false;
    }
  })();
  const draw = (element) => {
    const figure = figures[Number(element.dataset.figure)];
    if (!hasWebgl) {
      for (const trace of figure.data) {
        if (trace.type === "scattergl") trace.type = "scatter";
      }
    }
    return Plotly.newPlot(element, figure.data, figure.layout, { ...config, displayModeBar: figure.layout.dragmode === false ? false : "hover" });
  };
  Promise.all([...document.querySelectorAll("[data-figure]")].map(draw)).then((drawn) => {
    document.documentElement.dataset.drawn = String(drawn.length);
  });
})();
