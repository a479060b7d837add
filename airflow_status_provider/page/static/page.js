// All tasks that now wait for a remote job.
//
// 1. What is shown is read from Airflow's public REST API with the viewer's own session: what they may not see is
//    not there. Nothing is written.
// 2. A text of a service's is only ever put into `textContent`.
// 3. A task's progress is its XCom `progress`. Each is read once, and again when Airflow lists it as newer.
// 4. A cell is touched only when what it shows has changed: a thousand rows cost as little as those that move.
// 5. Lists are read to their end. A task that ends while they are read moves all behind it, so one look may miss a
//    task: its row goes only when two looks in a row have missed it. What was not read is said.

const PACKAGE = "airflow_status_provider.triggers.";
const PAGE = 1000; // Airflow gives as many as its [api] maximum_page_limit allows
const MOST = 50000; // deferred tasks of any kind, in the order of their ids
const AT_ONCE = 4;
const REFRESH = 5000;
const SILENT = 90; // seconds after which a triggerer, which reports every 5, is missed

const AIRFLOW = new URL("..", document.baseURI);
const TITLES = { areal: "Areal", haidy: "Haidy", organizer: "Organizer", tagger: "Tagger" };

const TEXTS = ["status", "current", "how", "job_id", "service", "conn_id"];
const NUMBERS = ["progress", "processed", "failed", "total", "ends_at", "seen_at", "started_at", "deadline"];

const rows = new Map();
let skew = 0; // seconds by which Airflow's clock is ahead of this one
let newest = ""; // timestamp of the newest progress that Airflow has listed
let unread = 0; // deferred tasks that the last look did not read, ours or not

// -- what a row shows ---------------------------------------------------------------------------------------------

const byText = (a, b) => String(a).localeCompare(String(b), undefined, { numeric: true });
const byNumber = (a, b) => a - b;

// name: its heading; width: its share; text: what it shows of a row; value: what it is sorted by, if not its text
const COLUMNS = [
  { name: "Service", width: 8.5, text: (row) => row.service },
  { name: "Connection", width: 13, text: (row) => row.progress.conn_id ?? "" },
  { name: "Dag", width: 9, text: (row) => row.task.dag_display_name ?? row.task.dag_id },
  { name: "Task", width: 11, text: taskName, href: taskUrl },
  { name: "Run", width: 8, text: (row) => row.task.dag_run_id, kind: "faint" },
  { name: "Job", width: 8, text: (row) => row.progress.job_id ?? "", kind: "id" },
  { name: "Status", width: 9, text: (row) => row.progress.status ?? "" },
  { name: "Progress", width: 20, text: progressText, value: (row) => row.progress.progress ?? -1, bar: true },
  { name: "Waited", width: 6, text: (row) => span(waited(row)), value: waited, kind: "time" },
  { name: "Left", width: 6, text: (row) => until(row.progress.ends_at, "~"), value: (row) => row.progress.ends_at ?? Infinity, kind: "time" },
  { name: "Deadline", width: 10.5, text: (row) => until(row.progress.deadline, "in "), value: (row) => row.progress.deadline ?? Infinity, kind: "time" },
  { name: "News by", width: 8, text: (row) => row.progress.how ?? "" },
  { name: "Last news", width: 9, text: lastNews, value: (row) => row.progress.seen_at ?? 0, kind: "time" },
];

function taskName({ task }) {
  const mapped = task.map_index < 0 ? "" : ` [${task.rendered_map_index ?? task.map_index}]`;
  const looped = task.loop_iteration ? ` iteration ${task.loop_iteration.iteration}` : "";
  return (task.task_display_name ?? task.task_id) + mapped + looped;
}

function taskUrl({ task }) {
  const [dag, run, id] = [task.dag_id, task.dag_run_id, task.task_id].map(encodeURIComponent);
  const mapped = task.map_index < 0 ? "" : `/mapped/${task.map_index}`;
  const url = new URL(`dags/${dag}/runs/${run}/tasks/${id}${mapped}`, AIRFLOW);
  url.search = new URLSearchParams(region(task));
  return url.href;
}

// What tells the iterations of a loop apart, which share their map index: Airflow 3.4 gives it of tasks that have one.
function region({ region_id, region_index }) {
  return region_id == null ? {} : { region_id, region_index };
}

