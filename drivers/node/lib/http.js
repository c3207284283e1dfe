'use strict';
// HTTP/1.1 as far as a driver needs it, on bare sockets. Node's own server would take longer than everything else in a call.

const { Incoming, NONE, Sized, Unreadable, bodyOf } = require('./body');
const { Failure } = require('./errors');
const { refusal } = require('./driver');

const HEAD_LIMIT = 256 << 10; // bytes; Fob-Args can be large
const AHEAD_LIMIT = 1 << 20; // bytes of later requests held while one is answered
// The head of nearly every call, as the dispatcher writes it. Any other head is read line by line.
const USUAL = /^POST \/ HTTP\/1\.1\r\n(?:(Fob-Call: [0-9a-f]{16}\r\n)(?:Fob-Call-Id: ([!-~]{1,64})\r\n)?)?Host: fob\r\n(?:Fob-Args: ([^\r]*)\r\n)?Content-Length: (\d{1,15})\r\n\r\n/;
// A request's first field, with the token that the answer repeats, and the next, with the call's ID.
const MARK = /^[^\r\n]*\r\n(Fob-Call: [0-9a-zA-Z]{16}\r\n)(?:Fob-Call-Id: ([!-~]{1,64})\r\n)?/;
const MARK_LIMIT = 256; // bytes in which it is looked for
const USUAL_LIMIT = 2 << 10; // bytes in which it is looked for
const PARTING = 1000; // milliseconds given to the peer to hang up

