'use strict';
// The caller's HTTP request, given to a parameter named request.

const { parseJSON } = require('./json');
const { charsetOf, decode } = require('./text');

class Request {
  #query;
  #form;
  #pieces; // of the body; null once they were asked for

  /** body is a Buffer, or an Incoming, of which only stream() gives anything. */
  constructor(method, target, root, headers, body) {
    this.method = method;
    this.target = target; // the caller's whole path and query as they were sent
    const [path] = target.split('?', 1);
    this.root = percentDecode(root); // what of the path names the function
    this.path = percentDecode(path.startsWith(root) ? path.slice(root.length) : path) || '/'; // what follows that
    this.headers = headers; // names in lower case; repeated ones joined by a comma, cookies by a semicolon
    if (Buffer.isBuffer(body)) {
      this.body = body;
      this.#pieces = () => whole(body);
    } else {
      Object.defineProperty(this, 'body', { get() { throw body.tooLarge(); } });
      this.#pieces = () => body.pieces();
    }
  }

  /** The query's arguments, decoded; the last of repeated names. */
  get query() {
    return Object.fromEntries(this.#pairs());
  }

  /** The query's arguments, decoded: a list of all values for each name. */
  get queryAll() {
    return grouped(this.#pairs());
  }

  #pairs() {
    const at = this.target.indexOf('?');
    return (this.#query ??= parseQuery(at < 0 ? '' : this.target.slice(at + 1)));
  }

  /** The fields of a form, text; the last of repeated names. Empty when the body is none. */
  get form() {
    return Object.fromEntries(this.#parts(false));
  }

  /** The fields of a form: a list of all texts for each name. */
  get formAll() {
    return grouped(this.#parts(false));
  }

  /** The files of a form, {name, filename, contentType, body, text()}; the last of repeated names. */
  get files() {
    return Object.fromEntries(this.#parts(true));
  }

  /** The files of a form: a list of all for each name. */
  get filesAll() {
    return grouped(this.#parts(true));
  }

  #parts(files) {
    const { File, parse } = require('./form'); // which most functions never need
    this.#form ??= parse(this.headers['content-type'] ?? '', this.body);
    return this.#form.filter(([, value]) => value instanceof File === files);
  }

  /** The body as it comes, piece by piece: an asynchronous generator of Buffers. */
  stream() {
    const pieces = this.#pieces;
    if (pieces === null) throw new Error('the body is being streamed already');
    this.#pieces = null;
    return pieces();
  }

  /** The body as text in its charset, UTF-8 when none is said, without a byte order mark. What is none throws, which is answered with 400. */
  text() {
    return decode(this.body, charsetOf(this.headers['content-type'] ?? ''));
  }

  /** The body as JSON. What is none throws, which is answered with 400. */
  json() {
    return parseJSON(this.text(), 'the body');
  }
}

async function* whole(body) {
  if (body.length > 0) yield body;
}

/** Returns all values of each name. */
function grouped(pairs) {
  const every = new Map();
  for (const [name, value] of pairs) {
    if (every.has(name)) every.get(name).push(value);
    else every.set(name, [value]);
  }
  return Object.fromEntries(every);
}

/**
 * Reads a query in either form, a:1,b:2 or a=1&b=2, as pairs; the first of : and = tells which. In the latter + is a blank.
 */
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
  return pairs;
}

function percentDecode(text) {
  if (!text.includes('%')) return text;
  const bytes = text.replace(/%([0-9a-fA-F]{2})|[^\x00-\x7f]/gu, (all, hex) =>
    hex ? String.fromCharCode(parseInt(hex, 16)) : Buffer.from(all).toString('latin1'));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

module.exports = { Request };
