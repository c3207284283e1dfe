'use strict';
// Turns errors into the contract's error objects.

const fs = require('fs');
const path = require('path');
const { hideText } = require('./environment');

const TYPE = 256; // bytes shown at most, as JSON writes them
const MESSAGE = 8 << 10;
const TRACEBACK = 64 << 10;
const SHOWN = 8; // nested causes, and parts of an AggregateError

const DRIVER = path.dirname(__dirname) + path.sep;
// A frame in the user's code, and its line.
const USER = /(?:^|[\s(/])function\.m?js:(\d+)(?::\d+)?\)?$/;

Error.stackTraceLimit = 50;

/** An error of the contract: a status and the members of its error object. */
class Failure extends Error {
  constructor(status, code, message, more = {}) {
    super(message);
    this.status = status;
    if (more.type !== undefined) more = { ...more, type: clip(String(more.type), TYPE) };
    this.code = code;
    this.document = { error: { code, message: clip(message, MESSAGE), ...more } };
  }
}

/** Shortens text, which has no secrets in it, to that many bytes of JSON. */
function clip(text, limit) {
  text = hideText(text);
  if (text.length * 6 <= limit) return text;
  let shown = text;
  for (let size = sizeOf(text); size > limit; size = sizeOf(shown) + 3) {
    // In proportion, and repeatedly, because characters differ in how many bytes they take.
    shown = shown.slice(0, Math.min(shown.length - 1, Math.floor(shown.length * (limit - 3) / size)));
    if (/[\ud800-\udbff]$/.test(shown)) shown = shown.slice(0, -1); // half of a character
  }
  return shown === text ? text : shown + '…';
}

/** Returns how many bytes JSON takes for text, without the quotes. */
const sizeOf = (text) => Buffer.byteLength(JSON.stringify(text)) - 2;

/** The user's code, to show its lines. */
const source = { lines: [], folders: [] };

/** Replaces the path of an ES module, which was written to a folder for Node to load, by its name. */
function withoutFolder(text) {
  for (const folder of source.folders) text = text.replaceAll(folder, '');
  return text;
}

/** Describes what was thrown, which may be anything, as {type, message, line, traceback}. */
function describe(thrown) {
  try {
    if (!isError(thrown)) {
      const message = plainText(thrown);
      const type = thrown === null ? 'null' : typeof thrown;
      return { type, message, traceback: clip(`${type}: ${message}\n`, TRACEBACK) };
    }
    const line = framesOf(thrown).map((frame) => USER.exec(frame)).find(Boolean);
    const about = { type: typeOf(thrown), message: messageOf(thrown), traceback: clip(show(thrown), TRACEBACK) };
    if (line) about.line = Number(line[1]);
    const hint = missing(thrown);
    if (hint) about.hint = hint;
    return about;
  } catch { // the function's own getters and names may throw, too
    return { type: 'Error', message: '(its message cannot be shown)', traceback: '' };
  }
}

const isError = (value) => value instanceof Error || Object.prototype.toString.call(value) === '[object Error]';
const withoutStack = (text) => withoutFolder(text.replace(/\nRequire stack:\n[^]*$/, ''));
const plainText = (value) => String(typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value));
const typeOf = (error) => String(error.name === 'Error' && error.constructor?.name || error.name);
const codeOf = (error) => (typeof error.code === 'string' || typeof error.code === 'number' ? String(error.code) : '');

/** Returns an error's message. If it has none, like the error of several refused connections, it returns what else the error tells. */
function messageOf(error) {
  const message = withoutStack(String(error.message));
  if (message !== '' || (codeOf(error) === '' && !Array.isArray(error.errors))) return message;
  const parts = (Array.isArray(error.errors) ? error.errors : []).slice(0, SHOWN);
  return [codeOf(error), parts.map((part) => (isError(part) ? withoutFolder(String(part.message)) : plainText(part))).join('; ')].filter(Boolean).join(': ');
}

const BUNDLE = 'bundle it with what it imports, as with npx esbuild hello.js --bundle --platform=node, where it exports callme';

/** Says what can be done about an import that failed, or ''. */
function missing(error) {
  switch (codeOf(error)) {
    case 'MODULE_NOT_FOUND':
    case 'ERR_MODULE_NOT_FOUND':
      if (/^Cannot find (?:package '|module '(?![./]))/.test(error.message)) {
        return `only Node's own modules are there, such as node:fs: ${BUNDLE}`;
      }
      return `a function is one file: ${BUNDLE}`;
    case 'ERR_UNSUPPORTED_DIR_IMPORT':
    case 'ERR_UNSUPPORTED_ESM_URL_SCHEME':
      return `a function is one file: ${BUNDLE}`;
    case 'ERR_UNKNOWN_BUILTIN_MODULE':
      return `Node ${process.versions.node} has no such module of its own`;
  }
  return '';
}

/** Returns an error's text as Node writes it, followed by its causes and its parts. */
function show(error, depth = 0) {
  const code = codeOf(error);
  let text = `${typeOf(error)}${code === '' ? '' : ` [${code}]`}: ${withoutStack(String(error.message))}\n`;
  for (const frame of framesOf(error)) {
    text += frame + '\n';
    const user = USER.exec(frame);
    const line = user && source.lines[user[1] - 1];
    if (line !== null && line !== undefined) text += '        ' + line.trim() + '\n';
  }
  if (depth === SHOWN) return text;
  const more = (how, inner) => { text += `${how} ${isError(inner) ? show(inner, depth + 1) : plainText(inner) + '\n'}`; };
  if (error.cause !== undefined) more('caused by', error.cause);
  if (Array.isArray(error.errors)) {
    for (const inner of error.errors.slice(0, SHOWN)) more('one of which:', inner);
    if (error.errors.length > SHOWN) text += `and ${error.errors.length - SHOWN} more\n`;
  }
  return text;
}

function framesOf(error) {
  const frames = String(error.stack)
    .split('\n')
    .filter((line) => /^\s+at /.test(line) && !line.includes(DRIVER) && !line.includes('node:internal'))
    .map(withoutFolder);
  // Beyond the user's outermost frame are the driver's.
  while (frames.length > 0 && !USER.test(frames[frames.length - 1])) frames.pop();
  return frames;
}

/** Turns what the user's code threw into a Failure. A Failure of the driver's stays as it is. */
function raised(status, code, thrown) {
  if (thrown instanceof Failure) return thrown;
  const { message, ...about } = describe(thrown);
  return new Failure(status, code, message, about);
}

/** Turns a syntax error into a Failure. Unless line is given, the stack tells it. */
function doesNotCompile(error, line) {
  const at = /function\.m?js:(\d+)/.exec(String(error.stack));
  return new Failure(422, 'does_not_compile', withoutFolder(error.message), { type: error.name, line: line ?? Number(at?.[1] ?? 1) });
}

/** Stores the user's code, so that tracebacks can show its lines. */
function remember(code) {
  source.lines = code.split(/\r\n|[\n\r\u2028\u2029]/);
}

/** Makes the folder for an ES module. Tracebacks leave it out. */
function moduleFolder() {
  const folder = fs.mkdtempSync(path.join(require('os').tmpdir(), 'fob-'));
  source.folders = [require('url').pathToFileURL(folder).href + '/', folder + '/'];
  return folder;
}

module.exports = { Failure, describe, doesNotCompile, moduleFolder, raised, remember };
