'use strict';
// Sets the function's variables and secrets, and keeps the secrets out of its log and errors.

const fs = require('fs');
const path = require('path');

const LEAST = 6; // bytes of a value that is hidden; shorter ones occur in too many words
const LINE = 16; // the same for one line of a value that has several
const STARS = Buffer.from('***');

const hidden = []; // what is replaced, longest first: as bytes, and as text if it is text

/** Removes env and secrets from the document to load, and returns both. Throws an Error if something is wrong with them. */
function read(document) {
  const { env, secrets } = document;
  delete document.env;
  delete document.secrets;
  for (const [what, given] of [['env', env ?? {}], ['secrets', secrets ?? {}]]) {
    if (typeof given !== 'object' || Array.isArray(given) || !Object.values(given).every((value) => typeof value === 'string')) {
      throw new Error(`${what} must be an object of strings`);
    }
  }
  const values = Object.entries(secrets ?? {}).map(([name, value]) => {
    if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(value)) throw new Error('secrets must be in base64');
    return [name, Buffer.from(value, 'base64')];
  });
  if (values.length > 0 && !process.env.FOB_SECRETS) throw new Error('there are secrets, and FOB_SECRETS names no folder for them');
  return { env: Object.entries(env ?? {}), secrets: values };
}

/** Sets the variables and writes the files, or throws. */
function install({ env, secrets }) {
  for (const [, value] of secrets) {
    const whole = value.toString('latin1'); // one character for each byte
    const lines = whole.split(/\r?\n|\r/);
    const found = [whole, trim(whole), ...(lines.length > 1 ? lines.map(trim).filter((line) => line.length >= LINE) : [])];
    for (const v of found) {
      if (v.length < LEAST) continue;
      const bytes = Buffer.from(v, 'latin1');
      hidden.push({ bytes, text: textOf(bytes) });
    }
  }
  hidden.sort((a, b) => b.bytes.length - a.bytes.length);
  for (const [name, value] of secrets) {
    fs.writeFileSync(path.join(process.env.FOB_SECRETS, name), value, { mode: 0o400, flag: 'wx' });
    const text = textOf(value);
    if (text !== null && !text.includes('\0')) process.env[name] = text;
  }
  for (const [name, value] of env) process.env[name] = value;
  if (env.length + secrets.length > 0) require('./late').apply([...env, ...secrets].map(([name]) => name));
}

const trim = (text) => text.replace(/^[ \t-\r]+|[ \t-\r]+$/g, '');

function textOf(bytes) {
  const text = bytes.toString('utf8');
  return Buffer.from(text).equals(bytes) ? text : null;
}

/** Returns whether there is anything to hide. */
const hides = () => hidden.length > 0;

/** Returns a Buffer without the values of secrets. */
function hide(data) {
  for (const { bytes } of hidden) {
    const parts = [];
    let from = 0;
    for (let at; (at = data.indexOf(bytes, from)) >= 0; from = at + bytes.length) parts.push(data.subarray(from, at), STARS);
    if (parts.length > 0) data = Buffer.concat([...parts, data.subarray(from)]);
  }
  return data;
}

/** Returns text without the values of secrets. */
function hideText(text) {
  for (const value of hidden) {
    if (value.text !== null) text = text.replaceAll(value.text, '***');
  }
  return text;
}

/** Returns how many bytes of data can be shown although more follows: those before the beginning of a secret. */
function settled(data) {
  let end = data.length;
  for (const { bytes } of hidden) {
    for (let n = Math.min(bytes.length - 1, data.length); n > data.length - end; n--) {
      if (data[data.length - 1] === bytes[n - 1] && data.subarray(data.length - n).equals(bytes.subarray(0, n))) end = data.length - n;
    }
  }
  // A secret may begin within another one, which must not be cut in two.
  for (let before = -1; before !== end;) {
    before = end;
    for (const { bytes } of hidden) {
      const at = end > 0 ? data.lastIndexOf(bytes, end - 1) : -1;
      if (at >= 0 && at + bytes.length > end) end = at;
    }
  }
  return end;
}

module.exports = { hidden, hide, hideText, hides, install, read, settled };
