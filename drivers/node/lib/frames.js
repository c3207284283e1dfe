'use strict';
// The log's lines on their way to the dispatcher: frames on a Unix socket, which never block and are never read.

const fs = require('fs');
const net = require('net');

const LIMIT = 4 << 20; // bytes that may wait to be sent
const FRAME = 64 << 10; // bytes of text in a frame at most
const RETRY = 5; // milliseconds until another attempt to write to a full socket
const AGAIN = 1000; // milliseconds between two attempts to connect
const BATCH = 64; // frames that are written at a time
const SET = 1000; // milliseconds by which clocks differ after one was set

// Functions may replace these, as tests do with clocks.
const { now } = Date;
const { timeOrigin } = performance;
const elapsed = performance.now.bind(performance);
const { setTimeout } = globalThis;
const { writeSync, writevSync } = fs;

/** Sends frames to the socket at path. Holds what it does not take, and drops what is too much. */
class Frames {
  /** kept is a set of the descriptors that are the driver's own. */
  constructor(path, kept = new Set()) {
    this.path = path;
    this.kept = kept;
    this.socket = null;
    this.fd = -1;
    this.tried = 0; // when it connected last
    this.held = [];
    this.size = 0; // bytes held
    this.begun = 0; // bytes of the first that is held that have been sent
    this.dropped = 0; // frames
    this.timer = null;
    this.connect();
  }

  /** Sends text of a call, as bytes. over says that it ends its last line, even without a line feed. */
  send(call, level, data, over = false) {
    const time = micros();
    const frames = [];
    let from = 0;
    do {
      const line = data.indexOf(10, from);
      const end = line < 0 ? data.length : line;
      const to = end - from > FRAME ? character(data, from + FRAME) : end;
      const ends = to === line || (over && to === data.length);
      frames.push(frame(`${call} ${level}${ends ? '' : '+'} ${time} ${to - from}\n`, data, from, to));
      from = to === line ? to + 1 : to;
    } while (from < data.length);
    this.put(frames);
  }

  put(frames) {
    if (this.waiting) this.drain();
    let sent = this.waiting || !this.connected() ? 0 : this.write(frames);
    for (const one of frames) {
      if (sent >= one.length) {
        sent -= one.length;
      } else if (this.size + one.length > LIMIT) {
        this.dropped++;
      } else {
        if (this.dropped > 0) this.notice();
        if (this.held.length === 0) this.begun = sent;
        sent = 0;
        this.hold(one);
      }
    }
    if (this.waiting) this.wait();
  }

  get waiting() {
    return this.held.length > 0 || this.dropped > 0;
  }

  hold(one) {
    this.held.push(one);
    this.size += one.length;
  }

  notice() {
    const count = Buffer.from(String(this.dropped));
    this.dropped = 0;
    this.hold(frame(`- dropped ${micros()} ${count.length}\n`, count, 0, count.length));
  }

  /** Sends as much as is possible now of what is held. */
  drain() {
    while (this.waiting) {
      if (this.held.length === 0) this.notice();
      if (!this.connected()) return; // before the batch is made: a new connection begins with a whole frame
      const batch = this.held.slice(0, BATCH);
      if (this.begun > 0) batch[0] = batch[0].subarray(this.begun);
      let sent = this.write(batch);
      if (sent === 0) return;
      sent += this.begun;
      let whole = 0;
      while (whole < batch.length && sent >= this.held[whole].length) {
        sent -= this.held[whole].length;
        this.size -= this.held[whole].length;
        whole++;
      }
      this.begun = sent;
      this.held.splice(0, whole);
    }
  }

  wait() {
    const after = this.fd >= 0 ? RETRY : Math.max(RETRY, this.tried + AGAIN - now());
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.drain();
      if (this.waiting) this.wait();
    }, after).unref();
  }

  /** Reports whether there is a connection. Connects if it must, and may do so again. */
  connected() {
    if (this.socket?.destroyed) this.part();
    if (this.fd < 0 && now() - this.tried >= AGAIN) this.connect();
    return this.fd >= 0;
  }

  /** Writes frames and returns how many bytes were written. */
  write(frames) {
    try {
      return frames.length === 1 ? writeSync(this.fd, frames[0]) : writevSync(this.fd, frames);
    } catch (e) {
      if (e.code !== 'EAGAIN') this.part();
      return 0;
    }
  }

  // The kernel connects at once, or not at all. What is written then needs no turn of the event loop, which the function may hold up.
  connect() {
    this.tried = now();
    const socket = net.connect({ path: this.path });
    socket.on('error', () => {}).resume().unref(); // that it has ended shows by destroyed
    this.socket = socket;
    this.fd = socket._handle?.fd ?? -1;
    if (this.fd >= 0) this.kept.add(this.fd);
  }

  /** Ends a connection that broke. What was not sent whole is sent again. */
  part() {
    this.socket.destroy();
    this.kept.delete(this.fd);
    this.fd = -1;
    this.begun = 0;
  }
}

function frame(head, data, from, to) {
  const one = Buffer.allocUnsafe(head.length + to - from);
  one.latin1Write(head, 0, head.length);
  data.copy(one, head.length, from, to);
  return one;
}

/** Returns microseconds since 1970: finer than Date, so that lines of two connections can be put in order, and right after the clock was set. */
function micros() {
  const date = now();
  const fine = timeOrigin + elapsed();
  return Math.round((Math.abs(fine - date) < SET ? fine : date) * 1000);
}

/** Returns where the character of UTF-8 begins that the byte at an index is part of, or the index in other bytes. */
function character(data, at) {
  for (let back = 0; back < 4; back++) {
    if ((data[at - back] & 0xc0) !== 0x80) return at - back;
  }
  return at;
}

module.exports = { Frames, character };
