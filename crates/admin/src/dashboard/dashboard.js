// The dashboard's loop: ask, show, repeat. What a request contains (paths, hosts, details) is put into the page as text only, never as HTML.

import { Chart, spark } from '/charts.js';
import { showCertificates, showClients, showEvents, showReloads } from '/history.js';
import { millis, rate, percent, count, span, clock, make, set, keyed, row, cells, tag, stacked } from '/parts.js';

const $ = (id) => document.getElementById(id);
const SLOW = 5; // what changes rarely is fetched once in so many steps
const STEP = 2000;

// ---- reasons ----

let reasons = new Map();
const openReason = (word) => {
  const reason = reasons.get(word);
  set($('reason-title'), word);
  set($('reason-meaning'), reason?.meaning ?? 'This version of the dashboard does not know this reason.');
  set($('reason-todo'), reason?.what_to_do ?? '');
  $('reason-page').href = `https://github.com/attache-proxy/attache/blob/main/docs/reasons.md#${encodeURIComponent(word)}`;
  set($('reason-facts'), reason ? `Answered with ${reason.status}. Envoy's flag: ${reason.envoy_flag}.` : '');
  $('reason-dialog').showModal();
};
const reasonButton = (word, more) => {
  const button = make('button', more === undefined ? 'reason' : '', word);
  button.type = 'button';
  button.title = 'What does this mean?';
  if (more !== undefined) button.append(make('b', '', more));
  button.addEventListener('click', () => openReason(word));
  return button;
};

// ---- charts ----

let hour = false;
const whole = (value) => value >= 1000 ? `${+(value / 1000).toFixed(1)}k` : `${+value.toFixed(1)}`;
const charts = {
  traffic: new Chart($('chart-traffic'), {
    label: 'Requests per second', area: true, format: whole,
    lines: [{ at: (p) => p[1] }, { at: (p) => p[2] > 0 ? p[2] : null, className: 'bad' }],
    say: (p) => `${rate(p[1])} requests/s, ${rate(p[2])} failed/s`,
  }),
  success: new Chart($('chart-success'), {
    label: 'Success rate',
    format: (v) => `${+(v * 100).toFixed(1)}%`,
    // The axis begins just below the worst value: the difference between 99.9 % and 100 % must be visible.
    top: (values) => ({ low: Math.min(0.99, Math.max(0, Math.floor(Math.min(1, ...values) * 20 - 0.2) / 20)), high: 1 }),
    lines: [{ at: (p) => p[1] > 0 ? 1 - p[2] / p[1] : null }],
    say: (p) => p[1] > 0 ? `${percent(1 - p[2] / p[1])} succeeded` : 'no requests',
  }),
  latency: new Chart($('chart-latency'), {
    label: 'Latency percentiles',
    format: (v) => v >= 1000 ? `${+(v / 1000).toFixed(1)} s` : `${+v.toFixed(1)} ms`,
    lines: [
      { at: (p) => p[3], name: 'p50' }, { at: (p) => p[4], name: 'p90', className: 'second' }, { at: (p) => p[5], name: 'p99', className: 'third' },
    ],
    say: (p) => p[3] === null ? 'no requests' : `p50 ${millis(p[3])}, p90 ${millis(p[4])}, p99 ${millis(p[5])}`,
  }),
};

// ---- sections ----

// Callers see an outage: the server decides this, and `attache status` shows the same.
const fails = (row) => Boolean(row?.outage);
// The text has no numbers: it would change every second, and a screen reader would announce it each time.
const outageOf = ({ failed, refused, client_errors: own }) => failed ? 'calls fail' : own ? 'every answer is a 4xx' : refused ? 'every call is refused' : 'clients leave before there is an answer';
// The outages of upstreams; if there are none, those of routes, and then those of listeners (for calls that reached no upstream).
const outages = (stats) => {
  const said = (rows, key) => rows.filter(fails).map((row) => `${key} ${row[key]}: ${outageOf(row.outage)}`);
  const all = said(stats.upstreams, 'upstream');
  const found = all.length ? all : said(stats.routes, 'route');
  return found.length ? found : said(stats.listeners, 'listener');
};
const MOST_SAID = 3;
// For so many seconds a failure counts as a current one.
const LATELY = 300;
const holds = (text, words) => words.every((word) => text.toLowerCase().includes(word));
const wanted = (id) => $(id).value.toLowerCase().split(/\s+/).filter(Boolean);

