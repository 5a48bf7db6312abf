// The page of a mount, alive. What comes from the mount is put into the page as text only: names of modules and texts of errors are
// other people's. Without this script the page is what the server made it.
'use strict';

const $ = (id) => document.getElementById(id);

function el(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children.filter((c) => c !== '' && c !== null && c !== undefined));
  return e;
}

function svg(tag, attributes, text) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}

// Sizes and counts as the server writes them.
function bytes(n) {
  n = Math.max(0, n);
  if (n < 10) return `${Math.round(n)} B`;
  const e = Math.min(Math.floor(Math.log(n) / Math.log(1024)), 6);
  const v = Math.floor(n / 1024 ** e * 10 + 0.5) / 10;
  return `${v < 10 ? v.toFixed(1) : v.toFixed(0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'][e]}`;
}
const count = (n) => Math.round(n).toLocaleString('en-US');
const percent = (hits, misses) => hits + misses > 0 ? `${(100 * hits / (hits + misses)).toFixed(1)} %` : '–';

function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}
const ago = (date) => (Date.now() - date < 5000 ? 'now' : `${duration((Date.now() - date) / 1000)} ago`);

function time(iso) {
  const date = new Date(iso);
  const t = el('time', '', ago(date));
  t.dateTime = iso;
  t.title = date.toLocaleString();
  return t;
}

// update makes the children of a list those for the items, in their order; an item keeps its element as long as it has the same key.
// Of items with one key, the first, the second and so on have elements of their own.
function update(list, items, key, make, fill) {
  for (const e of [...list.children]) if (e.dataset.key === undefined) e.remove(); // the server's
  const old = new Map([...list.children].map((c) => [c.dataset.key, c]));
  const times = new Map();
  let at = list.firstElementChild;
  for (const item of items) {
    const n = times.get(key(item)) || 0;
    times.set(key(item), n + 1);
    const k = `${n} ${key(item)}`;
    let e = old.get(k);
    if (e) old.delete(k);
    else { e = make(item); e.dataset.key = k; }
    fill(e, item);
    if (e === at) at = at.nextElementSibling;
    else list.insertBefore(e, at);
  }
  for (const e of old.values()) e.remove();
}

// ---- what changes each second

let state = null;
const rates = new Map(); // of downloads, by key: {at, bytes, rate}

function show(s) {
  state = s;
  for (const [kind, format] of [['bytes', bytes], ['count', count]]) {
    for (const e of document.querySelectorAll(`[data-${kind}]`)) {
      const v = e.dataset[kind].split('.').reduce((o, k) => o && o[k], s);
      const text = format(v || 0);
      if (e.textContent !== text) e.textContent = text;
    }
  }
  $('rate').textContent = percent(s.now.hits, s.now.misses);
  if ($('fill')) $('fill').value = s.store.bytes;
  $('errortile').toggleAttribute('data-bad', s.now.errors > 0);
  $('ending').hidden = !s.ending;
  $('small').hidden = !s.store.too_small;
  $('queued').textContent = [s.counts.slow ? `${count(s.counts.slow)} ${s.counts.slow === 1 ? 'request waits' : 'requests wait'}` : '',
    s.queued ? `${count(s.queued)} more are queued` : ''].filter(Boolean).join(' · ');
  showDownloads(s.transfers || []);
  showErrors(s.errors || []);
  showUpstreams(s.upstreams || []);
  listSoon();
}

