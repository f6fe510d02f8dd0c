"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [ticksMax, yearMs, ...tickSteps] = data.ticks;
  const spanMin = 5, labelPx = 80, texts = ["reason", "result", "prompt"];
  const $ = (id) => document.getElementById(id);
  const list = $("agents"), scroller = $("scroller"), details = $("details");
  const rows = list ? [...list.children] : [];
  const column = Object.fromEntries(data.fields.map((name, index) => [name, index]));
  const field = (row, name) => data.agents[row][column[name]];
  const depth = (row) => data.agents[row][data.fields.length];
  const spans = (row) => data.agents[row][data.fields.length + 1];
  const number = (row) => Number(row.id.slice(1));
  const whole = list && $("axis").firstElementChild.textContent;
  let from = 0, to = data.span; // the visible range, in ms from the axis's begin
  let drawing = 0, shown = rows, current = null;

  // --- text ---

  function stamp(ms) {
    const at = new Date(ms + data.offset);
    return isNaN(at) ? String(ms) : at.toISOString().replace("Z", data.zone);
  }

  function duration(ms) {
    const units = [[86400000, "d"], [3600000, "h"], [60000, "min"], [1000, "s"], [1, "ms"]];
    const at = units.findIndex(([unit]) => ms >= unit);
    if (at < 0) return "0 ms";
    const [unit, word] = units[at], whole = `${Math.floor(ms / unit)} ${word}`;
    const [below, belowWord] = units[at + 1] || [];
    const rest = below ? Math.floor((ms % unit) / below) : 0;
    return rest ? `${whole} ${rest} ${belowWord}` : whole;
  }

  // --- the time axis ---

  const svg = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    made.textContent = text;
    return made;
  };

  function place(rect, begin, end) {
    // Far outside the axis, a browser's numbers lose their precision.
    const x = Math.min(110, Math.max(-10, (begin - from) / (to - from) * 100));
    const end_x = Math.min(110, Math.max(-10, (end - from) / (to - from) * 100));
    rect.setAttribute("x", `${x}%`);
    rect.setAttribute("width", `${Math.max(end_x - x, data.width * 100)}%`);
  }

  // The first visible multiple of `step` in local time, in ms from the axis's begin.
  function firstTick(step) {
    const zero = data.begin + data.offset;
    return Math.ceil((zero + from) / step) * step - zero;
  }

  // The smallest step whose labels all have room. If no multiple of it can be labelled, as on a
  // narrow axis whose only full hour lies at its right end, take the largest step that has one.
  function tickStep(width) {
    const wanted = (to - from) / Math.max(1, Math.min(ticksMax, Math.floor(width / labelPx)));
    let step = tickSteps.find((candidate) => candidate >= wanted) || Math.ceil(wanted / yearMs) * yearMs;
    while (step > tickSteps[0] && firstTick(step) >= labelEnd()) {
      step = step > yearMs ? Math.ceil(step / yearMs / 2) * yearMs : tickSteps.findLast((candidate) => candidate < step);
    }
    return step;
  }

  const labelEnd = () => from + (to - from) * data.labelled;

  function ticks(width) {
    const step = tickStep(width), made = [];
    const at = (ms) => `${(ms - from) / (to - from) * 100}%`;
    let free = from - 1; // where the last label ends
    for (let ms = firstTick(step); ms <= to; ms += step) {
      const text = stamp(data.begin + ms);
      const label = step >= 86400000 ? text.slice(0, 10) : text.slice(11, step >= 60000 ? 16 : step >= 1000 ? 19 : 23);
      const hasRoom = ms >= free && ms < labelEnd();
      made.push(svg("line", {x1: at(ms), x2: at(ms), y2: "100%"}), svg("text", {x: at(ms), dx: 4, y: 14}, hasRoom ? label : ""));
      if (hasRoom) free = ms + (labelPx - 1) / width * (to - from);
    }
    for (const ms of data.boots) {
      if (ms >= from && ms <= to) made.push(svg("line", {class: "boot", x1: at(ms), x2: at(ms), y2: "100%"}));
    }
    return made;
  }

  function drawRow(row) {
    if (row.drawing === drawing) return;
    row.drawing = drawing;
    const all = spans(number(row)), bars = row.lastElementChild.children;
    for (let i = 0; i < all.length; i++) place(bars[i], all[i][1], all[i][2]);
  }

  // Draw only the visible rows, so that a zoom is fast even with thousands of agents.
  function drawRows() {
    if (!shown.length) return;
    const height = shown[0].offsetHeight || 22;
    const first = Math.max(0, Math.floor(scroller.scrollTop / height) - 5);
    const last = Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + 5;
    shown.slice(first, last).forEach(drawRow);
  }

  function draw() {
    drawing += 1;
    for (const scale of document.querySelectorAll(".ticks")) scale.replaceChildren(...ticks(scale.getBoundingClientRect().width));
    for (const rect of document.querySelectorAll(".chart rect")) {
      const at = Number(rect.dataset.at);
      place(rect, at, at + data.step);
    }
    if (!list) return;
    drawRows();
    $("range").textContent = `${stamp(data.begin + Math.round(from))}, ${duration(to - from)} shown`;
  }

  function showRange(begin, end) {
    const span = Math.min(data.span, Math.max(spanMin, end - begin));
    from = Math.min(data.span - span, Math.max(0, begin + (end - begin - span) / 2));
    to = from + span;
    draw();
  }

  function zoom(factor, at = (from + to) / 2) {
    showRange(at - (at - from) * factor, at + (to - at) * factor);
  }

  const pan = (share) => showRange(from + (to - from) * share, to + (to - from) * share);
  const all = () => showRange(0, data.span);

  // --- one agent ---

  function showDetails(row) {
    const at = number(row);
    const sum = (kind) => spans(at).reduce((ms, [of, begin, end]) => ms + (of === kind ? end - begin : 0), 0);
    const facts = data.fields.map((name) => {
      const value = field(at, name);
      return [name, value !== null && name.endsWith("_at_ms") ? stamp(value) : value];
    });
    facts.push(["ran for", duration(sum("r"))], ["waited for", duration(sum("w"))]);
    facts.sort(([a], [b]) => texts.indexOf(a) - texts.indexOf(b)); // long texts last
    const terms = document.createElement("dl");
    terms.className = "facts";
    for (const [name, value] of facts) {
      if (value === null) continue;
      const pair = document.createElement("div"), term = document.createElement("dt"), description = document.createElement("dd");
      if (texts.includes(name)) pair.className = "long";
      term.textContent = name.replace(/_at_ms$/, "").replaceAll("_", " ");
      description.textContent = value;
      description.dir = "auto";
      pair.append(term, description);
      terms.append(pair);
    }
    details.replaceChildren(terms);
    details.dataset.row = row.id;
  }

  function select(row, focus = true) {
    if (!row) return;
    if (current) {
      current.tabIndex = -1;
      for (const name of ["aria-current", "aria-describedby"]) current.removeAttribute(name);
    }
    current = row;
    row.tabIndex = 0;
    row.setAttribute("aria-current", "true");
    row.setAttribute("aria-describedby", "details");
    showDetails(row);
    if (focus) row.focus({preventScroll: true});
    if (focus) row.scrollIntoView({block: "nearest"});
  }

  function selectBy(by) {
    const at = Math.max(0, shown.indexOf(current));
    select(shown[Math.min(shown.length - 1, Math.max(0, at + by))]);
  }

  function filterRows(words) {
    const sought = words.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = data.agents[number(row)].slice(0, data.fields.length).join("\n").toLowerCase();
      row.hidden = !sought.every((word) => text.includes(word));
    }
    shown = rows.filter((row) => !row.hidden);
    $("axis").firstElementChild.textContent = shown.length === rows.length ? whole : `${shown.length} of ${whole}`;
    if (current && current.hidden) select(shown[0], false);
    drawRows();
  }

  // --- keyboard and pointer ---

  function listen() {
    const keys = {
      ArrowDown: () => selectBy(1), ArrowUp: () => selectBy(-1), PageDown: () => selectBy(20), PageUp: () => selectBy(-20),
      Home: () => selectBy(-Infinity), End: () => selectBy(Infinity), ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": all, Escape: all,
      Enter: () => {
        const of = spans(number(current)), begin = of[0][1], end = of[of.length - 1][2];
        const margin = (end - begin) * 0.1 + spanMin;
        showRange(begin - margin, end + margin);
      },
    };
    list.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !Object.hasOwn(keys, event.key)) return;
      event.preventDefault();
      keys[event.key]();
    });
    list.addEventListener("focusin", (event) => event.target !== current && select(event.target.closest("li")));
    list.addEventListener("pointerleave", () => current && showDetails(current));

    // A drag over the bars selects a range of time. A click selects an agent.
    let brush = null;
    const timeAt = (x) => {
      const box = $("axis").lastElementChild.getBoundingClientRect();
      return from + (to - from) * Math.min(1, Math.max(0, (x - box.left) / box.width));
    };
    list.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      select(event.target.closest("li"));
      if (!event.target.closest("svg")) return;
      event.preventDefault();
      brush = event.clientX;
      list.setPointerCapture(event.pointerId);
    });
    // Not pointerover: a row that scrolls under a resting pointer is not pointed at.
    list.addEventListener("pointermove", (event) => {
      if (brush === null) {
        const row = event.target.closest("li");
        if (row && row.id !== details.dataset.row) showDetails(row);
        return;
      }
      const left = Math.min(brush, event.clientX) - list.getBoundingClientRect().left;
      Object.assign($("brush").style, {left: `${left}px`, width: `${Math.abs(event.clientX - brush)}px`});
      $("brush").hidden = false;
    });
    const endDrag = (event) => {
      if (brush !== null && event.type === "pointerup" && Math.abs(event.clientX - brush) > 4) {
        showRange(timeAt(Math.min(brush, event.clientX)), timeAt(Math.max(brush, event.clientX)));
      }
      brush = null;
      $("brush").hidden = true;
    };
    list.addEventListener("pointerup", endDrag);
    list.addEventListener("pointercancel", endDrag);
    list.addEventListener("dblclick", all);
    scroller.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event.clientX));
    }, {passive: false});
    scroller.addEventListener("scroll", drawRows, {passive: true});
    addEventListener("beforeprint", () => rows.forEach(drawRow));
    addEventListener("hashchange", () => select(rows.find((row) => `#${row.id}` === location.hash)));
    $("find").addEventListener("input", (event) => filterRows(event.target.value));
    for (const [id, act] of [["in", () => zoom(0.5)], ["out", () => zoom(2)], ["back", () => pan(-0.25)], ["on", () => pan(0.25)], ["all", all]]) {
      $(id).addEventListener("click", act);
    }
  }

  if (rows.length) {
    list.setAttribute("role", "tree");
    rows.forEach((row, at) => {
      row.setAttribute("role", "treeitem");
      row.setAttribute("aria-level", depth(at) + 1);
      row.lastElementChild.setAttribute("aria-hidden", "true");
      row.tabIndex = -1;
    });
    for (const element of [document.querySelector(".tools"), document.querySelector(".keys"), details]) element.hidden = false;
    listen();
    select(rows.find((row) => `#${row.id}` === location.hash) || rows[0], location.hash.length > 1);
  }
  addEventListener("resize", draw);
  draw();
})();
