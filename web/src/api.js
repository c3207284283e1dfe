// How the page asks the dispatcher: with the user's token, and again when the dispatcher
// was away.
import { signal } from '@preact/signals';

const tokenKey = 'fob-token';

// token is kept for this tab alone.
export const token = signal(sessionStorage.getItem(tokenKey) || '');
// tokenNeeded is why the page must ask for a token, or empty.
export const tokenNeeded = signal('');
// away is why the dispatcher does not answer, or empty.
export const away = signal('');
// epoch counts how often everything had to be asked anew: the dispatcher came back, or
// the token changed.
export const epoch = signal(0);

export function setToken(text) {
  token.value = text;
  tokenNeeded.value = '';
  if (text) sessionStorage.setItem(tokenKey, text);
  else sessionStorage.removeItem(tokenKey);
  epoch.value++;
}

// Problem is an error that the dispatcher answered (RFC 9457), or that kept it from
// answering.
export class Problem extends Error {
  constructor(document) {
    super(document.detail || document.title || 'the request failed');
    this.code = document.code || '';
    this.status = document.status || 0;
    this.callID = document.call_id || '';
    this.error = document.error; // in the function's code: type, message, line, traceback
  }
}

// Codes that mean: not now, but soon.
const passing = ['starting', 'standby', 'draining'];

// send makes a request and returns the answer, of any status. Cookies stay out of it, so
// that no function's answer has a browser ask for a password.
export async function send(path, { method = 'GET', headers = {}, body, signal: ends } = {}) {
  const all = { ...headers };
  if (token.value) all.Authorization = 'Bearer ' + token.value;
  try {
    return await fetch(path, { method, headers: all, body, signal: ends, credentials: 'omit', redirect: 'manual', cache: 'no-store' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    lost('The dispatcher does not answer.');
    throw new Problem({ detail: 'the dispatcher does not answer' });
  }
}

// ask makes a request and returns the answer, which is a good one, or throws a Problem.
export async function ask(path, options) {
  const answer = await send(path, options);
  if (answer.ok) return answer;
  throw await problemOf(answer);
}

// problemOf makes a Problem of an answer that is an error.
export async function problemOf(answer) {
  let document = { status: answer.status, title: `the answer was ${answer.status}` };
  try {
    document = JSON.parse(await answer.text());
  } catch {
    // A proxy in front may answer with anything.
  }
  const problem = new Problem({ status: answer.status, ...document });
  if (problem.status === 401) tokenNeeded.value = token.value ? 'This token does not exist, has expired, or was revoked.' : 'This dispatcher asks for a token.';
  if (passing.includes(problem.code)) lost('The dispatcher is not ready: ' + problem.message + '.');
  return problem;
}

export async function askJSON(path, options) {
  const answer = await ask(path, options);
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    lost('The connection to the dispatcher broke.');
    throw new Problem({ detail: 'the answer broke off' });
  }
}

export async function askText(path, options) {
  return (await ask(path, options)).text();
}

// lines passes the JSON documents of a stream, one a line, to take, until the stream ends.
// It calls opened when the stream begins.
export async function lines(path, { take, opened, ends, headers }) {
  const answer = await ask(path, { signal: ends, headers });
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (rest + value).split('\n');
    rest = whole.pop();
    const documents = whole.filter(Boolean).map((line) => JSON.parse(line));
    if (documents.length > 0) take(documents);
  }
}

// lost notes that the dispatcher is away, and waits for it.
function lost(why) {
  if (away.peek()) {
    away.value = why;
    return;
  }
  away.value = why;
  const retry = async () => {
    try {
      const answer = await fetch('/readyz', { credentials: 'omit', cache: 'no-store' });
      const document = await answer.json();
      if (answer.ok || !passing.includes(document.code)) {
        away.value = '';
        epoch.value++;
        return;
      }
      away.value = 'The dispatcher is not ready: ' + document.detail + '.';
    } catch {
      // It is still away.
    }
    setTimeout(retry, 1000);
  };
  setTimeout(retry, 500);
}

// query writes the parameters that have a value as a query.
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== '' && value !== undefined && value !== null);
  return given.length ? '?' + new URLSearchParams(given) : '';
}

// ref writes a function's ID or name, and perhaps a version, as a segment of a path.
export function ref(name, version) {
  return encodeURIComponent(name) + (version ? '@' + version : '');
}