function showDownloads(all) {
  const key = (d) => `${d.module}@${d.version} ${d.since}`;
  const now = Date.now();
  for (const k of rates.keys()) if (!all.some((d) => key(d) === k)) rates.delete(k);
  $('nodownloads').hidden = all.length > 0;
  update($('downloads'), all, key, (d) => {
    const bar = el('progress');
    bar.setAttribute('aria-label', `${d.module}@${d.version}`);
    return el('li', '', el('div', 'what', el('span', 'mod', d.module), ' ', el('span', 'ver', d.version)), bar,
      el('div', 'sub', el('span'), el('span')));
  }, (li, d) => {
    const r = rates.get(key(d)) || { at: now, bytes: d.bytes, rate: 0 };
    if (now - r.at >= 900) {
      r.rate = Math.max(0, (d.bytes - r.bytes) / (now - r.at) * 1000);
      r.at = now;
      r.bytes = d.bytes;
    }
    rates.set(key(d), r);
    const bar = li.querySelector('progress');
    const verify = d.phase !== 'downloading';
    bar.classList.toggle('verify', verify);
    if (d.total) { bar.max = d.total; bar.value = d.bytes; } else bar.removeAttribute('value');
    const [left, right] = li.lastElementChild.children;
    left.textContent = (d.total ? `${bytes(d.bytes)} of ${bytes(d.total)} · ${Math.floor(100 * d.bytes / d.total)} %` : bytes(d.bytes)) +
      (verify ? ` · ${d.phase}` : r.rate ? ` · ${bytes(r.rate)}/s` : '');
    right.textContent = d.who;
  });
}

function showErrors(all) {
  $('noerrors').hidden = all.length > 0;
  update($('errors'), all, (e) => [e.errno, e.module, e.version, e.op, e.cause].join(' '), (e) => {
    return el('li', '', el('div', 'what', el('span', 'badge', e.errno), el('span', 'mod', e.module || ''), ' ', el('span', 'ver', e.version || ''), ' ', el('span', 'sub', e.op)),
      el('p', 'cause', e.cause), el('div', 'sub'));
  }, (li, e) => li.lastElementChild.replaceChildren(time(e.time), e.repeats ? el('span', '', `${count(e.repeats)} more of it`) : ''));
}

function showUpstreams(all) {
  $('noupstreams').hidden = all.length > 0;
  update($('upstreams'), all, (u) => u.host, () => {
    const cause = el('p', 'cause');
    return el('li', '', el('div', 'what', el('span', 'dot'), ' ', el('span', 'mod'), ' ', el('span', 'sub')), el('div', 'sub', el('span'), el('span')), cause);
  }, (li, u) => {
    li.toggleAttribute('data-down', Boolean(u.down_since));
    const what = li.firstElementChild.children;
    what[1].textContent = u.host;
    what[2].textContent = u.down_since ? `unreachable for ${duration((Date.now() - new Date(u.down_since)) / 1000)}` : '';
    const sub = li.children[1].children;
    sub[0].textContent = `${count(u.requests)} requests · ${count(u.failures)} failed`;
    sub[1].textContent = bytes(u.bytes);
    li.lastElementChild.hidden = !u.last_error;
    li.lastElementChild.textContent = u.last_error ? `${ago(new Date(u.last_time))}: ${u.last_error}` : '';
  });
}

// ---- the charts of the last hour

const hour = 3600e3;
let samples = [];

