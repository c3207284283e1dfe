'use strict';
// Text on its way to a log, which may come in pieces, without the values of secrets.

const { hide, settled } = require('./environment');

/** Passes on bytes that are added: whole lines, and an unfinished one except for an end in which a secret may have begun. */
class Lines {
  /** put gets bytes, and whether they end a line even without a line feed. */
  constructor(put) {
    this.put = put;
    this.pieces = []; // of an unfinished line
  }

  add(data) {
    const cut = data.lastIndexOf(10) + 1;
    if (cut > 0) {
      this.pieces.push(cut < data.length ? data.subarray(0, cut) : data);
      this.flush(false);
      data = data.subarray(cut);
    }
    if (data.length === 0) return;
    // Pass on an unfinished line, too: the process may be killed before it is finished.
    this.pieces.push(data);
    this.flush(true);
  }

  /** Passes on what there is. If the line goes on, it holds back an end in which a secret may have begun. */
  flush(goesOn) {
    if (this.pieces.length === 0) return;
    const data = this.pieces.length === 1 ? this.pieces[0] : Buffer.concat(this.pieces);
    const end = goesOn ? settled(data) : data.length;
    this.pieces = end < data.length ? [data.subarray(end)] : [];
    if (end > 0) this.put(hide(data.subarray(0, end)), !goesOn);
  }
}

module.exports = { Lines };
