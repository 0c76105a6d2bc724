"use strict";
(() => {
  const root = document.documentElement;
  const wantsDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : wantsDark.matches);

  // Reading CSV: the only place where a page keeps the data of its charts.
  const readCsv = (text) => {
    const rows = [[]];
    let cell = "", quoted = false;
    for (let at = 0; at < text.length; at++) {
      const letter = text[at];
      if (quoted) {
        if (letter !== '"') cell += letter;
        else if (text[at + 1] === '"') { cell += '"'; at++; }
        else quoted = false;
      } else if (letter === '"') quoted = true;
      else if (letter === ",") { rows.at(-1).push(cell); cell = ""; }
      else if (letter === "\n") { rows.at(-1).push(cell); cell = ""; rows.push([]); }
      else cell += letter;
    }
    rows.pop();
    return rows;
  };
  const save = (name, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const quote = (cell) => (/[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const toCsv = (rows) => rows.map((row) => row.map(quote).join(",")).join("\n") + "\n";

  // Charts.
  const escapeText = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const seriesColour = (number, alpha) => {
    const hex = variable(`--series-${number}`);
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };
  const load = (figure) => {
    const chart = JSON.parse(figure.querySelector("script").textContent);
    const [headers, ...rows] = readCsv(chart.csv);
    const isText = headers.map((header) => chart.text.includes(header));
    const cells = rows.map((row) =>
      row.map((cell, at) => (isText[at] ? escapeText(cell) : cell === "" ? null : Number(cell))));
    return { ...chart, headers, rows, cells };
  };
  const place = (chart, header) => chart.headers.indexOf(header);
  const fill = (part, chart, chosen) => {
    if (Array.isArray(part)) return part.map((item) => fill(item, chart, chosen));
    if (part === null || typeof part !== "object") return part;
    if ("$column" in part) return chosen.map((row) => row[place(chart, part.$column)]);
    if ("$rows" in part) return chosen.map((row) => part.$rows.map((header) => row[place(chart, header)]));
    if ("$colour" in part) return seriesColour(part.$colour, part.alpha);
    if ("$matrix" in part) {
      const values = chosen.map((row) => row[place(chart, part.$matrix)]);
      return Array.from({ length: values.length / part.width }, (_, at) =>
        values.slice(at * part.width, (at + 1) * part.width));
    }
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, fill(value, chart, chosen)]));
  };
  const logTicks = (low, high) => {
    const ticks = [];
    for (let power = Math.ceil(low - 1e-9); power <= Math.floor(high + 1e-9); power++) ticks.push(power);
    return ticks.length > 1 ? ticks : [low, high];
  };
  // Parallel coordinates know numbers on linear axes alone: names and logarithms become ticks.
  const asDimension = (dimension) => {
    const { scale, ...given } = dimension;
    const rest = { ...given, shown: given.values };
    if (rest.values.some((value) => typeof value === "string")) {
      const names = [...new Set(rest.values)];
      return { ...rest, values: rest.values.map((v) => names.indexOf(v)), tickvals: names.map((_, at) => at), ticktext: names };
    }
    if (scale !== "log") return rest;
    const values = rest.values.map((value) => (value > 0 ? Math.log10(value) : null));
    const known = values.filter((value) => value !== null);
    const ticks = known.length ? logTicks(Math.min(...known), Math.max(...known)) : [];
    return { ...rest, values, tickvals: ticks, ticktext: ticks.map((tick) => Number((10 ** tick).toPrecision(2)).toString()) };
  };
  // Plotly draws them by WebGL, which some browsers lack: then the same lines, plainly, without brushing.
  let lacksWebGl = false;
  const span = (values) => {
    const known = values.filter((value) => value !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return (value) => (value === null ? null : high > low ? (value - low) / (high - low) : 0.5);
  };
  const lineColour = ({ colorscale, reversescale }, share) =>
    colorscale[Math.round((reversescale ? 1 - share : share) * (colorscale.length - 1))][1];
  const shortly = (value) => (typeof value === "number" ? Number(value.toPrecision(4)) : value ?? "none").toString();
  const plainLines = ({ dimensions, line }) => {
    const shares = dimensions.map((one) => one.values.map(span(one.values)));
    return line.color.map(span(line.color)).map((share, row) => ({
      type: "scatter", mode: "lines", showlegend: false, hovertemplate: "%{text}<extra></extra>",
      x: dimensions.map((_, at) => at), y: shares.map((values) => values[row]),
      text: dimensions.map((one) => `${one.label}: ${shortly(one.shown[row])}`),
      line: { width: 1.5, color: lineColour(line, share ?? 0.5) },
    }));
  };
  const endsOf = (one, at) => {
    const known = one.values.map((value, row) => [value, one.shown[row]]).filter(([value]) => value !== null);
    known.sort(([first], [second]) => first - second);
    return [known[0], known.at(-1)].map(([, shown], top) => ({
      x: at, y: top, yshift: top ? 12 : -12, showarrow: false, text: shortly(shown),
    }));
  };
  const plainLayout = ({ dimensions }) => ({
    annotations: dimensions.flatMap(endsOf), hovermode: "closest",
    xaxis: {
      side: "top", fixedrange: true, zeroline: false, gridcolor: variable("--soft"),
      range: [-0.3, dimensions.length - 0.7],
      tickvals: dimensions.map((_, at) => at), ticktext: dimensions.map((one) => one.label),
    },
    yaxis: { visible: false, range: [-0.12, 1.12], fixedrange: true },
  });
  const traces = (chart) => chart.traces.map(({ only, ...trace }) => {
    const conditions = Object.entries(only ?? {}).map(([header, name]) => [place(chart, header), escapeText(name)]);
    const chosen = chart.cells.filter((row) => conditions.every(([at, name]) => row[at] === name));
    const filled = fill(trace, chart, chosen);
    if (!filled.dimensions) return filled;
    const line = { ...filled.line, reversescale: isDark() };  // the lowest stand out on either page
    return { ...filled, line, dimensions: filled.dimensions.map(asDimension) };
  });
  const merge = (base, more) => {
    const merged = { ...base };
    for (const [key, value] of Object.entries(more)) {
      const both = value && base[key] && typeof value === "object" && !Array.isArray(value);
      merged[key] = both ? merge(base[key], value) : value;
    }
    return merged;
  };
  const layout = (chart, narrow) => {
    const [ink, soft, grid, page, panel] = ["--ink", "--soft", "--grid", "--page", "--panel"].map(variable);
    const axis = {
      gridcolor: grid, linecolor: soft, zerolinecolor: grid, automargin: true, ticks: "outside", tickcolor: grid,
      exponentformat: "power", title: { standoff: 8, font: { size: 13 } },
    };
    const shared = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 56, r: 12, t: 16, b: 44 }, dragmode: narrow ? false : "zoom",
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
      hoverlabel: { bgcolor: panel, bordercolor: soft, font: { color: ink } },
      colorway: [0, 1, 2, 3, 4, 5].map((number) => seriesColour(number, 1)),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
    };
    const axes = Object.fromEntries(Object.keys(chart.layout).filter((key) => /^[xy]axis/.test(key)).map((key) => [key, axis]));
    void page;
    return merge({ ...shared, ...axes }, fill(chart.layout, chart, []));
  };
  const figures = [...document.querySelectorAll("figure.chart")];
  const charts = new Map();
  const dataOf = (figure) => {
    if (!charts.has(figure)) charts.set(figure, load(figure));
    return charts.get(figure);
  };
  const draw = async (figure, width) => {
    const plot = figure.querySelector(".plot");
    const chart = dataOf(figure);
    const config = {
      displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: figure.dataset.file },
    };
    const [drawn, wanted] = [traces(chart), layout(chart, plot.clientWidth < 480)];
    const show = (lines, look) => window.Plotly.react(plot, lines, width ? { ...look, width, autosize: false } : look, config);
    figure.dataset.drawn = "yes";
    const parallel = drawn[0]?.type === "parcoords";
    if (!parallel || !lacksWebGl) await show(drawn, wanted);
    lacksWebGl ||= plot.querySelector(".no-webgl") !== null;
    if (parallel && lacksWebGl) {
      window.Plotly.purge(plot);
      await show(plainLines(drawn[0]), merge(wanted, plainLayout(drawn[0])));
    }
  };
  const drawWhenSeen = async (figure) => {
    try {
      await draw(figure);
    } catch (error) {
      const plot = figure.querySelector(".plot");
      plot.classList.add("failed");
      plot.textContent = `This chart could not be drawn (${error.message}); its data are below and as CSV.`;
    }
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      drawWhenSeen(entry.target);
    }
  }, { rootMargin: "600px" });
  const redraw = () => figures.filter((figure) => figure.dataset.drawn).forEach((figure) => draw(figure));

  // Theme: the system's, unless the reader chooses.
  const button = document.getElementById("theme");
  const label = () => { button.textContent = isDark() ? "Light page" : "Dark page"; };
  const remember = (theme) => { try { localStorage.setItem("rung-theme", theme); } catch { /* private window */ } };
  const recall = () => { try { return localStorage.getItem("rung-theme"); } catch { return null; } };
  const asked = location.hash === "#dark" || location.hash === "#light" ? location.hash.slice(1) : recall();
  if (asked === "dark" || asked === "light") root.dataset.theme = asked;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    label();
    redraw();
  });
  wantsDark.addEventListener("change", () => { label(); redraw(); });
  label();
  figures.forEach((figure) => seen.observe(figure));
  if (innerWidth < 992) document.querySelector("nav details")?.removeAttribute("open");

  // Paper is white and of fixed width, and shows every chart.
  let before = null;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme ?? "";
    root.dataset.theme = "light";
    figures.forEach((figure) => draw(figure, 680));
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    redraw();
  });

  // Tables: sorting, and the data as CSV.
  const valueOf = (cell) => cell.dataset.value ?? cell.textContent;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  const sortBy = (table, header) => {
    const at = [...header.parentNode.children].indexOf(header);
    const way = header.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", way);
    const body = table.tBodies[0];
    const [filled, empty] = [[], []];
    for (const row of body.rows) (valueOf(row.cells[at]) === "" ? empty : filled).push(row);
    filled.sort((a, b) => compare(valueOf(a.cells[at]), valueOf(b.cells[at])) * (way === "ascending" ? 1 : -1));
    body.append(...filled, ...empty);
  };
  document.querySelectorAll(".table table").forEach((table) =>
    table.querySelectorAll("th").forEach((header) => header.firstChild.addEventListener("click", () => sortBy(table, header))));
  const tableCsv = (table) => toCsv([...table.rows].map((row, at) => [...row.cells].map((cell) => (at ? valueOf(cell) : cell.textContent))));
  const elementsCsv = (figure) => {
    const cells = [...figure.querySelectorAll("[data-symbol]")];
    return toCsv([["element", cells[0]?.dataset.header ?? "value"], ...cells.map((c) => [c.dataset.symbol, c.dataset.value])]);
  };
  document.querySelectorAll("button.csv").forEach((csvButton) => csvButton.addEventListener("click", () => {
    const owner = csvButton.closest("[data-file]");
    const table = owner.querySelector("table");
    const text = owner.matches(".chart") ? dataOf(owner).csv : table ? tableCsv(table) : elementsCsv(owner);
    save(owner.dataset.file, text);
  }));

  // The data of a chart as a table, made when asked for.
  const SHOWN = 300;
  const dataTable = (chart) => {
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    const table = scroll.appendChild(document.createElement("table"));
    const head = table.createTHead().insertRow();
    for (const header of chart.headers) head.appendChild(document.createElement("th")).textContent = header;
    const body = table.createTBody();
    for (const row of chart.rows.slice(0, SHOWN)) {
      const line = body.insertRow();
      for (const cell of row) line.insertCell().textContent = cell;
    }
    if (chart.rows.length > SHOWN) table.createCaption().textContent = `The first ${SHOWN} of ${chart.rows.length} rows; all are in the CSV.`;
    return scroll;
  };
  figures.forEach((figure) => figure.querySelector("details").addEventListener("toggle", (event) => {
    const details = event.currentTarget;
    if (details.open && !details.querySelector("table")) details.append(dataTable(dataOf(figure)));
  }));
})();