// chart draws lines over time into a figure. spec.series are {className, value(i)}, of which null is a gap; spec.top is the top of the
// scale for a largest value; spec.tick and spec.tell write a value of the scale, and what there is at a sample.
function chart(figure, spec) {
  const plot = svg('svg', { class: 'plot', role: 'img', tabindex: 0 });
  const out = figure.querySelector('output');
  figure.append(plot);
  let at = -1; // the sample that is pointed at
  const left = 52, bottom = 20, top = 8;

  function draw() {
    const w = plot.clientWidth || 300, h = plot.clientHeight || 150;
    const to = Date.now(), from = to - hour;
    const n = samples.length;
    const values = spec.series.map((s) => samples.map((_, i) => s.value(i)));
    const max = spec.top(Math.max(0, ...values.flat().filter((v) => v !== null)));
    const x = (i) => left + (w - left) * (samples[i].t - from) / hour;
    const y = (v) => top + (h - top - bottom) * (1 - Math.min(v, max) / max);
    plot.setAttribute('viewBox', `0 0 ${w} ${h}`);
    plot.replaceChildren();
    for (const f of [0, 0.5, 1]) {
      plot.append(svg('line', { class: 'grid', x1: left, x2: w, y1: y(max * f), y2: y(max * f) }),
        svg('text', { x: left - 8, y: y(max * f) + 4, 'text-anchor': 'end' }, spec.tick(max * f)));
    }
    for (const m of [60, 30, 0]) {
      plot.append(svg('text', { x: left + (w - left) * (1 - m / 60), y: h - 4, 'text-anchor': m === 60 ? 'start' : m ? 'middle' : 'end' }, m ? `−${m} min` : 'now'));
    }
    if (spec.bars) spec.bars(plot, x, (h - top - bottom), h - bottom);
    spec.series.forEach((s, j) => {
      let line = '', area = '', open = false, last = 0;
      for (let i = 0; i < n; i++) {
        const v = values[j][i];
        if (v === null || x(i) < left) {
          if (open) area += `V${y(0)}Z`;
          open = false;
          continue;
        }
        line += `${open ? 'L' : 'M'}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
        area += open ? `L${x(i).toFixed(1)} ${y(v).toFixed(1)}` : `M${x(i).toFixed(1)} ${y(0)}V${y(v).toFixed(1)}`;
        open = true;
        last = i;
      }
      if (open) area += `V${y(0)}Z`;
      if (!s.className.includes('limit')) plot.append(svg('path', { class: `area ${s.className}`, d: area }));
      plot.append(svg('path', { class: `line ${s.className}`, d: line }));
      if (open && !s.className.includes('limit') && x(last) > w - 30) plot.append(svg('circle', { class: s.className, cx: x(last), cy: y(values[j][last]), r: 4 }));
    });
    const i = at >= 0 && at < n ? at : n - 1;
    if (at >= 0 && at < n) {
      plot.append(svg('line', { class: 'cross', x1: x(i), x2: x(i), y1: top, y2: h - bottom }));
      spec.series.forEach((s, j) => {
        if (values[j][i] !== null && !s.className.includes('limit')) plot.append(svg('circle', { class: s.className, cx: x(i), cy: y(values[j][i]), r: 4 }));
      });
    }
    out.replaceChildren(...(n ? spec.tell(i) : ['']), at >= 0 && n ? ` · ${new Date(samples[i].t).toLocaleTimeString()}` : '');
    plot.setAttribute('aria-label', `${figure.querySelector('h2').textContent} over the last hour: ${out.textContent}`);
  }

  function point(event) {
    const box = plot.getBoundingClientRect();
    const t = Date.now() - hour + hour * (event.clientX - box.left - left) / (box.width - left);
    at = samples.reduce((best, s, i) => (Math.abs(s.t - t) < Math.abs(samples[best].t - t) ? i : best), 0);
    draw();
  }
  plot.addEventListener('pointermove', point);
  plot.addEventListener('pointerdown', point);
  for (const leave of ['pointerleave', 'blur']) plot.addEventListener(leave, () => { at = -1; draw(); });
  plot.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -60, PageDown: 60, Home: -1e9, End: 1e9 }[event.key];
    if (!step || !samples.length) return;
    event.preventDefault();
    at = Math.min(samples.length - 1, Math.max(0, (at < 0 ? samples.length - 1 : at) + step));
    draw();
  });
  new ResizeObserver(draw).observe(plot);
  return draw;
}

// between returns how much a counter grew from some samples ago to a sample, and in how many seconds; null if that is not known.
function between(i, field, ago) {
  const from = Math.max(0, i - ago);
  if (from === i) return null;
  return { grown: Math.max(0, samples[i][field] - samples[from][field]), seconds: (samples[i].t - samples[from].t) / 1000 };
}
const rate = (i, field) => { const d = between(i, field, 1); return d && d.seconds > 0 ? d.grown / d.seconds : null; };
const minutes5 = 60; // samples

function hitRate(i) {
  const h = between(i, 'hits', minutes5), m = between(i, 'misses', minutes5);
  return h && h.grown + m.grown > 0 ? h.grown / (h.grown + m.grown) : null;
}

function nice(max) { // the next larger size of one digit in its unit
  if (max <= 1024) return 1024;
  const unit = 1024 ** Math.floor(Math.log(max) / Math.log(1024));
  const v = max / unit;
  return unit * ([1, 2, 4, 5, 8, 10, 20, 40, 50, 80, 100, 200, 400, 500, 800, 1024].find((s) => s >= v) || 1024);
}

const key = (className) => el('span', `key ${className}`);
const draws = [
  chart($('chart-store'), {
    series: [{ className: 'a', value: (i) => samples[i].store }, { className: 'limit', value: (i) => samples[i].limit || null }],
    top: nice, tick: bytes,
    tell: (i) => [`${bytes(samples[i].store)}${samples[i].limit ? ` · ${(100 * samples[i].store / samples[i].limit).toFixed(0)} % of the limit` : ''}`],
  }),
  chart($('chart-rate'), {
    series: [{ className: 'a', value: hitRate }],
    top: () => 1, tick: (v) => `${Math.round(100 * v)} %`,
    bars(plot, x, height, base) { // modules opened
      const opens = samples.map((_, i) => { const h = between(i, 'hits', 1), m = between(i, 'misses', 1); return h ? h.grown + m.grown : 0; });
      const most = Math.max(8, ...opens);
      opens.forEach((n, i) => {
        if (n > 0 && x(i) > 52) plot.append(svg('rect', { class: 'opens', x: x(i) - 2, width: 3, y: base - height * n / most, height: height * n / most }));
      });
    },
    tell(i) {
      const h = between(i, 'hits', minutes5), m = between(i, 'misses', minutes5);
      return [h ? `${percent(h.grown, m.grown)} of ${count(h.grown + m.grown)} in 5 min` : '–'];
    },
  }),
  chart($('chart-traffic'), {
    series: [{ className: 'b', value: (i) => rate(i, 'served') }, { className: 'a', value: (i) => rate(i, 'received') }],
    top: nice, tick: (v) => `${bytes(v)}/s`,
    tell: (i) => [key('a'), `${bytes(rate(i, 'received') || 0)}/s in`, key('b'), `${bytes(rate(i, 'served') || 0)}/s out`],
  }),
];
const drawAll = () => { for (const draw of draws) draw(); };

// ---- the modules: all of them are here, so that searching and sorting need not ask

let modules = [];
let shown = 100;
let listed = ''; // the state of the store that they are of
let listing = false;
const query = { q: $('search').elements.q.value, sort: $('search').elements.sort.value || 'used' };

function listSoon() {
  const now = [state.store.modules, state.store.evicted, state.now.misses, Math.floor(Date.now() / 30e3)].join();
  if (listing || now === listed) return;
  listing = true;
  fetch('/api/modules').then((r) => (r.ok ? r.json() : Promise.reject(new Error(r.statusText)))).then((all) => {
    modules = all || [];
    listed = now;
    showModules();
  }).catch(() => {}).finally(() => setTimeout(() => { listing = false; }, 2000));
}

const orders = {
  module: (a, b) => (a.module < b.module ? -1 : a.module > b.module ? 1 : 0),
  version: (a, b) => a.version.localeCompare(b.version, 'en', { numeric: true }),
  size: (a, b) => a.size - b.size,
  used: (a, b) => (a.used < b.used ? -1 : a.used > b.used ? 1 : 0),
  source: (a, b) => (a.source < b.source ? -1 : a.source > b.source ? 1 : 0),
};
const downFirst = { size: true, used: true };

function showModules() {
  const name = query.sort.replace(/^-/, '');
  const order = orders[name] || orders.used;
  const sign = (query.sort.startsWith('-') ? -1 : 1) * (downFirst[name] ? -1 : 1);
  const words = query.q.toLowerCase().split(/\s+/).filter(Boolean);
  const found = modules.filter((m) => words.every((w) => `${m.module}@${m.version}`.toLowerCase().includes(w)));
  found.sort((a, b) => sign * order(a, b) || orders.module(a, b) || orders.version(a, b));
  $('found').textContent = (words.length ? `${count(found.length)} of ${count(modules.length)}` : count(modules.length)) +
    ` · ${bytes(found.reduce((sum, m) => sum + m.size, 0))}`;
  update($('table').tBodies[0], found.slice(0, shown), (m) => `${m.module}@${m.version}`, (m) => el('tr', '', el('td', 'mod', m.module), el('td', 'ver', m.version),
    el('td', 'num'), el('td', 'num'), el('td')), (tr, m) => {
    tr.cells[2].textContent = bytes(m.size);
    tr.cells[3].replaceChildren(time(m.used));
    tr.cells[4].replaceChildren(m.source || '', m.pinned ? ' ' : '', m.pinned ? el('span', 'badge pin', 'pinned') : '');
  });
  $('nomodules').hidden = found.length > 0;
  $('nomodules').textContent = words.length ? 'None with that in its name.' : 'None.';
  $('more').hidden = found.length <= shown;
  for (const a of document.querySelectorAll('#table th a')) {
    const mine = a.dataset.sort === name;
    if (mine) a.parentElement.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
    else a.parentElement.removeAttribute('aria-sort');
  }
  const at = new URL(location.href);
  for (const [k, v, none] of [['q', query.q, ''], ['sort', query.sort, 'used']]) {
    if (v === none) at.searchParams.delete(k);
    else at.searchParams.set(k, v);
  }
  if (at.href !== location.href) history.replaceState(null, '', at);
}

$('table').tHead.addEventListener('click', (event) => {
  const a = event.target.closest('a');
  if (!a) return;
  event.preventDefault();
  query.sort = query.sort === a.dataset.sort ? `-${query.sort}` : a.dataset.sort;
  showModules();
});
$('search').addEventListener('submit', (event) => event.preventDefault());
$('search').elements.q.addEventListener('input', (event) => {
  query.q = event.target.value;
  shown = 100;
  showModules();
});
$('more').addEventListener('click', () => { shown += 400; showModules(); });
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input')) return;
  event.preventDefault();
  $('search').elements.q.focus();
});

// ---- colours: the system's, or the other ones

const themes = ['', 'dark', 'light'];
function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $('theme').setAttribute('aria-label', `Colours: ${theme || 'as the system has them'}`);
  $('theme').title = $('theme').getAttribute('aria-label');
}
let theme = '';
try { theme = localStorage.getItem('theme') || ''; } catch { /* none are kept */ }
setTheme(themes.includes(theme) ? theme : '');
$('theme').hidden = false;
$('theme').addEventListener('click', () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  setTheme(theme);
  try { localStorage.setItem('theme', theme); } catch { /* none are kept */ }
});

// ---- the stream

function live(on, text) {
  $('live').toggleAttribute('data-on', on);
  if ($('live').lastElementChild.textContent !== text) $('live').lastElementChild.textContent = text;
}

document.documentElement.classList.add('js');
document.querySelector('.charts').hidden = false;
const events = new EventSource('/api/live');
events.addEventListener('state', (event) => { live(true, 'Live'); show(JSON.parse(event.data)); });
events.addEventListener('samples', (event) => {
  const some = JSON.parse(event.data);
  if (some.reset) samples = [];
  samples = samples.concat(some.samples).filter((s) => s.t > Date.now() - hour - 60e3);
  drawAll();
});
events.addEventListener('error', () => live(false, 'Not connected'));
