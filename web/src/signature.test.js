import assert from 'node:assert';
import { test } from 'node:test';
import { argument, parameters } from './signature.js';

const short = (code, lang) => parameters(code, lang)?.map((p) => `${p.rest ? '*' : ''}${p.name}${p.type ? ':' + p.type : ''}${p.preset === undefined ? '' : '=' + p.preset}`).join(' ');

test('parameters of Python', () => {
  for (const [code, want] of [
    ['def callme(): pass', ''],
    ['import x\nasync def callme(net: float, q: "int" = 1, /, *, note="a,b)", tags: list[str] = [], **more): # (hi\n pass', 'net:float q:"int"=1 note="a,b)" tags:list[str]=[] *more'],
    ['def callme(\n    a,  # the first, (really)\n    b={"x": (1, 2)},\n):\n  return 1', 'a b={"x": (1, 2)}'],
    ['def other(a): pass', undefined],
  ]) assert.equal(short(code, 'python'), want);
});

test('parameters of JavaScript', () => {
  for (const [code, want] of [
    ['function callme(a, b) {}', 'a b'],
    ['export async function callme({ name = "you", n, ...others }, b = [1, 2]) {}', 'name="you" n *others b=[1, 2]'],
    ['const callme = (a) => a', 'a'],
    ['exports.callme = async function (x) {}', 'x'],
    ['export default function (x) {}', 'x'],
    ['module.exports = (y) => y', 'y'],
    ['const x = 1', undefined],
  ]) assert.equal(short(code, 'node'), want);
});

test('arguments are JSON where they can be, and text for a str', () => {
  assert.deepEqual(argument('5'), 5);
  assert.deepEqual(argument('[1, "a"]'), [1, 'a']);
  assert.deepEqual(argument('hello'), 'hello');
  assert.deepEqual(argument('5', 'str'), '5');
  assert.deepEqual(argument('5', 'str | None'), '5');
});
