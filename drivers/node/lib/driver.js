'use strict';
// What all connections share: the function and its state.

const { AsyncResource } = require('async_hooks');
const path = require('path');
const { types } = require('util');
const { NONE } = require('./body');
const { Costs } = require('./cost');
const environment = require('./environment');
const { Failure, raised } = require('./errors');
const { Function } = require('./function');
const { parseObject } = require('./json');
const { Request } = require('./request');
const { Stream, readerOf } = require('./stream');

const REASONS = {
  200: 'OK', 400: 'Bad Request', 401: 'Unauthorized', 404: 'Not Found', 405: 'Method Not Allowed', 409: 'Conflict',
  413: 'Content Too Large', 422: 'Unprocessable Content', 431: 'Request Header Fields Too Large', 500: 'Internal Server Error',
};
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade']);

/** Makes an answer of JSON text. */
function plain(status, text, more = '') {
  return `HTTP/1.1 ${status} ${REASONS[status]}\r\nContent-Type: application/json\r\n${more}` +
    `Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

/** Makes an answer of anything that was thrown. */
function refusal(thrown) {
  const failure = thrown instanceof Failure ? thrown : new Failure(500, 'raised', String(thrown?.stack ?? thrown));
  return plain(failure.status, JSON.stringify(failure.document), `Fob-Error: ${failure.code}\r\n`);
}

const FIELDS = 90; // headers of a Response at most
const HEAD = 60 << 10; // and their bytes; the dispatcher accepts few more

/** Makes an answer of a function's Response: bytes, or a Stream. */
async function own(response) {
  const { status } = response;
  const bad = (why) => new Failure(500, 'bad_result', `callme returned a Response that is none: ${why}`);
  if (!(status >= 200 && status <= 599)) throw bad(`its status is ${status}, not a number from 200 to 599`);
  let head = `HTTP/1.1 ${status} ${REASONS[status] ?? 'Own'}\r\n`;
  let fields = 0;
  for (const [name, value] of response.headers) {
    if (/[\x00-\x08\x0a-\x1f\x7f]/.test(value)) throw bad(`its header ${name} is not one line of text`);
    if (HOP_BY_HOP.has(name) || name === 'content-length' || name.startsWith('fob-')) continue;
    head += `${name}: ${value}\r\n`;
    fields++;
  }
  if (fields > FIELDS || head.length > HEAD) throw bad(`it has more than ${FIELDS} headers, or more than ${HEAD >> 10} KiB of them`);
  if (response.bodyUsed || response.body?.locked) throw bad('its body has been read already');
  const body = response.body === null ? NONE : await wholeOf(readerOf(response.body));
  if (!Buffer.isBuffer(body)) return new Stream(body, head);
  if (status !== 204 && status !== 304) head += `content-length: ${body.length}\r\n`;
  return Buffer.concat([Buffer.from(head + '\r\n', 'latin1'), body]);
}

/**
 * Returns the body that an iterator yields: a Buffer, or an iterator if it
 * streams. A Response does not tell from what it was made. Only a whole body
 * comes in one piece before the event loop turns.
 */
async function wholeOf(reader) {
  const turn = new Promise((resolve) => { setImmediate(resolve); });
  const results = [reader.next()];
  try {
    const first = await Promise.race([results[0], turn]);
    if (first?.done) return NONE;
    if (first !== undefined) {
      results.push(reader.next());
      const second = await Promise.race([results[1], turn]);
      if (second?.done && types.isUint8Array(first.value)) return Buffer.from(first.value);
    }
  } catch (e) {
    throw raised(500, 'raised', e);
  }
  return { next: () => results.shift() ?? reader.next(), return: () => reader.return() };
}

class Driver {
  #started = false;
  #state = 'blank';
  #about = {};
  #inFlight = 0;
  #function = null;
  costs = new Costs();

  constructor(log, folder) {
    this.log = log;
    this.folder = folder; // of the socket; empty if there is none
    this.port = null;
  }

  get blank() {
    return !this.#started;
  }

  /** Does in steps, for a driver that is blank, what takes long when it is done for the first time. socket is where the driver listens, or empty. */
  * warmUp(socket) {
    this.costs.open(this.log.kept);
    yield;
    this.costs.begin()();
    if (socket !== '') this.log.calls.warmUp(socket);
    yield;
    Function.warmUp();
  }

  health() {
    const about = { ...this.#about };
    if (this.#function) about.takes_request = this.#function.takesRequest;
    return {
      state: this.#state, lang: 'node', runtime: process.versions.node, contract: 2,
      in_flight: this.#inFlight, port: this.port, ...about,
    };
  }

  /** Loads the document in the body of a PUT, once in the driver's life. */
  async load(document) {
    const about = {};
    if (typeof document.code !== 'string') {
      throw new Failure(400, 'bad_request', 'the body must be {"code": "…"}, with the code as a string');
    }
    for (const [name, fits] of [['function', (v) => typeof v === 'string'], ['version', Number.isInteger]]) {
      if (!Object.hasOwn(document, name)) continue;
      if (!fits(document[name])) throw new Failure(400, 'bad_request', `${name} is not of its type`);
      about[name] = document[name];
    }
    const { proxy, log } = document;
    for (const [name, socket] of [['proxy', proxy], ['log', log]]) {
      if (socket !== undefined && (typeof socket !== 'string' || /^(?:|\.\.?)$|[/\0]/.test(socket) || !this.folder)) {
        throw new Failure(400, 'bad_request', `${name} must be the name of a socket beside FOB_SOCKET`);
      }
    }
    let variables;
    try {
      variables = environment.read(document);
    } catch (e) {
      throw new Failure(400, 'bad_request', e.message);
    }
    if (this.#started) throw new Failure(409, 'already_loaded', 'a driver loads code once; start a new one for other code');
    this.#started = true;
    this.#state = 'loading'; // and stays so if it fails: the driver is of no further use
    try {
      environment.install(variables);
      this.costs.open(this.log.kept);
      if (log !== undefined) this.log.calls.open(path.join(this.folder, log), this.log.kept);
      if (proxy !== undefined) await require('./proxy').openWay(path.join(this.folder, proxy));
    } catch (e) {
      throw new Failure(422, 'load_failed', `its environment cannot be set up: ${e.code ?? e.message}`, { type: e.name });
    }
    try {
      if (/\b(?:child_process|cluster)\b/.test(document.code)) this.log.calls.leadChildren();
      // In a resource of its own, so that nothing that the code sets stays in the connection's.
      this.#function = await new AsyncResource('FobLoad').runInAsyncScope(Function.load, Function, document.code);
    } finally {
      this.log.endCall();
    }
    this.#about = about;
    this.#state = 'loaded';
  }

  /**
   * Answers one request: returns text or bytes, or a promise of them, or throws. The body is a
   * Buffer or an Incoming. Of an answer that streams it returns only the end; the rest has been sent.
   */
  answer(method, target, headers, body, connection) {
    switch (target) {
      case '/':
        if (method !== 'POST') throw new Failure(405, 'bad_method', 'calls are POST /');
        return this.#call(headers, body, connection);
      case '/_fob/health':
        if (method !== 'GET') throw new Failure(405, 'bad_method', 'health is GET /_fob/health');
        return plain(200, JSON.stringify(this.health()));
      case '/_fob/function':
        if (method !== 'PUT') throw new Failure(405, 'bad_method', 'loading is PUT /_fob/function');
        return this.load(parseObject(body.toString('utf8'), 'the body')).then(() => plain(200, JSON.stringify(this.health())));
    }
    throw new Failure(404, 'unknown_path', 'there are /, /_fob/health and /_fob/function');
  }

  #call(headers, body, connection) {
    const f = this.#function;
    if (f === null) throw new Failure(409, 'not_loaded', 'nothing is loaded; PUT /_fob/function first');
    const whole = Buffer.isBuffer(body) ? body : NONE;
    if (whole !== body && !f.takesRequest) throw body.tooLarge();
    this.#inFlight++;
    return f.fresh(() => this.#run(f, headers, body, whole, connection));
  }

  #run(f, headers, body, whole, connection) {
    let later = false;
    if (connection.call !== '') this.log.calls.begin(connection.call);
    try {
      const value = f.call(headers['fob-args'], whole, f.takesRequest ? requestOf(headers, body) : undefined, headers['fob-content-type']);
      if (typeof value === 'string') return plain(200, value);
      later = true;
      return this.#finish(value, connection);
    } finally {
      if (!later) this.#end();
    }
  }

  async #finish(value, connection) {
    try {
      let settled = await value;
      if (typeof settled === 'string') return plain(200, settled);
      if (!(settled instanceof Stream)) settled = await own(settled);
      return settled instanceof Stream ? await settled.send(connection) : settled;
    } finally {
      this.#end();
    }
  }

  #end() {
    this.#inFlight--;
    this.log.endCall();
  }
}

function requestOf(headers, body) {
  const callers = Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith('fob-')));
  const [target, root] = [headers['fob-target'] ?? '/', headers['fob-root'] ?? ''].map((sent) => Buffer.from(sent, 'latin1').toString('utf8'));
  return new Request(headers['fob-method'] ?? 'POST', target, root, callers, body);
}

module.exports = { Driver, refusal };