const showNow = (stats, listeners) => {
  const lately = stats.total.last_10s;
  set($('version'), stats.version);
  const tile = (id, value, unit) => {
    const node = $(id);
    const text = unit ? `${value} ${unit}` : value;
    if (node.textContent !== text) node.replaceChildren(`${value}${unit ? ' ' : ''}`, ...(unit ? [make('small', '', unit)] : []));
  };
  tile('t-rate', rate(lately.per_second), '/s');
  set($('t-success'), percent(lately.success_rate));
  $('t-success').className = fails(stats.total) ? 'bad' : '';
  for (const share of ['p50', 'p90', 'p99']) set($(`t-${share}`), millis(lately[`${share}_ms`]));
  set($('t-attempts'), lately.requests ? (lately.attempts / lately.requests).toFixed(2) : '–');
  set($('t-connections'), count(listeners.reduce((sum, listener) => sum + listener.connections.open, 0)));
  for (const chart of Object.values(charts)) chart.update(hour ? stats.hour : stats.series);
  const ready = !stats.not_ready.length;
  const failing = outages(stats);
  const state = $('state');
  const word = !ready ? 'not ready' : failing.length ? 'calls fail' : 'ready';
  const text = ready ? `${word}, up ${span(stats.uptime_seconds)}` : word;
  if (state.dataset.text !== text) { state.dataset.text = text; const [word, up] = text.split(/(?=, up)/); const node = tag(ready && !failing.length ? 'good' : 'bad', word); if (up) node.append(make('span', 'up', up)); state.replaceChildren(node); }
  document.title = word === 'ready' ? 'attache' : `${word} – attache`;
  const more = failing.length > MOST_SAID ? [`and ${failing.length - MOST_SAID} more`] : [];
  trouble([...stats.not_ready.map((why) => `not ready: ${why}`), ...failing.slice(0, MOST_SAID), ...more, ...stats.degraded].join('; '));
};

const trouble = (text) => { set($('trouble'), text); $('trouble').hidden = !text; };

const healthOf = (upstream) => {
  if (upstream.kind === 'on-demand') return ['quiet', `${upstream.hosts.length} hosts`];
  const [all, usable] = [upstream.endpoints.length, upstream.usable];
  if (upstream.breaker.state === 'open') return ['bad', 'breaker open'];
  if (!usable) return ['bad', all ? `0 of ${all} usable` : upstream.no_endpoint_because ?? 'no endpoint'];
  return usable < all ? ['warn', `${usable} of ${all} usable`] : ['good', `${usable} of ${all} usable`];
};

const makeUpstream = () => {
  const node = make('details', 'upstream panel');
  const summary = make('summary');
  const title = make('h3');
  const health = make('span', 'health');
  summary.append(title, health);
  for (const label of ['requests', 'success', 'p50', 'p99']) {
    const figure = make('span', 'figure');
    figure.append(make('b', '', label), make('span'));
    summary.append(figure);
  }
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  line.setAttribute('class', 'spark');
  line.setAttribute('viewBox', '0 0 120 28');
  line.setAttribute('aria-hidden', 'true');
  summary.append(line);
  const table = make('table');
  table.setAttribute('role', 'table');
  const head = make('thead'), headRow = make('tr'), body = make('tbody');
  head.setAttribute('role', 'rowgroup');
  headRow.setAttribute('role', 'row');
  for (const label of ENDPOINT) {
    const cell = make('th', label.startsWith('#') ? 'n' : '', label.replace('#', ''));
    cell.scope = 'col';
    cell.setAttribute('role', 'columnheader');
    headRow.append(cell);
  }
  body.setAttribute('role', 'rowgroup');
  head.append(headRow);
  table.append(head, body);
  const scroll = make('div', 'scroll');
  scroll.append(table);
  node.append(summary, make('dl', 'facts'), scroll);
  return node;
};
const ENDPOINT = ['Endpoint', 'State', '#Running', '#Requests', '#Success', '#p99', 'Last failure'];