function progressText({ progress: { progress, processed, failed, total, current } }) {
  const parts = [];
  if (progress != null) parts.push(`${Math.round(100 * progress)}%`);
  if (processed != null && total != null) parts.push(`${processed} of ${total}`);
  if (failed) parts.push(`${failed} failed`);
  if (current) parts.push(current);
  return parts.join(" · ");
}

function waited(row) {
  return now() - (row.progress.started_at ?? seconds(row.task.trigger.created_date));
}

function lastNews(row) {
  if (row.lonely) return "no triggerer";
  return row.progress.seen_at ? `${span(now() - row.progress.seen_at)} ago` : "";
}

function until(at, word) {
  if (at == null) return "";
  return at > now() ? word + span(at - now()) : "now";
}

function span(length) {
  const s = Math.max(0, Math.round(length));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function now() {
  return Date.now() / 1000 + skew;
}

function seconds(timestamp) {
  return Date.parse(timestamp) / 1000;
}

// -- what Airflow says --------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status) {
    super(`Airflow answered ${status}`);
    this.status = status;
  }
}

async function ask(path, query = {}) {
  const url = new URL(`api/v2/${path}`, AIRFLOW);
  url.search = new URLSearchParams(query);
  const answer = await fetch(url, { headers: { accept: "application/json" }, cache: "no-store" });
  const date = Date.parse(answer.headers.get("date"));
  if (date && Math.abs(date / 1000 - now()) > 2) skew = (date - Date.now()) / 1000;
  if (!answer.ok) throw new Refused(answer.status);
  return answer.json();
}

// Each entry of a list, page by page, to its end: Airflow's [api] maximum_page_limit may be as small as 1.
async function* list(path, name, query) {
  for (let offset = 0; ; ) {
    const answer = await ask(path, { ...query, limit: PAGE, offset });
    for (const entry of answer[name]) yield [entry, answer.total_entries];
    offset += answer[name].length;
    if (!answer[name].length || offset >= answer.total_entries) return;
  }
}

async function readTasks() {
  const found = new Map();
  let read = 0;
  let total = 0;
  const tasks = list("dags/~/dagRuns/~/taskInstances", "task_instances", { state: "deferred", order_by: "id" });
  for await (const [task, entries] of tasks) {
    total = entries;
    read += 1;
    if (task.trigger?.classpath?.startsWith(PACKAGE)) found.set(task.id, task);
    if (read >= MOST) break;
  }
  unread = Math.max(0, total - read);
  for (const [id, row] of rows) {
    row.missed = found.has(id) ? 0 : row.missed + 1;
    if (row.missed > 1) {
      row.line.remove();
      rows.delete(id);
    }
  }
  for (const [id, task] of found) {
    if (!rows.has(id)) rows.set(id, makeRow());
    const row = rows.get(id);
    const beat = task.triggerer_job?.latest_heartbeat;
    const service = task.trigger.classpath.slice(PACKAGE.length).split(".")[0];
    row.task = task;
    row.service = TITLES[service] ?? service;
    row.lonely = now() - seconds(beat ?? task.trigger.created_date) > SILENT;
  }
}

function place(entry) {
  const { region_id = null, region_index = null } = region(entry);
  const run = entry.dag_run_id ?? entry.run_id;
  return JSON.stringify([entry.dag_id, run, entry.task_id, entry.map_index, region_id, region_index]);
}

// Which progress is newer than what is shown: the newest first, back to where the last look ended.
async function readNews() {
  const waiting = new Map([...rows.values()].map((row) => [place(row.task), row]));
  const back = newest && new Date(Date.parse(newest) - 5000).toISOString(); // commits need not come in order
  const query = { xcom_key: "progress", order_by: "-timestamp" };
  for await (const [entry] of list("dags/~/dagRuns/~/taskInstances/~/xcomEntries", "xcom_entries", query)) {
    const row = waiting.get(place(entry));
    if (row && row.read !== entry.timestamp) row.stale = true;
    if (entry.timestamp > newest) newest = entry.timestamp;
    if (!back || entry.timestamp < back) return; // at first every row is read anyway
  }
}

async function readProgress(row) {
  const { dag_id, dag_run_id, task_id, map_index } = row.task;
  const [dag, run, task] = [dag_id, dag_run_id, task_id].map(encodeURIComponent);
  row.stale = false;
  try {
    const path = `dags/${dag}/dagRuns/${run}/taskInstances/${task}/xcomEntries/progress`;
    // a region_id names the iteration of a loop, for which a map index is not enough
    const entry = await ask(path, { map_index, deserialize: true, ...region(row.task) });
    row.read = entry.timestamp;
    if (entry.value && typeof entry.value === "object") row.progress = known(entry.value);
  } catch (error) {
    // not written yet, not for this viewer's eyes, or refused for this task only: it is shown all the same, and
    // so are all others
    if (!(error.status >= 400 && error.status < 500) || error.status === 401) throw error;
  }
}

