'use strict';
// HTTP/1.1 as far as a driver needs it, on bare sockets: Node's own server takes longer over a call than all the rest.

const { Failure } = require('./errors');
const { refusal } = require('./driver');

const HEAD_LIMIT = 256 << 10; // bytes; Fob-Args can be large
const AHEAD_LIMIT = 1 << 20; // bytes of later requests held while one is answered
const NONE = Buffer.alloc(0);

/** The request cannot be told from what follows it: answer, and close. */
class Unreadable extends Failure {
  constructor(status, message) {
    super(status, 'bad_request', message);
  }
}

/** Reads requests from one socket and answers them, one after the other. */
class Connection {
  constructor(socket, driver, token) {
    this.socket = socket;
    this.driver = driver;
    this.token = token;
    this.have = NONE; // bytes not read yet
    this.request = null; // whose head is read, and whose body is awaited
    this.busy = false;
    this.parted = false;
    this.ended = false; // the peer says no more, but may still listen
    socket.on('data', (data) => this.data(data));
    socket.on('end', () => this.end());
    socket.on('error', () => socket.destroy());
  }

  data(data) {
    if (this.parted) return; // waiting for the peer to hang up
    this.have = this.have.length === 0 ? data : Buffer.concat([this.have, data]);
    if (!this.busy) this.turn();
    else if (this.have.length > AHEAD_LIMIT) this.socket.pause();
  }

  end() {
    this.ended = true;
    if (!this.busy) this.socket.end();
  }

  /** Answers as many requests as are there. */
  turn() {
    try {
      while (!this.busy && !this.parted) {
        this.request ??= this.head();
        if (this.request === null || !this.request.body.take(this)) return;
        const { request } = this;
        this.request = null;
        this.answer(request);
      }
    } catch (e) {
      this.part(refusal(e));
    }
  }

  answer({ method, target, headers, body, last }) {
    let answer;
    try {
      answer = this.driver.answer(method, target, headers, body.whole());
    } catch (e) {
      answer = refusal(e);
    }
    if (typeof answer === 'string') {
      this.send(answer, last);
      return;
    }
    this.busy = true;
    answer.catch(refusal).then((settled) => {
      this.busy = false;
      this.send(settled, last);
      this.socket.resume();
      this.turn();
      if (this.ended) this.end();
    });
  }

  send(answer, last) {
    if (this.socket.destroyed) return;
    if (last) this.part(answer);
    else this.socket.write(answer);
  }

  head() {
    let { have } = this;
    const end = have.indexOf('\r\n\r\n');
    if (end < 0 ? have.length > HEAD_LIMIT : end > HEAD_LIMIT) {
      throw new Unreadable(431, 'the headers are longer than 256 KiB; send large arguments in the body');
    }
    if (end < 0) return null;
    const lines = have.latin1Slice(0, end).split('\r\n');
    this.have = have = have.subarray(end + 4);
    const words = lines[0].split(' ');
    if (words.length !== 3 || (words[2] !== 'HTTP/1.1' && words[2] !== 'HTTP/1.0')) {
      throw new Unreadable(400, 'this is no HTTP/1.1 request');
    }
    const headers = Object.create(null);
    for (let i = 1; i < lines.length; i++) header(lines[i], headers);
    if (this.token !== null) {
      const given = headers.authorization ?? '';
      delete headers.authorization;
      if (!same(given, `Bearer ${this.token}`)) {
        throw new Failure(401, 'unauthorized', 'say Authorization: Bearer TOKEN');
      }
    }
    const body = bodyOf(headers);
    if (headers.expect !== undefined) this.socket.write('HTTP/1.1 100 Continue\r\n\r\n');
    const last = words[2] === 'HTTP/1.0' || headers.connection?.toLowerCase() === 'close';
    return { method: words[0], target: words[1], headers, body, last };
  }