const facts = (upstream) => {
  const used = ({ used, limit }) => `${count(used)} of ${count(limit)}`;
  const list = [];
  if (upstream.breaker) {
    const { state, for_seconds: since, because: why, half_opens_in_seconds: until } = upstream.breaker;
    const more = state === 'off' ? '' : `, for ${span(since)}${why && state !== 'closed' ? ` (${why})` : ''}${until ? `, tried again in ${span(until)}` : ''}`;
    list.push(['Breaker', `${state}${more}`]);
    list.push(['Requests running', used(upstream.limits.requests)]);
    list.push(['Connections', used(upstream.limits.connections)]);
    list.push(['Waiting for one', used(upstream.limits.pending)]);
    const { retries } = upstream;
    const budget = retries.budget === null ? '' : `, budget ${Math.round(retries.budget * 100)} % or ${retries.floor_per_second}/s`;
    list.push(['Retries', `${count(retries.begun)} begun, ${count(retries.succeeded)} succeeded${budget}`]);
    if (retries.refused_by_budget) list.push(['Refused by the budget', count(retries.refused_by_budget)]);
    for (const dns of upstream.dns) {
      const outcome = dns.failure ? `${dns.failure.reason}: ${dns.failure.detail}` : `${dns.addresses} addresses`;
      list.push([`DNS ${dns.name}`, `${outcome}, asked ${span(dns.asked_ago_seconds)} ago, again in ${span(dns.next_in_seconds)}`]);
    }
  }
  list.push(['Protocol', `${upstream.protocol}${upstream.tls ? upstream.insecure ? ' over TLS that is NOT verified' : ' over TLS' : ''}`]);
  return list;
};

const MANY = 12;
const showUpstreams = (all, stats) => {
  $('upstreams-empty').hidden = all.length > 0;
  $('upstream-finder').hidden = all.length <= MANY;
  $('upstream-list').classList.toggle('many', all.length > MANY);
  const counts = new Map(stats.upstreams.map((row) => [row.upstream, row]));
  // Upstreams that fail come first, then those with unusable endpoints; otherwise the order is that of the config.
  const rank = (upstream) => fails(counts.get(upstream.name)) ? 0 : healthOf(upstream)[0] === 'bad' ? 1 : healthOf(upstream)[0] === 'warn' ? 2 : 3;
  const words = wanted('upstream-find');
  const upstreams = all.filter((upstream) => holds(upstream.name, words)).sort((a, b) => rank(a) - rank(b));
  keyed($('upstream-list'), upstreams, (upstream) => upstream.name, makeUpstream, (node, upstream) => {
    const counted = counts.get(upstream.name);
    const [title, health, requests, success, p50, p99, line] = node.firstChild.children;
    set(title, upstream.name);
    const [kind, text] = fails(counted) ? ['bad', `${counted.outage.client_errors ? 'all 4xx' : 'failing'}, ${healthOf(upstream)[1]}`] : healthOf(upstream);
    success.classList.toggle('bad', fails(counted));
    if (health.dataset.text !== kind + text) { health.dataset.text = kind + text; health.replaceChildren(tag(kind, text)); }
    const lately = counted?.last_10s;
    set(requests.lastChild, `${rate(lately?.per_second ?? 0)}/s`);
    set(success.lastChild, percent(lately?.success_rate));
    set(p50.lastChild, millis(lately?.p50_ms));
    set(p99.lastChild, millis(lately?.p99_ms));
    if (counted) spark(line, counted.series, (point) => point[1]);
    if (!node.open) return;
    keyed(node.children[1], facts(upstream), ([name]) => name, ([name]) => {
      const fact = make('div');
      fact.append(make('dt', '', name), make('dd'));
      return fact;
    }, (fact, [, value]) => set(fact.lastChild, value));
    const endpoints = upstream.endpoints ?? upstream.hosts.flatMap((host) => host.endpoints);
    const body = node.lastChild.firstChild.lastChild;
    keyed(body, endpoints, (endpoint) => endpoint.address, row(ENDPOINT), (tr, endpoint) => {
      const seen = stats.endpoints.find((row) => row.upstream === upstream.name && row.endpoint === endpoint.address)?.last_10s;
      cells(tr, [
        stacked(endpoint.address, [endpoint.host, endpoint.zone, endpoint.weight > 1 ? `weight ${endpoint.weight}` : '', endpoint.priority ? `priority ${endpoint.priority}` : ''].filter(Boolean).join(', ')),
        endpointState(endpoint), count(endpoint.active_requests), `${rate(seen?.per_second ?? 0)}/s`, percent(seen?.success_rate), millis(seen?.p99_ms),
        lastFailure(endpoint),
      ]);
    });
  });
  const select = $('tap-upstream');
  keyed(select, ['', ...all.map((upstream) => upstream.name)], (name) => name, (name) => {
    const option = make('option', '', name || 'all');
    option.value = name;
    return option;
  });
};

