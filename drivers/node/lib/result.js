'use strict';
// Writes values as JSON, and refuses what JSON would quietly make something else of.

const { types } = require('util');
const { Failure } = require('./errors');

const HEAD = '{"result": ';

/** Returns the result as the text {"result": …}. */
const render = (value) => HEAD + jsonOf(value) + '}';

/** Returns a value as JSON, which is null for undefined. What JSON cannot hold is a bad_result. */
function jsonOf(value) {
  switch (typeof value) {
    case 'undefined':
      return 'null';
    case 'string':
    case 'boolean':
      return JSON.stringify(value);
    case 'number':
      if (Number.isFinite(value)) return Object.is(value, -0) ? '0' : String(value);
  }
  let text;
  try {
    check(value, '', []);
    text = JSON.stringify(value);
  } catch (e) {
    if (e instanceof Failure) throw e;
    throw bad(e instanceof RangeError ? 'it is nested too deeply' : String(e?.message ?? e));
  }
  return text ?? 'null'; // a toJSON may return undefined
}

const bad = (why) => new Failure(500, 'bad_result', `JSON cannot hold what callme returned: ${why}`);

function check(value, key, above) {
  if (typeof value === 'bigint') throw bad('it contains a BigInt; return Number(x) or String(x)');
  if (typeof value === 'function') throw bad('it contains a function');
  if (typeof value === 'symbol') throw bad('it contains a symbol');
  if (typeof value === 'number' && !Number.isFinite(value)) throw bad(`it contains ${value}`);
  if (typeof value !== 'object' || value === null) return;
  const kind = Object.getPrototypeOf(value);
  if (kind !== Object.prototype && kind !== Array.prototype) {
    const name = foreign(value);
    if (name) throw bad(`it contains a ${name}`);
    if (value instanceof Number) return check(Number(value), key, above);
  }
  if (typeof value.toJSON === 'function') {
    const plain = value.toJSON(key);
    if (plain !== value) return check(plain, key, above);
  }
  // Ever deeper values are found too deep by the stack; the few that are above this one are quickly compared.
  if (above.includes(value)) throw bad('it contains itself, a cycle');
  above.push(value);
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) check(value[i], String(i), above);
  } else {
    for (const name of Object.keys(value)) check(value[name], name, above);
  }
  above.pop();
}

/** Names what JSON.stringify makes an empty or strange object of. */
function foreign(value) {
  if (Buffer.isBuffer(value)) return 'Buffer';
  if (ArrayBuffer.isView(value)) return value[Symbol.toStringTag] ?? 'DataView';
  if (types.isMap(value)) return 'Map';
  if (types.isSet(value)) return 'Set';
  if (types.isPromise(value)) return 'Promise; await it';
  if (types.isAnyArrayBuffer(value)) return 'ArrayBuffer';
  if (types.isRegExp(value)) return 'RegExp';
  if (types.isNativeError(value)) return 'Error';
  if (types.isWeakMap(value) || types.isWeakSet(value)) return 'WeakMap or WeakSet';
  if (types.isGeneratorObject(value)) return 'generator';
  return null;
}

module.exports = { jsonOf, render };