  /** Answers and waits a little for the peer to hang up, as closing on unread bytes would reset the answer away. */
  part(answer) {
    this.parted = true;
    this.have = NONE;
    this.socket.end(closing(answer));
    this.socket.resume();
    this.socket.setTimeout(1000, () => this.socket.destroy());
  }
}

/** Says in an answer, text or bytes, that the connection ends with it. */
function closing(answer) {
  const cut = answer.indexOf('\r\n') + 2;
  return Buffer.concat([answer.slice(0, cut), 'Connection: close\r\n', answer.slice(cut)].map((part) => Buffer.from(part)));
}

function header(line, headers) {
  const colon = line.indexOf(':');
  if (colon < 1 || line[0] === ' ' || line[0] === '\t' || line[colon - 1] === ' ' || line[colon - 1] === '\t') {
    throw new Unreadable(400, 'a header line is malformed');
  }
  const name = line.slice(0, colon).toLowerCase();
  let value = line.slice(colon + 1).trim();
  const before = headers[name];
  if (before !== undefined) {
    if (name === 'fob-args' || (name === 'content-length' && value !== before)) throw new Unreadable(400, `two headers ${name}`);
    if (name !== 'content-length') value = `${before}, ${value}`;
  }
  headers[name] = value;
}

// Compared without an early end, so that the time taken tells nothing of the token.
function same(given, wanted) {
  let difference = given.length ^ wanted.length;
  for (let i = 0; i < wanted.length; i++) difference |= given.charCodeAt(i) ^ wanted.charCodeAt(i);
  return difference === 0;
}

function bodyOf(headers) {
  const length = headers['content-length'];
  const coding = headers['transfer-encoding'];
  delete headers['transfer-encoding'];
  if (coding !== undefined) {
    if (coding.toLowerCase() !== 'chunked' || length !== undefined) {
      throw new Unreadable(400, 'bodies come with Content-Length or Transfer-Encoding: chunked');
    }
    return new Chunked();
  }
  if (length === undefined) return new Sized(0);
  if (!/^\d{1,15}$/.test(length)) throw new Unreadable(400, 'Content-Length is not a number');
  return new Sized(Number(length));
}

/** A body that says its length. */
class Sized {
  constructor(length) {
    this.missing = length;
    this.parts = [];
  }

  /** Takes what there is of it from the connection and says whether that is all. */
  take(connection) {
    const { have } = connection;
    if (this.missing > 0 && have.length > 0) {
      const part = have.subarray(0, this.missing);
      connection.have = have.subarray(part.length);
      this.missing -= part.length;
      this.parts.push(part);
    }
    return this.missing === 0;
  }

  whole() {
    return this.parts.length === 0 ? NONE : this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts);
  }
}

/** A chunked body. */
class Chunked {
  constructor() {
    this.chunk = null; // being read
    this.ended = false; // only trailers are left
    this.parts = [];
  }

  take(connection) {
    for (;;) {
      if (this.chunk !== null) {
        if (!this.chunk.take(connection)) return false;
        const data = this.chunk.whole();
        if (data[data.length - 2] !== 13 || data[data.length - 1] !== 10) {
          throw new Unreadable(400, 'a chunk does not end where it says');
        }
        this.parts.push(data.subarray(0, -2));
        this.chunk = null;
      }
      const { have } = connection;
      const end = have.indexOf('\r\n');
      if (end < 0) {
        if (have.length > 64 << 10) throw new Unreadable(400, "a chunk's header is too long");
        return false;
      }
      const line = have.latin1Slice(0, end);
      connection.have = have.subarray(end + 2);
      if (this.ended) {
        if (line === '') return true;
        continue;
      }
      const size = /^\s*([0-9a-fA-F]{1,12})\s*(?:;|$)/.exec(line);
      if (size === null) throw new Unreadable(400, "a chunk's size is not a number");
      const length = parseInt(size[1], 16);
      if (length === 0) this.ended = true;
      else this.chunk = new Sized(length + 2);
    }
  }

  whole() {
    return Buffer.concat(this.parts);
  }
}

module.exports = { Connection };
