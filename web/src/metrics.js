// Reads the Prometheus text format.

// parse returns the samples of each metric whose name begins so: by name, a list of
// {labels, value}.
export function parse(text, prefix = 'fob_') {
  const all = new Map();
  let at = 0;
  while (at < text.length) {
    let end = text.indexOf('\n', at);
    if (end < 0) end = text.length;
    if (text.startsWith(prefix, at)) {
      const sample = readSample(text.slice(at, end));
      if (sample) {
        const list = all.get(sample.name);
        if (list) list.push(sample);
        else all.set(sample.name, [sample]);
      }
    }
    at = end + 1;
  }
  return all;
}

const pattern = /^([a-z0-9_:]+)(?:\{(.*)\})? ([^ ]+)/i;
const label = /([a-z0-9_]+)="((?:[^"\\]|\\.)*)",?/gi;

function readSample(line) {
  const m = pattern.exec(line);
  if (!m) return undefined;
  const labels = {};
  if (m[2]) for (const [, name, value] of m[2].matchAll(label)) labels[name] = value.includes('\\') ? value.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c)) : value;
  return { name: m[1], labels, value: Number(m[3].replace('Inf', 'Infinity')) };
}

// value returns the sum of a metric's samples, or undefined if there are none.
export function value(all, name, want = {}) {
  const fitting = (all.get(name) || []).filter((s) => Object.entries(want).every(([k, v]) => s.labels[k] === v));
  return fitting.length ? fitting.reduce((sum, s) => sum + s.value, 0) : undefined;
}