// Every recent attempt failed, whatever the health check says. `attache status` uses the same rule.
const failsInARow = ({ ejection, last_failure: last }) => ejection?.failures_in_a_row >= 3 && last && last.ago_seconds <= LATELY;
const endpointState = (endpoint) => {
  if (endpoint.state === 'healthy' && failsInARow(endpoint)) return tag('bad', 'failing');
  const node = tag({ healthy: 'good', ejected: 'warn', 'circuit-open': 'warn', unhealthy: 'bad' }[endpoint.state] ?? 'bad', endpoint.state);
  const back = endpoint.ejection.back_in_seconds ?? endpoint.breaker.half_opens_in_seconds;
  if (back !== null && back !== undefined) node.append(make('span', 'muted', `back in ${span(back)}`));
  if (endpoint.state === 'healthy' || !endpoint.state_because) return node;
  const whole = make('span', 'wrap');
  whole.append(node, make('span', 'under', endpoint.state_because));
  return whole;
};
const lastFailure = (endpoint) => {
  const check = endpoint.health_check.last_error;
  if (!endpoint.last_failure) return check ? stacked('health check', check) : '–';
  const { reason, ago_seconds: ago } = endpoint.last_failure;
  return stacked(reason, [`${span(ago)} ago, ${count(endpoint.failures)} in all`, check].filter(Boolean).join('; '));
};

// A command that sends the request again from a shell. Every part is quoted, because the text comes from a client and must not be run.
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const asCurl = (failure, listeners) => {
  const at = listeners.find((listener) => listener.name === failure.listener)?.bind[0] ?? 'localhost:15001';
  const where = at.startsWith('unix:') ? `--unix-socket ${quoted(at.slice(5))} http://localhost` : `http://${at.replace(/^(0\.0\.0\.0|\[::\])/, 'localhost')}`;
  return `curl -v -X ${quoted(failure.method)} -H ${quoted(`Host: ${failure.host ?? ''}`)} ${where.startsWith('--') ? `${where}${quoted(failure.path ?? '/')}` : quoted(`${where}${failure.path ?? '/'}`)}`;
};
const copyButton = (failure, listeners) => {
  const button = make('button', 'reason', 'copy as curl');
  button.type = 'button';
  button.addEventListener('click', async () => {
    const text = asCurl(failure, listeners);
    try { await navigator.clipboard.writeText(text); set(button, 'copied'); } catch { set(button, text); }
  });
  return button;
};

const GROUP = ['Whose', 'Cause', 'Now', '#In all', 'Last', 'The last one'];
// A kind of failure that has not occurred for a while is not over while callers of its upstream still see an outage.
const showGroups = (groups, stats) => {
  $('groups').hidden = groups.length === 0;
  const inOutage = ({ upstream, listener, last_ago_seconds: ago }) => ago < LATELY
    && fails(upstream ? stats.upstreams.find((row) => row.upstream === upstream) : stats.listeners.find((row) => row.listener === listener));
  const isFailing = new Map(groups.map((group) => [group, group.failing || inOutage(group)]));
  const sorted = [...groups].sort((a, b) => Number(isFailing.get(b)) - Number(isFailing.get(a)) || b.count - a.count);
  keyed($('group-rows'), sorted, (group) => `${group.upstream} ${group.listener} ${group.cause}`, (group) => {
    const node = row(GROUP)();
    node.children[1].append(group.reason ? reasonButton(group.reason) : group.cause);
    return node;
  }, (node, group) => {
    set(node.children[0], group.upstream ?? `listener ${group.listener}`);
    const state = isFailing.get(group) ? 'failing' : 'over';
    if (node.dataset.state !== state) { node.dataset.state = state; node.children[2].replaceChildren(tag(isFailing.get(group) ? 'bad' : 'quiet', state)); }
    set(node.children[3], count(group.count));
    set(node.children[4], group.last_ago_seconds < 2 ? 'now' : `${span(group.last_ago_seconds)} ago`);
    const { sample } = group;
    const last = `${sample.method ?? sample.protocol} ${sample.host ?? ''}${sample.path ?? ''}`;
    if (node.dataset.last !== last + sample.detail) {
      node.dataset.last = last + sample.detail;
      // The button of the reason shows what to do.
      const todo = group.reason ? '' : group.what_to_do;
      node.children[5].replaceChildren(stacked(last, [[sample.endpoint, sample.detail].filter(Boolean).join(': '), todo].filter(Boolean).join('. ')));
    }
  });
};