// Only what has the type that it should have: anybody who may write XComs may have written this one.
function known(value) {
  const text = (name) => typeof value[name] === "string";
  const number = (name) => Number.isFinite(value[name]);
  const names = [...TEXTS.filter(text), ...NUMBERS.filter(number)];
  return Object.fromEntries(names.map((name) => [name, value[name]]));
}

// A few at a time, those in sight first.
async function readStale() {
  const stale = shown().filter((row) => row.stale);
  const rest = [...rows.values()].filter((row) => row.stale && row.line.hidden);
  const queue = [...stale, ...rest].values();
  let painted = performance.now();
  const work = async () => {
    for (const row of queue) {
      await readProgress(row);
      if (performance.now() - painted > 1000) {
        for (const each of rows.values()) paint(each); // together, for each time the browser lays out the table
        painted = performance.now();
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

async function refresh() {
  try {
    await readTasks();
    show();
    try {
      await readNews();
    } catch (error) {
      if (error.status !== 403) throw error;
    }
    await readStale();
    say(trouble, unread ? `${unread} more deferred tasks were not read; some may wait for a remote job.` : "");
  } catch (error) {
    const ended = error.status === 401;
    say(trouble, ended ? "Your session has ended: sign in to Airflow again." : `Airflow cannot be read (${error.message}); trying again.`);
  }
  show();
}

// -- the table ----------------------------------------------------------------------------------------------------

const $ = (selector) => document.querySelector(selector);
const body = $("tbody");
const trouble = $("#trouble");
const filters = { words: $("#words"), service: $("#service"), connection: $("#connection") };
const sorting = { column: "Service", down: false };

function makeRow() {
  const line = document.createElement("tr");
  const row = { line, cells: [], progress: {}, stale: true, read: "", missed: 0 };
  for (const column of COLUMNS) {
    const cell = line.insertCell();
    if (column.kind) cell.className = column.kind;
    if (column.bar) row.bar = cell.appendChild(document.createElement("progress"));
    row.cells.push(cell.appendChild(document.createElement(column.href ? "a" : "span")));
  }
  return row;
}

function paint(row) {
  COLUMNS.forEach((column, index) => {
    const target = row.cells[index];
    const text = String(column.text(row));
    if (target.textContent === text) return;
    target.textContent = text;
    if (column.kind !== "time") target.parentNode.title = text;
    if (column.href) target.href = column.href(row);
  });
  const { progress } = row.progress;
  row.bar.hidden = progress == null;
  if (progress != null && row.bar.value !== progress) row.bar.value = progress;
  row.line.lastChild.classList.toggle("bad", row.lonely);
}

function shown() {
  return Array.from(body.rows, (line) => line.row).filter((row) => !row.line.hidden);
}

function show() {
  const words = filters.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = [...rows.values()];
  offer(filters.service, "All services", all.map((row) => row.service));
  offer(filters.connection, "All connections", all.map((row) => row.progress.conn_id ?? ""));
  for (const row of all) {
    row.line.row = row;
    const text = COLUMNS.map((column) => column.text(row)).join("\n").toLowerCase();
    const out =
      (filters.service.value && filters.service.value !== row.service) ||
      (filters.connection.value && filters.connection.value !== row.progress.conn_id) ||
      !words.every((word) => text.includes(word));
    row.line.hidden = Boolean(out);
    paint(row);
  }
  arrange(all);
  const visible = all.filter((row) => !row.line.hidden);
  const counts = {};
  for (const { service } of visible) counts[service] = (counts[service] ?? 0) + 1;
  const counted = Object.keys(counts).sort().map((name) => `${name} ${counts[name]}`);
  const of = visible.length < all.length ? ` of ${all.length}` : "";
  say($("#count"), visible.length ? `${visible.length}${of} waiting: ${counted.join(", ")}` : "");
  say($("#empty"), visible.length ? "" : all.length ? "No task fits the filter." : unread ? "Of the tasks that were read, none waits for a remote job." : "No task waits for a remote job now.");
}

function arrange(all) {
  const column = COLUMNS.find(({ name }) => name === sorting.column);
  const value = column.value ?? column.text;
  const compare = column.value ? byNumber : byText;
  const keys = new Map(all.map((row) => [row, value(row)]));
  const ordered = all.sort(
    (a, b) =>
      (sorting.down ? -1 : 1) * compare(keys.get(a), keys.get(b)) ||
      byText(a.progress.conn_id ?? "", b.progress.conn_id ?? "") ||
      byText(a.task.id, b.task.id),
  );
  // only what is out of place moves, so that neither focus nor selection is lost
  let next = body.firstChild;
  for (const { line } of ordered) {
    if (line === next) next = next.nextSibling;
    else body.insertBefore(line, next);
  }
}

function offer(select, everything, values) {
  const wanted = ["", ...new Set(values.filter(Boolean))].sort();
  if (select.value && !wanted.includes(select.value)) wanted.push(select.value);
  if (Array.from(select.options, (option) => option.value).join("\n") === wanted.join("\n")) return;
  const chosen = select.value || (select.dataset.chosen ?? "");
  delete select.dataset.chosen;
  if (chosen && !wanted.includes(chosen)) wanted.push(chosen);
  select.replaceChildren(...wanted.map((value) => new Option(value || everything, value, false, value === chosen)));
}

function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
  where.hidden = !text;
}

// -- the viewer ---------------------------------------------------------------------------------------------------

function sortBy(name) {
  sorting.down = sorting.column === name && !sorting.down;
  sorting.column = name;
  changed();
}

function changed() {
  for (const heading of document.querySelectorAll("th")) {
    if (heading.dataset.name !== sorting.column) heading.removeAttribute("aria-sort");
    else heading.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
  }
  const view = new URLSearchParams();
  for (const [name, { value }] of Object.entries(filters)) if (value) view.set(name, value);
  view.set("sort", (sorting.down ? "-" : "") + sorting.column);
  history.replaceState(null, "", `#${view}`);
  show();
}

function recall() {
  const view = new URLSearchParams(location.hash.slice(1));
  const sort = view.get("sort") ?? "";
  const column = sort.replace(/^-/, "");
  if (COLUMNS.some(({ name }) => name === column)) Object.assign(sorting, { column, down: sort.startsWith("-") });
  filters.words.value = view.get("words") ?? "";
  for (const name of ["service", "connection"]) filters[name].dataset.chosen = view.get(name) ?? "";
}

// Airflow frames this page in a sandbox that may not leave itself; the Airflow around it may.
function follow(event) {
  const link = event.target.closest("a[href]");
  if (!link || parent === window) return;
  let door;
  try {
    door = parent.document.createElement("a");
  } catch {
    return;
  }
  event.preventDefault();
  door.href = link.href;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button === 1) door.target = "_blank";
  door.rel = "noopener";
  parent.document.body.append(door);
  door.click();
  door.remove();
}

function press(event) {
  const typing = event.target === filters.words;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    filters.words.select();
  } else if (event.key === "Escape" && typing) {
    filters.words.value = "";
    changed();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const link = event.target.closest("tbody a");
    if (!link && !typing) return;
    const links = shown().map((row) => row.line.querySelector("a"));
    const at = links.indexOf(link) + (event.key === "ArrowDown" ? 1 : -1);
    if (!links[at]) return;
    event.preventDefault();
    links[at].focus();
  }
}

async function live() {
  for (;;) {
    const begun = performance.now();
    if (!document.hidden) await refresh();
    // however large the table: at most a fifth of the time is spent asking
    await new Promise((done) => setTimeout(done, Math.max(REFRESH, 4 * (performance.now() - begun))));
  }
}

const total = COLUMNS.reduce((sum, { width }) => sum + width, 0);
for (const { name, width } of COLUMNS) {
  const heading = document.createElement("th");
  const button = heading.appendChild(document.createElement("button"));
  heading.scope = "col";
  heading.style.width = `${(100 * width) / total}%`;
  heading.dataset.name = button.textContent = name;
  button.type = "button";
  button.addEventListener("click", () => sortBy(name));
  $("thead tr").append(heading);
}
recall();
$("form").addEventListener("submit", (event) => event.preventDefault());
$("form").addEventListener("input", changed);
document.addEventListener("keydown", press);
addEventListener("hashchange", () => {
  recall();
  changed();
});
body.addEventListener("click", follow);
body.addEventListener("auxclick", follow);
setInterval(() => document.hidden || shown().forEach(paint), 1000);
changed();
say($("#empty"), "Asking Airflow…");
live();
