'use strict';
// The user's function: binding its arguments and calling it.

const { Failure, raised } = require('./errors');
const { load } = require('./load');
const { parametersOf } = require('./params');
const { render } = require('./result');
const { isStream, streamOf } = require('./stream');

/** Reads bytes as a JSON object; anything else is a bad_request. */
function parseObject(text, what) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (e) {
    const why = e instanceof RangeError ? 'is nested too deeply' : `is not JSON: ${e.message}`;
    throw new Failure(400, 'bad_request', `${what} ${why}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Failure(400, 'bad_request', `${what} must be a JSON object, not ${jsonType(value)}`);
  }
  return value;
}

const jsonType = (value) => (value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`);

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decode(bytes) {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new Failure(400, 'bad_request', 'the body is not UTF-8');
  }
}

/** The caller's HTTP request, given to a parameter named request. */
class Request {
  #query;
  #pieces; // of the body; null once they were asked for

  /** body is a Buffer, or an Incoming, of which only stream() gives anything. */
  constructor(method, target, root, headers, body) {
    this.method = method;
    this.target = target; // the caller's whole path and query as they were sent
    const [path] = target.split('?', 1);
    this.root = percentDecode(root); // what of the path names the function
    this.path = percentDecode(path.startsWith(root) ? path.slice(root.length) : path) || '/'; // what follows that
    this.headers = headers; // names in lower case; repeated ones joined by a comma
    if (Buffer.isBuffer(body)) {
      this.body = body;
      this.#pieces = () => whole(body);
    } else {
      Object.defineProperty(this, 'body', { get() { throw body.tooLarge(); } });
      this.#pieces = () => body.pieces();
    }
  }

  /** The query's arguments, decoded; the last of repeated keys. */
  get query() {
    const at = this.target.indexOf('?');
    return (this.#query ??= parseQuery(at < 0 ? '' : this.target.slice(at + 1)));
  }

  /** The body as it comes, piece by piece: an asynchronous generator of Buffers. */
  stream() {
    const pieces = this.#pieces;
    if (pieces === null) throw new Error('the body is being streamed already');
    this.#pieces = null;
    return pieces();
  }

  /** The body as UTF-8 text; what is no UTF-8 becomes U+FFFD. */
  text() {
    return this.body.toString('utf8');
  }

  /** The body as JSON; throws a SyntaxError when it is none. */
  json() {
    return JSON.parse(this.text());
  }
}

async function* whole(body) {
  if (body.length > 0) yield body;
}

/** Reads a query in either form, a:1,b:2 or a=1&b=2; the first of : and = tells which. In the latter + is a blank. */
function parseQuery(query) {
  const [between, within] = /[:=]/.exec(query)?.[0] === ':' ? [',', ':'] : ['&', '='];
  if (between === '&') query = query.replaceAll('+', ' ');
  const pairs = [];
  for (const part of query.split(between)) {
    if (part === '') continue;
    const at = part.indexOf(within);
    const [name, value] = at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
    pairs.push([percentDecode(name), percentDecode(value)]);
  }
  return Object.fromEntries(pairs);
}

function percentDecode(text) {
  if (!text.includes('%')) return text;
  const bytes = text.replace(/%([0-9a-fA-F]{2})|[^\x00-\x7f]/gu, (all, hex) =>
    hex ? String.fromCharCode(parseInt(hex, 16)) : Buffer.from(all).toString('latin1'));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** A loaded callme. All that its parameters say is worked out once, here. */
class Function_ {
  /** Loads code; what goes wrong is a Failure. */
  static async load(code) {
    // Node takes 30 ms to load these, when they are first mentioned: better now than in the first call.
    if (/\b(?:Response|fetch)\b/.test(code)) void globalThis.Response;
    return new Function_(await load(code));
  }

  constructor({ callme, self }) {
    this.callme = callme;
    this.self = self; // what it is a method of
    this.params = parametersOf(callme);
    this.names = new Set();
    this.catchesAll = false;
    for (const param of this.params) {
      if (param.name) this.names.add(param.name);
      for (const key of param.keys ?? []) this.names.add(key.name);
      this.catchesAll ||= Boolean(param.rest || param.catchesAll);
    }
    this.takesRequest = this.names.has('request');
    this.bare = this.params.length === 0;
  }

  /**
   * Calls with the text arguments (JSON or undefined) and the body (a Buffer).
   * Returns the result as JSON text, a Stream, or the Response that the
   * function returned; a promise of it when the function returns one.
   */
  call(text, body, request) {
    const args = this.bare && text === undefined && body.length === 0 ? [] : this.#bind(text, body, request);
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

  #bind(text, body, request) {
    const given = new Map();
    const texts = text ? parseObject(text, 'Fob-Args') : {};
    for (const [name, value] of Object.entries(texts)) {
      if (typeof value !== 'string') {
        throw new Failure(400, 'bad_request', `Fob-Args must be an object of strings; ${name} is ${jsonType(value)}`);
      }
      given.set(name, value);
    }
    const twice = [];
    for (const [name, value] of Object.entries(this.#typed(body, request))) {
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

  // {a, ...rest} takes what is left over as members, (a, ...rest) as one object.
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

  #typed(body, request) {
    if (body.length === 0) return {};
    if (!request) return parseObject(decode(body), 'the body');
    const kind = (request.headers['content-type'] ?? '').split(';', 1)[0].trim().toLowerCase();
    if (kind !== 'application/json' && !kind.endsWith('+json')) return {};
    try {
      return parseObject(decode(body), 'the body');
    } catch { // it is the function's to judge
      return {};
    }
  }
}

/** Makes the object for a destructured parameter. */
function pattern(param, given, missing) {
  const found = param.keys.filter((key) => given.has(key.name));
  if (found.length === 0 && param.optional) return undefined;
  for (const key of param.keys) {
    if (!key.optional && !given.has(key.name)) missing.push(key.name);
  }
  return Object.fromEntries(found.map((key) => [key.name, given.get(key.name)]));
}

// Response is looked up only for what calls itself one: Node loads it, and
// 10 MB with it, when it is first mentioned.
function finish(value) {
  if (typeof value !== 'object' || value === null) return render(value);
  if (value.constructor?.name === 'Response' && value instanceof Response) return value;
  return isStream(value) ? streamOf(value) : render(value);
}

const list = (names) => names.sort().join(', ');

module.exports = { Function: Function_, Request, parseObject };