const FAILURE = ['When', 'Status', 'Reason', 'Request', 'Upstream', '#Attempts', '#Took', 'Again'];
const showFailures = ({ failures: all, groups }, stats, listeners) => {
  showGroups(groups, stats);
  const words = wanted('failure-find');
  const text = (f) => [f.method, f.host, f.path, f.upstream, f.endpoint, f.reason, f.detail, f.status, f.route].join(' ');
  const failures = all.filter((failure) => holds(text(failure), words));
  set($('failure-found'), words.length ? `${failures.length} of ${all.length}` : '');
  $('failures-empty').hidden = failures.length > 0;
  // A second exchange with the same time and path gets a row of its own.
  const seen = new Map();
  const key = (failure) => {
    const text = `${failure.time} ${failure.request_id} ${failure.path}`;
    const nth = seen.get(text) ?? 0;
    seen.set(text, nth + 1);
    return `${text} ${nth}`;
  };
  keyed($('failure-rows'), failures.map((failure) => ({ failure, key: key(failure) })), (item) => item.key, ({ failure }) => {
    const node = row(FAILURE)();
    cells(node, [
      clock(failure.time), failure.status === null ? '–' : String(failure.status), '',
      stacked(`${failure.method ?? failure.protocol} ${failure.host ?? ''}${failure.path ?? ''}`, failure.detail ?? ''),
      stacked(failure.upstream ?? '–', failure.endpoint ?? ''), String(failure.attempts), millis(failure.total_ms), '',
    ]);
    if (failure.method) node.children[7].append(copyButton(failure, listeners));
    node.children[2].append(failure.reason ? reasonButton(failure.reason) : 'the upstream’s own answer');
    return node;
  });
  const lately = new Map();
  for (const { reason, last_5m: n } of stats.reasons) if (n) lately.set(reason, (lately.get(reason) ?? 0) + n);
  const sorted = [...lately].sort((a, b) => b[1] - a[1]);
  keyed($('reasons'), sorted, ([word]) => word, ([word]) => {
    const item = make('li');
    item.append(reasonButton(word, ''));
    return item;
  }, (item, [, n]) => set(item.querySelector('b'), count(n)));
};

const showTraffic = (listeners, stats) => {
  const labels = ['Listener', 'At', '#Connections', '#Requests', '#Success', '#p99'];
  keyed($('listener-rows'), listeners, (listener) => listener.name, row(labels), (node, listener) => {
    const counted = stats.listeners.find((row) => row.listener === listener.name);
    const lately = counted?.last_10s;
    node.children[4].classList.toggle('bad', fails(counted));
    const name = listener.draining ? `${listener.name} (draining)` : listener.name;
    cells(node, [name, `${listener.bind.join(', ')}${listener.tls ? ', TLS' : ''}`, `${count(listener.connections.open)} of ${count(listener.connections.limit)}`,
      `${rate(lately?.per_second ?? 0)}/s`, percent(lately?.success_rate), millis(lately?.p99_ms)]);
  });
  $('routes-empty').hidden = stats.routes.length > 0;
  const routes = ['Route', '#Requests', '#Success', '#p50', '#p99', '#In all'];
  keyed($('route-rows'), stats.routes, (route) => `${route.listener} ${route.route}`, row(routes), (node, route) => {
    const lately = route.last_10s;
    node.children[2].classList.toggle('bad', fails(route));
    cells(node, [route.route, `${rate(lately.per_second)}/s`, percent(lately.success_rate), millis(lately.p50_ms), millis(lately.p99_ms), count(route.requests)]);
  });
};

// ---- asking ----

const get = async (path) => {
  const answer = await fetch(path, { cache: 'no-store' });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
};
const post = async (path) => {
  const answer = await fetch(path, { method: 'POST' });
  const said = $('said');
  set(said, (await answer.text()).trim());
  said.hidden = false;
  return answer.ok;
};

