// Compares two texts line by line (Myers).

// most is how many lines may differ; texts that differ more are shown as wholly changed.
const most = 600;

// diff returns rows of {left, right}: a line of each text as {number, text}, or undefined
// where that text has none. same is true for lines that are in both.
export function diff(before, after) {
  const a = before.split('\n'), b = after.split('\n');
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const kept = matches(a.slice(head, a.length - tail), b.slice(head, b.length - tail)).map(([x, y]) => [x + head, y + head]);
  const rows = [];
  const line = (lines, i) => (i === undefined ? undefined : { number: i + 1, text: lines[i] });
  const same = (x, y) => rows.push({ left: line(a, x), right: line(b, y), same: true });
  const changed = (x, xEnd, y, yEnd) => {
    for (let i = 0; i < Math.max(xEnd - x, yEnd - y); i++) {
      rows.push({ left: line(a, x + i < xEnd ? x + i : undefined), right: line(b, y + i < yEnd ? y + i : undefined), same: false });
    }
  };
  for (let i = 0; i < head; i++) same(i, i);
  let x = head, y = head;
  for (const [i, j] of [...kept, [a.length - tail, b.length - tail]]) {
    changed(x, i, y, j);
    if (i < a.length - tail) same(i, j);
    [x, y] = [i + 1, j + 1];
  }
  for (let i = tail; i > 0; i--) same(a.length - i, b.length - i);
  return rows;
}

// matches returns the pairs of indexes of a longest common part.
function matches(a, b) {
  const trail = [];
  let v = new Map([[1, 0]]);
  for (let d = 0; d <= Math.min(most, a.length + b.length); d++) {
    trail.push(new Map(v));
    for (let k = -d; k <= d; k += 2) {
      let x = k === -d || (k !== d && v.get(k - 1) < v.get(k + 1)) ? v.get(k + 1) : v.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      v.set(k, x);
      if (x >= a.length && x - k >= b.length) return back(trail, a, b);
    }
  }
  return [];
}

function back(trail, a, b) {
  const pairs = [];
  let x = a.length, y = b.length;
  for (let d = trail.length - 1; d >= 0; d--) {
    const v = trail[d], k = x - y;
    const from = k === -d || (k !== d && v.get(k - 1) < v.get(k + 1)) ? k + 1 : k - 1;
    const begin = d > 0 ? v.get(from) : 0, above = d > 0 ? begin - from : 0;
    while (x > begin && y > above) pairs.unshift([--x, --y]);
    [x, y] = [begin, above];
  }
  return pairs;
}
