'use strict';
// Binds the arguments of the user's function and calls it.

const { AsyncResource } = require('async_hooks');
const { NONE } = require('./body');
const { Failure, raised } = require('./errors');
const { jsonText, jsonType, parseObject } = require('./json');
const { load } = require('./load');
const { parametersOf } = require('./params');
const { render } = require('./result');
const { isStream, streamOf } = require('./stream');

/** A loaded callme. Its parameters are analysed once, here. */
class Function_ {
  /** Loads code. Throws a Failure. */
  static async load(code) {
    // Node takes 30 ms to load these when they are first mentioned, so do it now rather than in the first call.
    if (/\b(?:Response|fetch)\b/.test(code)) void globalThis.Response;
    const found = await load(code);
    return new Function_(found, found.base ?? new AsyncResource('FobBase'));
  }

  /** Loads and calls a function that does nothing, because Node takes long over the first one. */
  static async warmUp() {
    const f = await Function_.load('function callme() {}');
    f.fresh(() => f.call(undefined, NONE, undefined, undefined));
  }

  #base; // has each AsyncLocalStorage as the import left it

  constructor({ callme, self }, base) {
    this.#base = base;
    this.callme = callme;
    this.self = self; // the object whose method it is
    this.params = parametersOf(callme);
    this.names = new Set();
    this.lists = new Set(); // parameters whose default is a list
    this.catchesAll = false;
    for (const param of this.params) {
      for (const one of param.keys ?? (param.name ? [param] : [])) {
        this.names.add(one.name);
        if (one.list) this.lists.add(one.name);
      }
      this.catchesAll ||= Boolean(param.rest || param.catchesAll);
    }
    this.takesRequest = this.names.has('request');
    this.bare = this.params.length === 0;
  }

  /** Runs a call, and everything that it starts, in a fresh asynchronous context. The next call does not see what it sets there. */
  fresh(call) {
    return this.#base.runInAsyncScope(makeResource).runInAsyncScope(call);
  }

  /**
   * Calls the function with the text arguments (JSON or undefined) and the body (a Buffer). form is the Content-Type of a body
   * that is a form. Returns the result as JSON text, a Stream, or the Response that the function returned; or a promise of it if
   * the function returned a promise.
   */
  call(text, body, request, form) {
    const args = this.bare && text === undefined && body.length === 0 ? [] : this.#bind(text, body, request, form);
    let value;
    try {
      value = this.callme.apply(this.self, args);
      if (typeof value?.then === 'function') return this.#settle(value);
    } catch (e) {
      throw raised(500, 'raised', e);
    }
    return finish(value);
  }

  async #settle(promise) {
    let value;
    try {
      value = await promise;
    } catch (e) {
      throw raised(500, 'raised', e);
    }
    return finish(value);
  }

  #bind(text, body, request, form) {
    const given = new Map();
    const texts = text ? parseObject(text, 'Fob-Args') : {};
    for (const [name, value] of Object.entries(texts)) {
      if (typeof value !== 'string' && !isTexts(value)) {
        throw new Failure(400, 'bad_request', `Fob-Args must be an object of strings, and lists of them; ${name} is ${jsonType(value)}`);
      }
      given.set(name, this.#fit(name, value));
    }
    const twice = [];
    for (const [name, value] of form === undefined ? Object.entries(this.#typed(body, request)) : this.#fields(form, body)) {
      if (given.has(name) && (!request || this.catchesAll || this.names.has(name))) twice.push(name);
      given.set(name, value);
    }
    if (twice.length > 0) throw new Failure(404, 'bad_arguments', `${list(twice)} given twice, in the query and in the body`);
    if (request) given.set('request', request);

    const missing = [];
    const args = this.params.map((param) => {
      if (param.keys) return pattern(param, given, missing);
      if (param.name && !param.optional && !given.has(param.name)) missing.push(param.name);
      return given.get(param.name);
    });
    const surplus = [...given.keys()].filter((name) => !this.names.has(name));
    const wrong = [];
    if (missing.length > 0) wrong.push(`missing parameters: ${list(missing)}`);
    if (surplus.length > 0 && !this.catchesAll && !request) wrong.push(`unknown parameters: ${list(surplus)}`);
    if (wrong.length > 0) {
      throw new Failure(404, 'bad_arguments', `${wrong.join('; ')}; the function is callme(${[...this.names].join(', ')})`);
    }
    if (this.catchesAll) this.#catchAll(args, Object.fromEntries(surplus.map((name) => [name, given.get(name)])));
    return args;
  }

  // {a, ...rest} gets the remaining arguments as members, (a, ...rest) as one object.
  #catchAll(args, rest) {
    const last = this.params.findIndex((param) => param.catchesAll);
    if (last >= 0) {
      args[last] = Object.fromEntries([...Object.entries(args[last] ?? {}), ...Object.entries(rest)]);
    } else if (Object.keys(rest).length > 0) {
      args[args.length - 1] = rest;
    } else {
      args.pop();
    }
  }

  /** Makes a list of the value for a parameter that takes a list. No other parameter accepts repeated values. */
  #fit(name, value) {
    if (this.lists.has(name)) return Array.isArray(value) ? value : [value];
    if (!Array.isArray(value)) return value;
    if (this.takesRequest && !this.names.has(name)) return value.at(-1); // as in request.query
    const times = { 1: 'as a list', 2: 'twice' }[value.length] ?? `${value.length} times`;
    throw new Failure(400, 'bad_request', `${name} is given ${times}; a parameter whose default is a list, such as ${name} = [], takes that`);
  }

  #fields(form, body) {
    const { argumentsOf } = require('./form'); // most functions never need it
    return [...argumentsOf(form, body)].map(([name, value]) => [name, this.#fit(name, value)]);
  }

  #typed(body, request) {
    if (body.length === 0) return {};
    if (!request) return parseObject(jsonText(body), 'the body');
    const kind = (request.headers['content-type'] ?? '').split(';', 1)[0].trim().toLowerCase();
    if (kind !== 'application/json' && !kind.endsWith('+json')) return {};
    try {
      return parseObject(jsonText(body), 'the body');
    } catch { // the function has to judge it
      return {};
    }
  }
}

const makeResource = () => new AsyncResource('FobCall');

const isTexts = (value) => Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string');

/** Makes the object for a destructured parameter. */
function pattern(param, given, missing) {
  const found = param.keys.filter((key) => given.has(key.name));
  if (found.length === 0 && param.optional) return undefined;
  for (const key of param.keys) {
    if (!key.optional && !given.has(key.name)) missing.push(key.name);
  }
  return Object.fromEntries(found.map((key) => [key.name, given.get(key.name)]));
}

// Response is looked up only for values that call themselves one: Node loads it, and
// 10 MB with it, when it is first mentioned.
function finish(value) {
  if (typeof value !== 'object' || value === null) return render(value);
  if (value.constructor?.name === 'Response' && value instanceof Response) return value;
  return isStream(value) ? streamOf(value) : render(value);
}

const list = (names) => names.sort().join(', ');

module.exports = { Function: Function_ };
