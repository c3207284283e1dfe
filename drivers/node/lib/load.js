'use strict';
// Makes a callme of the user's code, as a CommonJS module or an ES module.

const fs = require('fs');
const { createRequire } = require('module');
const path = require('path');
const { pathToFileURL } = require('url');
const vm = require('vm');
const { Failure, doesNotCompile, moduleFolder, raised, remember } = require('./errors');

// How V8 says that the code would be fine if it were an ES module.
const WANTS_MODULE = new RegExp([
  'Cannot use import statement outside a module',
  "Unexpected token 'export'",
  "Cannot use 'import\\.meta' outside a module",
  'await is only valid in async functions and the top level bodies of modules',
].join('|'));

const NAMES = ['exports', 'require', 'module', '__filename', '__dirname'];
const FILE = 'function.js';

// What a function to be called is named elsewhere.
const USUAL = ['main', 'handler', 'handle', 'run', 'call_me', 'callMe', 'Callme', 'app', 'hello', 'lambda_handler', 'GET', 'POST'];

// Lets import() work as in a file. Node before 20.12 has no way to it.
const importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;

/** Runs the code and returns its callme and what that belongs to, {callme, self}, or fails with 422. */
async function load(code) {
  code = code.replace(/^\ufeff/, '').replace(/^#!/, '//');
  remember(code);
  try {
    compile(code);
  } catch (e) {
    if (!WANTS_MODULE.test(e.message)) throw doesNotCompile(e);
    return await loadModule(code);
  }
  try {
    return loadCommon(code);
  } catch (e) {
    throw raised(422, 'load_failed', e);
  }
}

function compile(code) {
  return vm.compileFunction(code, NAMES, { filename: FILE, importModuleDynamically });
}

function loadCommon(code) {
  // What is merely declared can only be seen from within.
  const seen = ['callme', ...USUAL].map((name) => `${name}: typeof ${name} === 'undefined' ? undefined : ${name}`);
  const run = compile(`${code}\n;return { ${seen.join(', ')} };`);
  const module = { exports: {} };
  const folder = process.cwd();
  const declared = run.call(module.exports, module.exports, createRequire(path.join(folder, FILE)), module, FILE, folder);
  return check(pick(module.exports, declared.callme), declared, module.exports);
}

// Runs behind the module and where it did, so that what that set of an AsyncLocalStorage is there.
const BASE = `export * as exported from './function.mjs';
import { AsyncResource } from 'node:async_hooks';
export const base = new AsyncResource('FobBase');
`;

async function loadModule(code) {
  const folder = moduleFolder();
  const file = path.join(folder, 'function.mjs');
  let exported;
  let base;
  try {
    fs.writeFileSync(file, code);
    fs.writeFileSync(path.join(folder, 'base.mjs'), BASE);
    ({ exported, base } = await import(pathToFileURL(path.join(folder, 'base.mjs')).href));
  } catch (e) {
    // One that the code itself raised, as JSON.parse does, comes from a line of it.
    if (!(e instanceof SyntaxError) || /^\s+at .*function\.mjs:/m.test(String(e.stack))) throw raised(422, 'load_failed', e);
    throw doesNotCompile(e, lineInModule(code, e));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
  const found = exported.callme ? { callme: exported.callme } : pick(exported.default, undefined);
  return { ...check(found, exported, exported.default), base };
}

// V8 tells the line of a syntax error for a script, not for a module: so the
// module is made to look like a script, line for line, and counts if the error
// is the same.
function lineInModule(code, error) {
  const blank = (text) => text.replace(/\S/g, ' ');
  const script = code
    .replace(/^\s*import\b[^'"()]*['"][^'"\n]*['"]/gm, blank)
    .replace(/^(\s*)export\s+default\b/gm, '$1exported =')
    .replace(/^\s*export\s+(?:\{[^}]*\}(?:\s*from\s*['"][^'"\n]*['"])?|\*[^'"]*['"][^'"\n]*['"])?/gm, blank)
    .replaceAll('import.meta', 'import_meta');
  try {
    new vm.Script(`'use strict'; (async () => {${script}\n})`, { filename: 'function.mjs' });
  } catch (e) {
    if (e.message === error.message) return Number(/^function\.mjs:(\d+)/.exec(String(e.stack))?.[1]) || undefined;
  }
  return undefined;
}

/** Returns the callme that is exported, or else declared, and the object whose method it is. */
function pick(exported, declared) {
  if (typeof exported === 'function' && !isClass(exported)) return { callme: exported };
  if (exported?.callme) return { callme: exported.callme, self: exported };
  // What a compiler makes of `export default`.
  if (exported?.__esModule && exported.default) return pick(exported.default, declared);
  return { callme: declared ?? (typeof exported === 'function' ? exported : exported?.callme) };
}

const isClass = (value) => /^class\b/.test(Function.prototype.toString.call(value));

function check(found, ...others) {
  const { callme } = found;
  if (callme === undefined || callme === null) {
    throw new Failure(422, 'no_callme', `the code defines no function callme; ${instead(others)}`);
  }
  if (typeof callme !== 'function') throw new Failure(422, 'no_callme', `callme is not a function but ${typeof callme}`);
  if (isClass(callme)) throw new Failure(422, 'no_callme', 'callme is a class; make it a function');
  return found;
}

/** Says how code without callme gets one. */
function instead(others) {
  const defined = Object.assign({}, ...others);
  const name = [...USUAL, ...Object.keys(defined)].find((other) => typeof defined[other] === 'function');
  if (!name) return 'add: function callme() { … }';
  return `it defines ${name}: rename that to callme, whose parameters are the call's arguments by name`;
}

module.exports = { load };
