'use strict';
// The caller's HTTP request, given to a parameter named request.

const { parseJSON } = require('./json');
const { charsetOf, decode } = require('./text');

class Request {
  #query;
  #form;
  #pieces; // of the body; null once stream() was called

  /** body is a Buffer, or an Incoming, which only stream() can read. */
  constructor(method, target, root, headers, body) {
    this.method = method;
    this.target = target; // the caller's whole path and query as they were sent
    const [path] = target.split('?', 1);
    this.root = percentDecode(root); // the part of the path that names the function
    this.path = percentDecode(path.startsWith(root) ? path.slice(root.length) : path) || '/'; // the rest of the path
    this.headers = headers; // names in lower case; repeated headers joined with a comma, cookies with a semicolon
    if (Buffer.isBuffer(body)) {
      this.body = body;
      this.#pieces = () => whole(body);
    } else {
      Object.defineProperty(this, 'body', { get() { throw body.tooLarge(); } });
      this.#pieces = () => body.pieces();
    }
  }

  /** The query's arguments, decoded. Of a repeated name it has the last value. */
  get query() {
    return Object.fromEntries(this.#pairs());
  }

  /** The query's arguments, decoded, as a list of all values for each name. */
  get queryAll() {
    return grouped(this.#pairs());
  }

  #pairs() {
    const at = this.target.indexOf('?');
    return (this.#query ??= parseQuery(at < 0 ? '' : this.target.slice(at + 1)));
  }

  /** The fields of a form, as text. Of a repeated name it has the last value. Empty if the body is not a form. */
  get form() {
    return Object.fromEntries(this.#parts(false));
  }

  /** The fields of a form, as a list of all texts for each name. */
  get formAll() {
    return grouped(this.#parts(false));
  }

  /** The files of a form, each {name, filename, contentType, body, text()}. Of a repeated name it has the last file. */
  get files() {
    return Object.fromEntries(this.#parts(true));
  }

  /** The files of a form, as a list of all files for each name. */
  get filesAll() {
    return grouped(this.#parts(true));
  }

  #parts(files) {
    const { File, parse } = require('./form'); // most functions never need it
    this.#form ??= parse(this.headers['content-type'] ?? '', this.body);
    return this.#form.filter(([, value]) => value instanceof File === files);
  }

  /** The body in pieces as they come: an asynchronous generator of Buffers. */
  stream() {
    const pieces = this.#pieces;
    if (pieces === null) throw new Error('the body is being streamed already');
    this.#pieces = null;
    return pieces();
  }

  /** The body as text in its charset, UTF-8 if none is given, without a byte order mark. Throws, answered with 400, if it is not text in that charset. */
  text() {
    return decode(this.body, charsetOf(this.headers['content-type'] ?? ''));
  }

  /** The body, parsed as JSON. Throws, answered with 400, if it is not JSON. */
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
 * Reads a query in either form, a:1,b:2 or a=1&b=2, as pairs. Whether : or = comes first tells which. In the second form + is a blank.
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
