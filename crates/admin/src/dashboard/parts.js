// Makes the texts and the nodes of the page. Text from clients is put into the page as text only, never as HTML.

// ---- words ----

export const millis = (value) => value === null || value === undefined ? '–'
  : value < 10 ? `${value.toFixed(1)} ms` : value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
export const rate = (value) => value === undefined ? '–' : value >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(1);
export const percent = (share) => share === null || share === undefined ? '–'
  : share >= 1 ? '100 %' : `${(Math.floor(share * 10000) / 100).toFixed(2)} %`;
export const count = (value) => (value ?? 0).toLocaleString('en');
export const span = (seconds) => {
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [size, unit] of [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']]) {
    if (left >= size || (unit === 's' && !parts.length)) { parts.push(`${Math.floor(left / size)} ${unit}`); left %= size; }
    if (parts.length === 2) break;
  }
  return parts.join(' ');
};
export const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

// ---- the page's parts ----

export const make = (name, className, text) => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
export const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// Updates the children by key: a child that stays keeps its focus, its selection and whether it is open.
export const keyed = (parent, items, key, create, update) => {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let last = null;
  for (const item of items) {
    const name = String(key(item));
    let node = known.get(name);
    if (!node) { node = create(item); node.dataset.key = name; }
    known.delete(name);
    const next = last ? last.nextSibling : parent.firstChild;
    if (node !== next) parent.insertBefore(node, next);
    update?.(node, item);
    last = node;
  }
  for (const gone of known.values()) gone.remove();
};

export const row = (labels) => () => {
  const node = make('tr');
  node.setAttribute('role', 'row');
  for (const label of labels) {
    const cell = make('td', label.startsWith('#') ? 'n' : '');
    cell.setAttribute('role', 'cell');
    cell.dataset.label = label.replace('#', '');
    node.append(cell);
  }
  return node;
};
export const cells = (node, texts) => texts.forEach((text, index) => {
  const cell = node.children[index];
  if (text instanceof Node) { if (!cell.firstChild?.isEqualNode?.(text) || cell.childNodes.length !== 1) cell.replaceChildren(text); } else set(cell, text);
});
export const tag = (kind, text) => make('span', `tag ${kind}`, text);
export const stacked = (text, under) => {
  const node = make('span', 'wrap', text);
  if (under) node.append(make('span', 'under', under));
  return node;
};