/** Reads requests from one socket and answers them, one after the other. */
class Connection {
  constructor(socket, driver, token) {
    this.socket = socket;
    this.driver = driver;
    this.token = token;
    this.have = NONE; // bytes not read yet
    this.mark = ''; // of the request being answered: the line with the token
    this.call = ''; // the ID of the call that is being answered
    this.cost = null; // ends the measuring of that call
    this.request = null; // its head is read, and its body awaited
    this.incoming = null; // the streaming body of the request being answered
    this.busy = false;
    this.last = false; // the connection ends with the present answer
    this.begun = false; // the head of the present answer has been sent
    this.gone = null; // called when the peer no longer listens
    this.parted = false;
    this.ended = false; // the peer sends no more, but may still listen
    socket.on('data', (data) => this.data(data));
    socket.on('end', () => this.end());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.end());
  }

  data(data) {
    if (this.parted) return; // waiting for the peer to hang up
    this.have = this.have.length === 0 ? data : Buffer.concat([this.have, data]);
    if (!this.busy) this.turn();
    else if (this.incoming !== null && !this.incoming.complete) this.incoming.take(this);
    else if (this.have.length > AHEAD_LIMIT) this.socket.pause();
  }

  end() {
    this.ended = true;
    this.gone?.();
    if (this.incoming !== null) this.incoming.fail(new Failure(400, 'bad_request', 'the body broke off'));
    if (!this.busy) this.socket.end();
  }

  /** Answers all requests that have come. */
  turn() {
    try {
      while (!this.busy && !this.parted) {
        this.request ??= this.head();
        if (this.request === null) return;
        const { request } = this;
        if (request.streams) {
          this.incoming = new Incoming(this.socket, request.body);
          this.incoming.take(this);
        } else if (!request.body.take(this)) {
          return;
        }
        this.request = null;
        this.answer(request);
      }
    } catch (e) {
      this.part(marked(refusal(e), this.mark, true));
    }
  }

  answer({ method, target, headers, body, last }) {
    this.last = last;
    if (this.call !== '' && target === '/') this.cost = this.driver.costs.begin();
    let answer;
    try {
      answer = this.driver.answer(method, target, headers, this.incoming ?? body.whole(), this);
    } catch (e) {
      answer = refusal(e);
    }
    if (typeof answer === 'string') {
      this.send(answer);
      return;
    }
    this.busy = true;
    answer.catch(refusal).then((settled) => {
      this.busy = false;
      this.send(settled);
      this.socket.resume();
      this.turn();
      if (this.ended) this.end();
    });
  }

  /** Sends an answer, or the end of one that has begun. */
  send(answer) {
    if (!this.begun) answer = this.begin(answer);
    this.begun = false;
    this.incoming = null;
    if (this.socket.destroyed) return;
    if (this.last) this.part(answer);
    else this.socket.write(answer);
  }

  /** Begins an answer, which is text or bytes, and returns what to send: it may be the connection's last answer. */
  begin(answer) {
    if (this.incoming?.unread) this.last = true; // nobody will read the rest
    return marked(answer, this.mark + this.usage(), this.last);
  }

  /** Begins an answer that streams with its head, and returns what to send. */
  beginStream(head) {
    this.begun = true;
    if (this.incoming?.unread) this.last = true;
    return marked(head, this.mark, this.last);
  }

  /** Returns the line that says what the call cost, or ''. The call ends with it. */
  usage() {
    if (this.cost === null) return '';
    const usage = this.cost();
    this.cost = null;
    return `Fob-Usage: ${usage}\r\n`;
  }

  /** Sends parts of an answer that streams. Resolves when they are written and others have had their turn. */
  put(parts) {
    return new Promise((resolve) => {
      this.socket.cork();
      for (const part of parts.slice(0, -1)) this.socket.write(part);
      this.socket.write(parts[parts.length - 1], () => setImmediate(resolve));
      this.socket.uncork();
    });
  }

  /** Starts something and returns what it resolves to, or undefined as soon as the peer no longer listens. */
  async whileHeard(start) {
    if (this.ended) return undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.gone = resolve;
        start().then(resolve, reject);
      });
    } finally {
      this.gone = null;
    }
  }

  /** Reads a request's head, or returns null if it has not come completely. */
  head() {
    return (this.token === null ? this.usual() : null) ?? this.any();
  }

  usual() {
    const { have } = this;
    const found = USUAL.exec(have.latin1Slice(0, Math.min(have.length, USUAL_LIMIT)));
    if (found === null) return null;
    const [head, mark, call, args, length] = found;
    this.mark = mark ?? '';
    this.call = call ?? '';
    this.have = have.length === head.length ? NONE : have.subarray(head.length);
    const headers = { host: 'fob', 'fob-args': args?.trim(), 'content-length': length };
    return { method: 'POST', target: '/', headers, body: new Sized(Number(length)), last: false, streams: false };
  }

  any() {
    let { have } = this;
    const [, mark, call] = MARK.exec(have.latin1Slice(0, Math.min(have.length, MARK_LIMIT))) ?? [];
    this.mark = mark ?? '';
    this.call = call ?? '';
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
    const [method, target] = words;
    const streams = headers['fob-stream'] === 'request' && method === 'POST' && target === '/';
    return { method, target, headers, body, last, streams };
  }

  /** Sends the last answer, and waits a little for the peer to hang up. Closing a connection with unread bytes would reset it, and lose the answer. */
  part(answer) {
    this.parted = true;
    this.have = NONE;
    // The time is bounded both for a peer that takes nothing any more and for one that goes on sending.
    this.socket.setTimeout(PARTING, () => this.socket.destroy());
    this.socket.end(answer, () => setTimeout(() => this.socket.destroy(), PARTING));
    this.socket.resume();
  }
}

/** Puts the line with the call's token first into an answer's head, text or bytes, and adds whether the connection ends with it. */
function marked(answer, mark, last) {
  const more = last ? `${mark}Connection: close\r\n` : mark;
  if (more === '') return answer;
  const cut = answer.indexOf('\r\n') + 2;
  if (typeof answer === 'string') return answer.slice(0, cut) + more + answer.slice(cut);
  return Buffer.concat([answer.subarray(0, cut), Buffer.from(more, 'latin1'), answer.subarray(cut)]);
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
    if (name !== 'content-length') value = `${before}${name === 'cookie' ? ';' : ','} ${value}`;
  }
  headers[name] = value;
}

// It takes the same time wherever the two differ, so that time reveals nothing about the token.
function same(given, wanted) {
  let difference = given.length ^ wanted.length;
  for (let i = 0; i < wanted.length; i++) difference |= given.charCodeAt(i) ^ wanted.charCodeAt(i);
  return difference === 0;
}

module.exports = { Connection };
