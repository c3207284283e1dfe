import assert from 'node:assert';
import { test } from 'node:test';
import { diff } from './diff.js';

const text = (rows, side) => rows.filter((r) => r[side]).map((r) => r[side].text).join('\n');

// longest is the length of the longest common part, found slowly.
function longest(a, b) {
  const best = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) best[i][j] = a[i - 1] === b[j - 1] ? best[i - 1][j - 1] + 1 : Math.max(best[i - 1][j], best[i][j - 1]);
  }
  return best[a.length][b.length];
}

test('a difference has both texts whole, and keeps as much as can be kept', () => {
  let state = 1;
  const random = (n) => (state = (state * 48271) % 2147483647) % n;
  const some = () => Array.from({ length: random(9) }, () => 'abc'[random(3)]).join('\n');
  for (let round = 0; round < 2000; round++) {
    const a = some(), b = some(), rows = diff(a, b);
    assert.equal(text(rows, 'left'), a);
    assert.equal(text(rows, 'right'), b);
    assert.equal(rows.filter((r) => r.same).length, longest(a.split('\n'), b.split('\n')));
  }
});

test('texts that have nothing in common are wholly changed', () => {
  const a = Array.from({ length: 3000 }, (_, i) => 'a' + i).join('\n'), b = a.replaceAll('a', 'b');
  const rows = diff(a, b);
  assert.equal(text(rows, 'left'), a);
  assert.equal(text(rows, 'right'), b);
});
