'use strict';
// Loads the user's code as a CommonJS module or an ES module, and finds its callme.

const fs = require('fs');
const { createRequire } = require('module');
const path = require('path');
const { pathToFileURL } = require('url');
const vm = require('vm');
const { Failure, doesNotCompile, moduleFolder, raised, remember } = require('./errors');

// V8's ways to say that the code would be valid as an ES module.
const WANTS_MODULE = new RegExp([
  'Cannot use import statement outside a module',
  "Unexpected token 'export'",
  "Cannot use 'import\\.meta' outside a module",
  'await is only valid in async functions and the top level bodies of modules',
].join('|'));

const NAMES = ['exports', 'require', 'module', '__filename', '__dirname'];
const FILE = 'function.js';

// Names that the function to call has on other platforms.
const USUAL = ['main', 'handler', 'handle', 'run', 'call_me', 'callMe', 'Callme', 'app', 'hello', 'lambda_handler', 'GET', 'POST'];

// Lets import() work as in a file. Before 20.12 Node cannot do that.
const importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;

/** Runs the code and returns its callme and the object that it belongs to, as {callme, self}. Fails with 422. */
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
  // Names that are only declared can be seen only from within.
  const seen = ['callme', ...USUAL].map((name) => `${name}: typeof ${name} === 'undefined' ? undefined : ${name}`);
  const run = compile(`${code}\n;return { ${seen.join(', ')} };`);
  const module = { exports: {} };
  const folder = process.cwd();
  const declared = run.call(module.exports, module.exports, createRequire(path.join(folder, FILE)), module, FILE, folder);
  return check(pick(module.exports, declared.callme), declared, module.exports);
}

// Runs after the module and in the same place, so that it finds every AsyncLocalStorage as the module left it.
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
    // If the code itself raised it, for example by JSON.parse, it comes from one of its lines.
    if (!(e instanceof SyntaxError) || /^\s+at .*function\.mjs:/m.test(String(e.stack))) throw raised(422, 'load_failed', e);
    throw doesNotCompile(e, lineInModule(code, e));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
  const found = exported.callme ? { callme: exported.callme } : pick(exported.default, undefined);
  return { ...check(found, exported, exported.default), base };
}

// V8 tells the line of a syntax error in a script, but not in a module. So this
// parses the module as a script, line for line, and uses the line if the error is
// the same.
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

/** Returns the callme that is exported or else declared, and the object whose method it is. */
function pick(exported, declared) {
  if (typeof exported === 'function' && !isClass(exported)) return { callme: exported };
  if (exported?.callme) return { callme: exported.callme, self: exported };
  // Compilers turn `export default` into this.
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

/** Returns how to give code without callme one. */
function instead(others) {
  const defined = Object.assign({}, ...others);
  const name = [...USUAL, ...Object.keys(defined)].find((other) => typeof defined[other] === 'function');
  if (!name) return 'add: function callme() { … }';
  return `it defines ${name}: rename that to callme, whose parameters are the call's arguments by name`;
}

module.exports = { load };
