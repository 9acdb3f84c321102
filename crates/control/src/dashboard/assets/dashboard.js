// Makes the page live: fills the cells that the daemon wrote with what its events say, by the names of the API.
// Text goes in through textContent alone; what is parsed is a page of the daemon itself, of which elements are taken, never text.
"use strict";
(() => {
  const NONE = "–";
  const $ = (id) => document.getElementById(id);
  // Seconds of a rate; lines of troubles; milliseconds until the next try, and without a word until it counts as a loss; pixels.
  const WINDOW = 10;
  const TROUBLES = 8;
  const AGAIN = 3000;
  const SILENT = 5000;
  const HEIGHT = 160;
  const all = (within, selector) => within.querySelectorAll(selector);

  // --- Words: as words.rs writes them.

  const three = (number) => number.toFixed(number < 10 ? 2 : number < 100 ? 1 : 0);
  const count = (number) => Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, ",");
  const rate = (number) => (number === null ? NONE : number >= 100 ? count(number) : number.toFixed(1));
  const two = (seconds, large, small) =>
    `${Math.floor(seconds / large[0])} ${large[1]} ${Math.floor((seconds % large[0]) / small[0])} ${small[1]}`;

  function time(seconds) {
    if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
    if (seconds < 1) return `${three(seconds * 1e3)} ms`;
    if (seconds < 60) return `${three(seconds)} s`;
    if (seconds < 3600) return two(seconds, [60, "min"], [1, "s"]);
    if (seconds < 86400) return two(seconds, [3600, "h"], [60, "min"]);
    return two(seconds, [86400, "d"], [3600, "h"]);
  }

  function show(value, form) {
    if (form === "text") return value ?? "";
    if (form === "retry") return typeof value === "number" ? `retry in ${show(value, "time")}` : "";
    if (typeof value !== "number") return NONE;
    if (value === 0 && (form === "some" || form === "time")) return NONE;
    if (form === "time") return time(value);
    if (form === "percent") return `${(value * 100).toFixed(1)} %`;
    return count(value);
  }

  const at = (row, path) => path.split(".").reduce((value, key) => value?.[key], row);

  // --- Cells and rows.

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function mark(element, word) {
    if (element.dataset.word !== word) element.dataset.word = word;
    write(element, word.replaceAll("_", " "));
  }

  function fill(scope, row) {
    for (const element of all(scope, "[data-get]")) {
      const value = at(row, element.dataset.get);
      const form = element.dataset.as;
      if (form === "state") mark(element, value ?? "unknown");
      else if (form === "failed") mark(element, value ? "failed" : "slow");
      else write(element, show(value, form));
      if (element.dataset.href) element.href = element.dataset.href + encodeURIComponent(value);
    }
  }

  const keys = {
    pools: (row) => row.name,
    upstreams: (row) => `${row.job}|${row.name}|${row.transport}|${row.address}`,
    recent: (_, at) => String(at),
  };
  const isWell = {
    pools: (row) => row.state === "idle" || row.state === "ok",
    upstreams: (row) => row.health !== "down" && row.health !== "degraded",
    recent: () => true,
  };

  // The rows to show where there are too many, as rows.rs has it.
  function most(kind, rows, max) {
    if (rows.length <= max) return rows;
    const well = isWell[kind];
    return [...rows.filter((row) => !well(row)), ...rows.filter(well)].slice(0, max);
  }

  function fillRows(body, rows) {
    const kind = body.dataset.rows;
    const shown = most(kind, rows, Number(body.dataset.max));
    const known = new Map([...body.children].map((row, at) => [kind === "recent" ? String(at) : row.dataset.key, row]));
    shown.forEach((row, place) => {
      const key = keys[kind](row, place);
      let element = known.get(key);
      known.delete(key);
      if (!element) {
        element = $(body.dataset.template).content.firstElementChild.cloneNode(true);
        element.dataset.key = key;
      }
      if (body.children[place] !== element) body.insertBefore(element, body.children[place] ?? null);
      fill(element, row);
      for (const cell of all(element, "[data-rate]")) {
        const now = perSecond(`${kind} ${key}`, at(row, cell.dataset.rate));
        if (now !== null) write(cell, rate(now));
      }
      const phases = element.querySelector("[data-phases]");
      if (phases) fillPhases(phases, row.phases);
    });
    // What no row used is behind those that were: also what has the key of another one.
    while (body.children.length > shown.length) body.lastElementChild.remove();
    const more = document.querySelector(`[data-more="${kind}"]`);
    if (more) {
      more.hidden = rows.length === shown.length;
      write(more.firstElementChild, count(rows.length - shown.length));
    }
  }

  const PHASES = ["wait", "resolve", "connect", "tls", "exchange"];
  const SVG = "http://www.w3.org/2000/svg";

  function fillPhases(cell, phases) {
    const words = phases.map(({ phase, took }) => `${phase.replaceAll("_", " ")} ${time(took)}`).join(" · ");
    if (cell.lastElementChild.textContent === words) return;
    const total = phases.reduce((sum, { took }) => sum + took, 0);
    let from = 0;
    const parts = phases.filter(() => total > 0).map(({ phase, took }) => {
      const part = document.createElementNS(SVG, "rect");
      const width = (100 * took) / total;
      part.setAttribute("class", PHASES.includes(phase) ? `p-${phase}` : "p-other");
      part.setAttribute("x", from.toFixed(2));
      part.setAttribute("y", "0");
      part.setAttribute("width", width.toFixed(2));
      part.setAttribute("height", "8");
      from += width;
      return part;
    });
    cell.firstElementChild.replaceChildren(...parts);
    write(cell.lastElementChild, words);
  }

  // --- Counters to rates, over the last ten seconds.

  let seen = new Map();
  let uptime = 0;

  function perSecond(name, number) {
    let points = seen.get(name);
    if (!points) seen.set(name, (points = []));
    if (points.length === 0 || points[points.length - 1][0] < uptime) points.push([uptime, number]);
    while (points.length > 2 && points[0][0] < uptime - WINDOW) points.shift();
    const [first, last] = [points[0], points[points.length - 1]];
    return last[0] - first[0] < 0.5 ? null : Math.max(0, (last[1] - first[1]) / (last[0] - first[0]));
  }

  // What clients asked: until a second look there is the mean, which the daemon wrote.
  function fillRequestRates(status) {
    for (const cell of all(document, "[data-request-rate]")) {
      const number = status.requests[cell.dataset.requestRate];
      const now = number === undefined ? null : perSecond(`request ${cell.dataset.requestRate}`, number);
      if (now === null) continue;
      write(cell, rate(now));
      const mean = cell.parentElement.querySelector(".mean");
      if (mean) mean.hidden = true;
    }
  }

  // --- A look at the daemon.

  let last = null;

  function take(sample) {
    const { status, pools, upstreams, recent } = sample;
    if (status.uptime < uptime) {
      // It was started again: its counters begin anew, and so do its forms.
      seen = new Map();
      refresh();
    }
    uptime = status.uptime;
    last = sample;
    for (const scope of all(document, '[data-scope="status"]')) fill(scope, status);
    for (const body of all(document, "[data-rows]")) fillRows(body, { pools, upstreams, recent }[body.dataset.rows]);
    const none = $("no-recent");
    if (none) none.hidden = recent.length > 0;
    const page = document.body.dataset.page;
    if (page === undefined) takeHealth(status);
    else takePool(page, pools.find((pool) => pool.name === page));
    fillRequestRates(status);
    chart.add(status);
    filter();
  }

  function takeHealth(status) {
    const section = document.querySelector(".health");
    section.dataset.word = status.health;
    mark(section.querySelector('.verdict [data-get="health"]'), status.health);
    write($("sentence"), $("sentence").dataset[status.health] ?? "");
    const left = status.troubles.length - TROUBLES;
    const lines = status.troubles.slice(0, TROUBLES).concat(left > 0 ? [`${count(left)} more`] : []);
    const list = $("troubles");
    while (list.children.length > lines.length) list.lastElementChild.remove();
    while (list.children.length < lines.length) list.append(document.createElement("li"));
    lines.forEach((line, at) => write(list.children[at], line));
    document.title = `${status.health}: keepwarm`;
  }

  function takePool(name, pool) {
    const section = document.querySelector('[data-scope="pool"]');
    if (!section || !pool) return;
    section.dataset.word = pool.state;
    fill(section, pool);
    document.title = `${pool.state}: pool ${name}: keepwarm`;
  }

  // --- Whether what is shown is now.

  const live = $("live");
  let stream = null;
  let refreshes = null;
  let heard = performance.now();

  function state(word, text) {
    if (live.dataset.live === word) return;
    live.dataset.live = word;
    document.body.classList.toggle("stale", word === "lost" || word === "out");
    const place = live.querySelector(".live-text");
    if (word !== "out") return write(place, text);
    stream?.close();
    clearInterval(refreshes);
    const link = document.createElement("a");
    link.href = "/login";
    link.textContent = "Log in again";
    place.replaceChildren(text, link);
  }

  function lost() {
    if (live.dataset.live === "out") return;
    const since = new Date(Date.now() - (performance.now() - heard)).toLocaleTimeString("en-GB");
    state("lost", `connection lost since ${since}`);
  }


  function listen() {
    stream?.close();
    stream = new EventSource("/api/v1/events");
    stream.addEventListener("sample", (event) => {
      heard = performance.now();
      state("live", "live");
      take(JSON.parse(event.data));
    });
    stream.addEventListener("error", () => {
      lost();
      // After a refusal the browser does not try again by itself.
      if (stream.readyState === EventSource.CLOSED) again();
    });
  }

  async function again() {
    try {
      const answer = await fetch("/api/v1/status");
      if (answer.status === 401) return state("out", "the session has ended. ");
    } catch {
      // Nobody is there: the same as any loss.
    }
    setTimeout(listen, AGAIN);
  }

  setInterval(() => {
    if (performance.now() - heard > SILENT) lost();
  }, 1000);

  // --- What events do not carry: the daemon's own page is fetched again and its parts are put in place.

  let refreshing = false;

  async function refresh() {
    if (refreshing || document.hidden) return;
    refreshing = true;
    try {
      const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
      if (answer.redirected) return state("out", "the session has ended. ");
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (fresh.documentElement.dataset.build !== document.documentElement.dataset.build) return location.reload();
      adopt(fresh);
    } catch {
      // The stream tells of a loss.
    } finally {
      refreshing = false;
    }
  }

  function adopt(fresh) {
    const secret = fresh.querySelector("input[name=form]");
    if (secret) for (const field of all(document, "input[name=form]")) field.value = secret.value;
    for (const region of all(document, "[data-region]")) {
      const other = fresh.querySelector(`[data-region="${region.dataset.region}"]`);
      if (other) replace(region, other);
    }
    for (const row of all(fresh, "tr[data-key]")) {
      const spark = row.querySelector("[data-spark]");
      const own = spark && document.querySelector(`tr[data-key="${CSS.escape(row.dataset.key)}"] [data-spark]`);
      if (own && !own.isEqualNode(spark)) own.replaceChildren(...document.importNode(spark, true).childNodes);
    }
    if (last) fillRequestRates(last.status);
    filter();
  }

  // What was unfolded stays so, and who had the focus has it.
  function replace(region, other) {
    if (region.isEqualNode(other)) return;
    const open = new Set([...all(region, "details[open]")].map((details) => details.dataset.key));
    const focused = region.contains(document.activeElement) && document.activeElement.closest("details")?.dataset.key;
    region.replaceChildren(...document.importNode(other, true).childNodes);
    for (const details of all(region, "details")) {
      details.open = open.has(details.dataset.key);
      if (focused === details.dataset.key) details.querySelector("summary").focus();
    }
  }

  // --- The chart: the last hour from the history, and on from there.

  const chart = (() => {
    const place = $("chart");
    if (!place) return { add() {}, draw() {} };
    const data = [[], [], [], []];
    const classes = ["c-open", "c-in-use", "c-waiting"];
    const legend = [...document.querySelectorAll(".legend dd")];
    const text = $("chart-text");
    let plot = null;
    let width = 0;

    const color = (name) => getComputedStyle(document.querySelector(`.legend path.${name}`)).stroke;
    const two = (number) => String(number).padStart(2, "0");
    const clock = (seconds) => {
      const date = new Date(seconds * 1000);
      return `${two(date.getHours())}:${two(date.getMinutes())}`;
    };

    function draw() {
      plot?.destroy();
      width = place.clientWidth;
      const style = getComputedStyle(place);
      const axis = { stroke: style.color, font: `11px ${style.fontFamily}`, grid: { stroke: style.outlineColor, width: 1 }, ticks: { show: false } };
      const lines = classes.map((name, at) => ({
        stroke: color(name),
        width: at === 1 ? 2 : 1.5,
        dash: at === 2 ? [5, 3] : undefined,
        fill: at === 1 ? color(name).replace(/^rgb\((.*)\)$/, "rgba($1, 0.15)") : undefined,
        points: { show: false },
      }));
      const options = {
        width,
        height: HEIGHT,
        legend: { show: false },
        padding: [8, 2, 0, 0],
        cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
        scales: { y: { range: (_, low, high) => [0, Math.max(4, high * 1.1)] } },
        axes: [
          { ...axis, size: 26, gap: 4, space: 64, incrs: [60, 300, 600, 900, 1800, 3600], values: (_, splits) => splits.map(clock) },
          { ...axis, size: 38, gap: 4, values: (_, splits) => splits.map((split) => (Number.isInteger(split) ? count(split) : "")) },
        ],
        series: [{}, ...lines],
        hooks: { setCursor: [point] },
      };
      place.replaceChildren();
      plot = new uPlot(options, data, place);
      place.setAttribute("role", "img");
      place.setAttribute("aria-labelledby", "chart-text");
    }

    // The figures under the pointer, or those of now.
    function point(of) {
      const at = of.cursor.idx;
      if (at === null || at === undefined) return;
      legend.forEach((cell, line) => write(cell, count(data[line + 1][at])));
    }

    function summary() {
      const [open, used, waiting] = data.slice(1).map((line) => count(line.reduce((a, b) => Math.max(a, b), 0)));
      write(text, `Most in the last hour: ${open} open, ${used} in use, ${waiting} waiting.`);
    }

    async function begin() {
      try {
        const history = await (await fetch("/api/v1/history")).json();
        const length = Math.max(0, ...history.pools.map((pool) => pool.open.length));
        const sum = (figure, at) => history.pools.reduce((all, pool) => all + (pool[figure].at(at) ?? 0), 0);
        const past = [[], [], [], []];
        for (let at = -Math.min(length, 3600 / history.step); at < 0; at++) {
          past[0].push(history.end + (at + 1) * history.step);
          ["open", "in_use", "waiting"].forEach((figure, line) => past[line + 1].push(sum(figure, at)));
        }
        const from = past[0].at(-1) ?? 0;
        const newer = data[0].findIndex((x) => x > from);
        data.forEach((line, at) => line.splice(0, newer < 0 ? line.length : newer, ...past[at]));
      } catch {
        // It begins with now.
      }
      if (typeof uPlot === "function" && data[0].length > 1) draw();
    }

    function add(status) {
      if (data[0].length > 0 && status.now <= data[0].at(-1)) return;
      [status.now, status.connections, status.in_use, status.waiting].forEach((value, line) => data[line].push(value));
      const old = data[0].findIndex((x) => x >= status.now - 3600);
      data.forEach((line) => line.splice(0, old));
      if (document.hidden || typeof uPlot !== "function" || data[0].length < 2) return;
      if (plot) plot.setData(data);
      else draw();
      summary();
    }

    new ResizeObserver(() => {
      if (plot && place.clientWidth !== width) plot.setSize({ width: (width = place.clientWidth), height: HEIGHT });
    }).observe(place);
    begin();
    return { add, draw: () => plot && draw() };
  })();

  // --- What the reader chooses.

  const field = $("filter");

  function filter() {
    const words = field.value.trim().toLowerCase();
    for (const row of all(document, "main tbody tr")) {
      const hide = words !== "" && !row.textContent.toLowerCase().includes(words);
      if (row.hidden !== hide) row.hidden = hide;
    }
  }

  field.addEventListener("input", filter);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !event.target.closest("input, select, textarea")) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "Escape" && event.target === field) {
      field.value = "";
      filter();
      field.blur();
    }
  });

  const themes = ["auto", "dark", "light"];
  const root = document.documentElement;
  const button = $("theme");

  function name() {
    const theme = root.dataset.theme ?? "auto";
    write(button, theme[0].toUpperCase() + theme.slice(1));
    button.setAttribute("aria-label", theme === "auto" ? "Colours: auto, as the system has them" : `Colours: ${theme}`);
  }

  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("keepwarm-theme", next);
    } catch {
      // It holds for this page.
    }
    name();
    chart.draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.draw());
  name();

  state("joining", "connecting …");
  listen();
  refreshes = setInterval(refresh, document.body.dataset.page === undefined ? 5000 : 2000);
})();
