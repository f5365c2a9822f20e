// The history: changes of state, reloads and what they changed, certificates, and clients. Text from clients is put into the page as text
// only, never as HTML.

import { millis, count, span, clock, make, set, keyed, row, cells, tag, stacked } from '/parts.js';

const $ = (id) => document.getElementById(id);

const BAD = new Set(['open', 'ejected', 'unhealthy', 'unreachable']);
const GOOD = new Set(['closed', 'back', 'healthy', 'loaded', 'changed files were put into use']);
const NAMES = { circuit: 'breaker', 'endpoint-circuit': "endpoint's breaker", config: 'config', certificates: 'certificates' };
const kindOf = ({ kind, what }) => {
  if (GOOD.has(what) || what.startsWith('no longer')) return 'good';
  return BAD.has(what) || kind === 'failures' || what.startsWith('refused') || what.startsWith("changed files can't") ? 'bad' : 'warn';
};

const now = (event) => {
  const node = stacked('', event.because);
  node.prepend(tag(kindOf(event), event.what));
  return node;
};

const EVENT = ['When', 'Whose', 'What', 'Now', '#Times'];
export const showEvents = (all, words, holds) => {
  const text = (event) => [event.kind, NAMES[event.kind], event.whose, event.endpoint, event.what, event.because].join(' ');
  const events = all.filter((event) => holds(text(event), words));
  $('events-empty').hidden = events.length > 0;
  keyed($('event-rows'), events, (event) => `${event.first} ${event.kind} ${event.whose} ${event.endpoint} ${event.what}`, row(EVENT), (node, event) => {
    const since = event.count > 1 ? `since ${clock(event.first)}` : '';
    cells(node, [stacked(clock(event.last), since), stacked(event.whose || 'this attache', event.endpoint ?? ''), NAMES[event.kind] ?? event.kind, now(event), count(event.count)]);
  });
};

const CLIENT = ['Client', 'Listener', '#Requests', '#Failed', '#Mean', '#Slowest', 'Last'];
export const showClients = (all, words, holds) => {
  const clients = all.filter((one) => holds([one.client, one.listener, one.last_reason].join(' '), words));
  $('clients-empty').hidden = clients.length > 0;
  keyed($('client-rows'), clients, (one) => `${one.listener} ${one.client}`, row(CLIENT), (node, one) => {
    const about = one.requests > one.at_least ? `at least ${count(one.at_least)}` : '';
    cells(node, [
      stacked(one.client || 'unknown', one.verified ? 'verified by its certificate' : ''), one.listener,
      stacked(count(one.requests), about), one.failed ? tag('bad', count(one.failed)) : '0', millis(one.mean_ms), millis(one.slowest_ms),
      stacked(clock(one.last), one.last_reason ?? ''),
    ]);
  });
};

const CERTIFICATE = ['Shown by', 'Names', 'Issuer', 'File', '#Expires in'];
export const showCertificates = ({ certificates }) => {
  $('certificates-empty').hidden = certificates.length > 0;
  keyed($('certificate-rows'), certificates, (c) => `${c.side} ${c.name} ${c.sha256}`, row(CERTIFICATE), (node, c) => {
    const left = c.expires_in_seconds;
    const kind = left <= 86400 ? 'bad' : left <= 7 * 86400 ? 'warn' : 'good';
    cells(node, [`${c.side} ${c.name}`, stacked(c.names.join(', ') || c.subject), stacked(c.issuer), stacked(c.file ?? 'SPIFFE agent'), tag(kind, left ? span(left) : 'expired')]);
  });
};

const RELOAD = ['When', 'Outcome', 'By', 'What'];
export const showReloads = (reloads) => {
  $('reloads-empty').hidden = reloads.length > 0;
  keyed($('reload-rows'), reloads, (reload) => `${reload.time} ${reload.generation ?? ''}`, row(RELOAD), (node, reload) => {
    const what = reload.ok ? [...reload.changes, ...reload.needs_restart].join('; ') || (reload.trigger === 'start' ? 'the start' : 'nothing changed') : reload.error;
    cells(node, [clock(reload.time), tag(reload.ok ? 'good' : 'bad', reload.ok ? 'served' : 'refused'), reload.trigger ?? '', stacked(what)]);
  });
  // The newest stands first.
  const last = reloads.find((reload) => reload.diff);
  $('diff').hidden = !last;
  if (!last || $('diff').dataset.of === last.time) return;
  $('diff').dataset.of = last.time;
  set($('diff-title'), `What the reload of ${clock(last.time)} changed`);
  const kinds = { '+': 'added', '-': 'removed', '@': 'place' };
  $('diff-lines').replaceChildren(...last.diff.split('\n').map((line) => make('span', kinds[line[0]] ?? '', `${line}\n`)));
};
