// Small line charts of the last minutes or hour. Each step draws them from the beginning: 240 points cost little, and there is no state
// that could become wrong.

const NS = 'http://www.w3.org/2000/svg';
const LEFT = 52, RIGHT = 40, TOP = 8, BOTTOM = 18, HEIGHT = 132;

const el = (name, attributes, text) => {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};

// The axis goes from 0 to a round number above the highest value.
const ceiling = (value) => {
  if (!(value > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((n) => n * step).find((n) => n >= value * 1.02) ?? 10 * step;
};

// The line has a gap where there is no value.
const path = (points, x, y, at) => {
  let out = '', pen = false;
  points.forEach((point, index) => {
    const value = at(point);
    if (value === null || value === undefined) { pen = false; return; }
    out += `${pen ? 'L' : 'M'}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
  });
  return out;
};

// `lines`: { at, className, name }; `area` fills the space below the first line; `format` makes the text of a value, `say` that of a point.
export class Chart {
  constructor(figure, { label, lines, area = false, format, say, top = null }) {
    Object.assign(this, { figure, label, lines, area, format, say, top, points: [], cursor: null });
    this.svg = el('svg', { role: 'img', tabindex: '0', 'aria-label': label });
    this.readout = document.createElement('output');
    figure.append(this.svg, this.readout);
    this.svg.addEventListener('pointermove', (event) => {
      const box = this.svg.getBoundingClientRect();
      const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
      this.move(Math.round(share * (this.points.length - 1)));
    });
    for (const event of ['pointerleave', 'blur']) this.svg.addEventListener(event, () => { this.cursor = null; this.draw(); });
    this.svg.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.move((this.cursor ?? this.points.length) + step);
    });
    new ResizeObserver(() => this.draw()).observe(figure);
  }

  move(to) {
    this.cursor = Math.max(0, Math.min(this.points.length - 1, to));
    this.draw();
  }

  update(points) {
    this.points = points;
    this.draw();
  }

  draw() {
    const width = Math.max(160, this.svg.clientWidth || 320);
    const values = this.points.flatMap((point) => this.lines.map((line) => line.at(point))).filter((v) => v !== null && v !== undefined);
    const { low, high } = this.top ? this.top(values) : { low: 0, high: ceiling(Math.max(0, ...values)) };
    const span = Math.max(1, this.points.length - 1);
    const x = (index) => LEFT + (index / span) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
    const out = [];
    for (const tick of [low, (low + high) / 2, high]) {
      out.push(el('line', { class: 'axis', x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
      out.push(el('text', { class: 'tick', x: LEFT - 6, y: y(tick) + 4, 'text-anchor': 'end' }, this.format(tick)));
    }
    out.push(el('text', { class: 'tick', x: LEFT, y: HEIGHT - 3 }, this.points.length ? ago(this.points[0][0]) : ''));
    out.push(el('text', { class: 'tick', x: width - RIGHT, y: HEIGHT - 3, 'text-anchor': 'end' }, 'now'));
    if (this.area && this.points.length > 1) {
      const line = path(this.points, x, y, (point) => this.lines[0].at(point) ?? 0);
      out.push(el('path', { class: 'area', d: `${line}L${x(span)} ${y(low)}L${x(0)} ${y(low)}Z` }));
    }
    const marks = [];
    for (const line of this.lines) {
      out.push(el('path', { class: `line ${line.className ?? ''}`, d: path(this.points, x, y, line.at) }));
      const last = this.points.map(line.at).findLast((value) => value !== null && value !== undefined);
      if (line.name && last !== undefined) marks.push({ at: y(last) + 4, name: line.name });
    }
    // The names stand beside the ends of the lines; they are moved apart where they would overlap.
    marks.sort((a, b) => a.at - b.at);
    marks.forEach((mark, index) => {
      if (index && mark.at < marks[index - 1].at + 12) mark.at = marks[index - 1].at + 12;
      out.push(el('text', { class: 'mark', x: width - RIGHT + 5, y: Math.min(mark.at, HEIGHT - 4) }, mark.name));
    });
    const point = this.cursor === null ? undefined : this.points[this.cursor];
    if (point) out.push(el('line', { class: 'cursor', x1: x(this.cursor), x2: x(this.cursor), y1: TOP, y2: HEIGHT - BOTTOM }));
    this.svg.replaceChildren(...out);
    const shown = point ?? this.points.at(-1);
    this.readout.textContent = shown ? `${point ? ago(point[0]) : 'now'}: ${this.say(shown)}` : 'the first point comes soon';
    this.svg.setAttribute('aria-label', shown ? `${this.label}. Now: ${this.say(this.points.at(-1))}` : this.label);
  }
}

const ago = (seconds) => seconds < 5 ? 'now' : seconds < 90 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;

// A line without axes, for one row of a table.
export const spark = (svg, points, at) => {
  const high = ceiling(Math.max(0, ...points.map(at)));
  const span = Math.max(1, points.length - 1);
  const line = path(points, (i) => 1 + (i / span) * 118, (v) => 27 - (v / high) * 25, at);
  svg.replaceChildren(el('path', { class: 'line', d: line }));
};
