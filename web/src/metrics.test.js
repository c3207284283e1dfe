import assert from 'node:assert';
import { test } from 'node:test';
import { parse, value } from './metrics.js';

test('samples have their labels, and only those that begin so are read', () => {
  const all = parse('# HELP fob_x What.\nfob_x{lang="python",note="a\\"b\\\\c\\nd"} 2\nfob_x{lang="node"} 3.5e1\nfob_none 0\nfob_le{le="+Inf"} 7 1700000000\ngo_threads 4\nfob_odd line');
  assert.deepEqual(all.get('fob_x'), [{ name: 'fob_x', labels: { lang: 'python', note: 'a"b\\c\nd' }, value: 2 }, { name: 'fob_x', labels: { lang: 'node' }, value: 35 }]);
  assert.equal(value(all, 'fob_x'), 37);
  assert.equal(value(all, 'fob_x', { lang: 'node' }), 35);
  assert.equal(value(all, 'fob_none'), 0);
  assert.equal(value(all, 'fob_missing'), undefined);
  assert.equal(all.get('fob_le')[0].labels.le, '+Inf');
  assert.equal(all.has('go_threads'), false);
});