let paused = false;
let steps = 0;
const step = async () => {
  if (paused || document.hidden) return;
  try {
    const [stats, upstreams, failures, listeners] = await Promise.all(['/stats.json', '/upstreams', '/failures', '/listeners'].map(get));
    showNow(stats, listeners);
    showUpstreams(upstreams, stats);
    showFailures(failures, stats, listeners);
    showTraffic(listeners, stats);
    const [events, clients] = await Promise.all(['/events', '/clients'].map(get));
    showEvents(events, wanted('event-find'), holds);
    showClients(clients, wanted('client-find'), holds);
    if (steps++ % SLOW === 0) {
      const [certificates, reloads] = await Promise.all(['/certificates', '/reloads'].map(get));
      showCertificates(certificates);
      showReloads(reloads);
    }
    document.body.dataset.live = 'yes';
  } catch (error) {
    trouble(`No answer from attache (${error.message}). The page shows older values.`);
    $('state').dataset.text = '';
    $('state').replaceChildren(tag('bad', 'no answer'));
  }
};
const again = async () => { await step(); setTimeout(again, STEP); };

$('pause').addEventListener('click', () => {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', String(paused));
  set($('pause'), paused ? 'Go on' : 'Pause');
  if (!paused) step();
});
for (const input of document.getElementsByName('window')) input.addEventListener('change', () => { hour = $('window-hour').checked; step(); });
for (const id of ['failure-find', 'upstream-find', 'event-find', 'client-find']) $(id).addEventListener('input', () => step());
document.addEventListener('toggle', () => step(), true);
document.addEventListener('visibilitychange', () => step());

// ---- following ----

let tap = null;
const LINES = 200;
const note = (text) => set($('tap-note'), text);
const showExchange = (exchange) => {
  const item = make('li');
  if (exchange.dropped) {
    item.className = 'note';
    set(item, `${exchange.dropped} more requests came faster than they could be shown`);
    return item;
  }
  const bad = exchange.reason || exchange.status >= 500;
  const request = `${exchange.method ?? exchange.protocol} ${exchange.host ?? ''}${exchange.path ?? ''}`;
  const what = make('span', 'wrap', request);
  if (bad) what.append(make('span', 'under', [exchange.reason, exchange.detail].filter(Boolean).join(': ')));
  item.append(make('span', 'muted', clock(exchange.time)), make('span', `tag ${bad ? 'bad' : 'good'}`, String(exchange.status ?? '–')), what,
    make('span', 'n', millis(exchange.total_ms)),
    make('span', 'muted wrap', `${exchange.upstream ?? ''} ${exchange.endpoint ?? ''}${exchange.attempts > 1 ? ` ${exchange.attempts} attempts` : ''}`));
  return item;
};
const stopTap = () => { tap?.abort(); tap = null; set($('tap-go'), 'Start'); };
$('tap-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  if (tap) { stopTap(); note('Stopped.'); return; }
  const filter = new URLSearchParams();
  for (const key of ['upstream', 'status', 'path', 'slower', 'sample']) {
    const { value } = $(`tap-${key}`);
    if (value) filter.set(key, value);
  }
  if ($('tap-failed').checked) filter.set('reason', 'any');
  tap = new AbortController();
  const mine = tap;
  set($('tap-go'), 'Stop');
  try {
    const answer = await fetch(`/tap?${filter.toString().replaceAll('+', '%20')}`, { signal: mine.signal });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    note('Following. Credentials are hidden; nothing is stored.');
    const list = $('tap-lines');
    $('tap-panel').hidden = false;
    list.replaceChildren();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      const news = lines.filter(Boolean).slice(-LINES).map((line) => showExchange(JSON.parse(line))).reverse();
      list.prepend(...news);
      while (list.children.length > LINES) list.lastChild.remove();
    }
    note('The stream has ended.');
  } catch (error) {
    if (error.name !== 'AbortError') note(error.message);
  }
  if (tap === mine) stopTap();
});

// ---- actions ----

$('reload').addEventListener('click', async () => { await post('/reload'); steps = 0; step(); });
$('drain').addEventListener('click', () => $('drain-dialog').showModal());
$('drain-dialog').addEventListener('close', () => {
  const dialog = $('drain-dialog');
  if (dialog.returnValue === 'drain') post('/drain').then(step);
  dialog.returnValue = '';
});
const levels = $('log-level');
fetch('/log').then((answer) => answer.ok ? answer.text() : '').then((level) => {
  const text = level.trim();
  if (text && ![...levels.options].some((option) => option.value === text)) levels.append(make('option', '', text));
  levels.value = text;
});
levels.addEventListener('change', () => post(`/log?level=${encodeURIComponent(levels.value)}`));

get('/reasons').then((all) => { reasons = new Map(all.map((reason) => [reason.reason, reason])); });
again();
