'use strict';
// Writes values as JSON, and refuses values that JSON would silently change.

const { types } = require('util');
const { Failure } = require('./errors');

const HEAD = '{"result": ';

/** Returns the result as the text {"result": …}. */
const render = (value) => HEAD + jsonOf(value) + '}';

/** Returns a value as JSON; undefined becomes null. A value that JSON cannot hold is a bad_result. */
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
    new Check().of(value, '');
    text = JSON.stringify(value);
  } catch (e) {
    if (e instanceof Failure) throw e;
    throw bad(e instanceof RangeError ? 'it is nested too deeply' : String(e?.message ?? e));
  }
  return text ?? 'null'; // a toJSON may return undefined
}

const bad = (why) => new Failure(500, 'bad_result', `JSON cannot hold what callme returned: ${why}`);

/** Checks everything in a value before it is written as JSON. */
class Check {
  #above = []; // the objects that contain the present value, outermost first
  #keys = []; // the key of each

  of(value, key) {
    if (typeof value !== 'object' || value === null) {
      if (typeof value === 'bigint') throw this.#bad('a BigInt', key, 'return Number(x) or String(x)');
      if (typeof value === 'function') throw this.#bad('a function', key);
      if (typeof value === 'symbol') throw this.#bad('a symbol', key);
      if (typeof value === 'number' && !Number.isFinite(value)) throw this.#bad(value, key);
      return;
    }
    const kind = Object.getPrototypeOf(value);
    // The prototype of a plain object from another realm has no prototype either.
    const plain = kind === Object.prototype || kind === Array.prototype || kind === null || Object.getPrototypeOf(kind) === null;
    if (!plain) this.#foreign(value, key);
    if (typeof value.toJSON === 'function') {
      const own = value.toJSON(key);
      if (own !== value) return this.of(own, key);
    }
    if (types.isNumberObject(value)) return this.of(Number(value), key);
    // The stack bounds the depth, so few objects are above this one, and comparing them is fast.
    if (this.#above.includes(value)) throw this.#bad('itself, a cycle', key);
    this.#above.push(value);
    this.#keys.push(key);
    if (Array.isArray(value)) {
      for (let i = 0; i < value.length; i++) this.of(value[i], i);
    } else {
      const names = Object.keys(value);
      if (names.length === 0 && !plain && !types.isBoxedPrimitive(value)) {
        this.#above.pop();
        this.#keys.pop();
        throw this.#bad(named(value), key, ADVICE[nameOf(value)] ?? ADVICE.other);
      }
      for (const name of names) this.of(value[name], name);
    }
    this.#above.pop();
    this.#keys.pop();
  }

  /** Refuses objects that JSON.stringify would turn into strange or empty ones. */
  #foreign(value, key) {
    const wrong = (what, advice) => { throw this.#bad(what, key, advice); };
    if (Buffer.isBuffer(value)) wrong('a Buffer', ADVICE.Buffer); // nobody can use what its toJSON returns
    if (types.isDate(value) && Number.isNaN(value.getTime())) wrong('an invalid Date');
    if (typeof value.toJSON === 'function') return;
    if (ArrayBuffer.isView(value)) wrong(`a ${nameOf(value)}`, types.isTypedArray(value) ? 'return Array.from(x)' : ADVICE.other);
    if (types.isMap(value)) wrong('a Map', ADVICE.Map);
    if (types.isSet(value)) wrong('a Set', ADVICE.Set);
    if (types.isPromise(value)) wrong('a Promise', 'await it');
    if (types.isRegExp(value)) wrong('a RegExp', 'return String(x)');
    if (types.isNativeError(value)) wrong('an Error', 'throw it, or return x.message');
    if (types.isSymbolObject(value)) wrong('a symbol');
    if (typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function') wrong('an iterator', ADVICE.Set);
    if (typeof value[Symbol.asyncIterator] === 'function') wrong('an asynchronous iterator', 'return it by itself, and it streams');
  }

  #bad(what, key, advice) {
    const keys = [...this.#keys, key].slice(1);
    const path = keys.map((k) => (typeof k === 'number' ? `[${k}]` : /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(k) ? `.${k}` : `[${JSON.stringify(k)}]`));
    return bad(`it contains ${what}${path.length > 0 ? ` at result${path.join('')}` : ''}${advice ? `; ${advice}` : ''}`);
  }
}

const ADVICE = {
  Blob: 'return new Response(blob)',
  Buffer: "return x.toString(), x.toString('base64') or new Response(x)",
  File: 'return new Response(file)',
  FormData: 'return Object.fromEntries(x)',
  Headers: 'return Object.fromEntries(x)',
  Map: 'return Object.fromEntries(x)',
  Set: 'return [...x]',
  URLSearchParams: 'return Object.fromEntries(x) or String(x)',
  other: 'JSON would keep nothing of it',
};

const nameOf = (value) => String(value[Symbol.toStringTag] ?? value.constructor?.name ?? 'object');

function named(value) {
  const name = nameOf(value);
  return `${/^[aeio]/i.test(name) ? 'an' : 'a'} ${name}`;
}

module.exports = { jsonOf, render };
