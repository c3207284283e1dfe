// Calls a function: a form made from its parameters, and the line for curl.
import { useMemo, useRef, useState } from 'preact/hooks';
import { askText, problemOf, ref, send, token } from '../api.js';
import { CopyLine, Loading, Trouble } from '../parts.jsx';
import { bytes } from '../format.js';
import { to } from '../route.js';
import { argument, parameters } from '../signature.js';
import { useLoad } from '../use.js';
import { Failure } from './edit.jsx';

const mostShown = 256 * 1024; // of an answer, in bytes

export function CallForm({ fn }) {
  const { data: code, error } = useLoad((signal) => askText('/api/cs/' + ref(fn.id), { signal }), [fn.id, fn.version.version]);
  if (code === undefined) return error ? <Form fn={fn} found={undefined} /> : <Loading />;
  return <Form key={fn.version.version} fn={fn} found={parameters(code, fn.version.lang)} />;
}

function Form({ fn, found }) {
  const whole = found?.some((p) => p.name === 'request');
  const fields = (found || []).filter((p) => !p.rest && p.name !== 'request');
  const [values, set] = useState({});
  const [more, setMore] = useState(''); // as JSON
  const [request, setRequest] = useState({ method: 'GET', path: '', type: 'application/json', body: '' });
  const [state, say] = useState({});
  const running = useRef();
  const sent = useMemo(() => made(fn, fields, values, more, whole && request), [fn, values, more, request]);
  const call = async (event) => {
    event.preventDefault();
    if (sent.wrong) {
      say({ wrong: sent.wrong });
      return;
    }
    const ends = (running.current = new AbortController());
    say({ busy: true });
    const begun = performance.now();
    try {
      const answer = await send(sent.path, { method: sent.method, headers: sent.headers, body: sent.body, signal: ends.signal });
      const head = { status: answer.status, id: answer.headers.get('X-Call-Id'), timing: answer.headers.get('Server-Timing'), version: answer.headers.get('Fob-Version'), type: answer.headers.get('Content-Type') || '' };
      if (answer.headers.get('Fob-Error')) {
        const problem = await problemOf(answer);
        say({ head, problem, took: performance.now() - begun });
        return;
      }
      await read(answer, (text, size) => say({ busy: true, head, text, size, took: performance.now() - begun }), (text, size, cut) => say({ head, text, size, cut, took: performance.now() - begun }));
    } catch (problem) {
      say((old) => ({ ...old, busy: false, problem: problem.name === 'AbortError' ? { message: 'You stopped waiting. The call itself may run on.' } : problem }));
    }
  };
  return (
    <div class="columns">
      <form class="card stack" onSubmit={call}>
        <h2>Arguments</h2>
        {fields.map((p) => (
          <label key={p.name}>
            <span><code>{p.name}</code> <span class="faint">{p.type}{p.preset !== undefined ? ` = ${p.preset}` : ''}</span></span>
            <input name={p.name} value={values[p.name] || ''} placeholder={p.preset ?? ''} onInput={(e) => set({ ...values, [p.name]: e.target.value })} autocomplete="off" autocapitalize="off" spellcheck={false} />
          </label>
        ))}
        {found && fields.length === 0 && !whole && !found.some((p) => p.rest) && <p class="faint">callme takes no arguments.</p>}
        {whole ? <Request request={request} set={setRequest} /> : (!found || found.some((p) => p.rest)) && (
          <label><span>{found ? 'More arguments' : 'Arguments'} <span class="faint">a JSON object</span></span>
            <textarea rows={4} value={more} onInput={(e) => setMore(e.target.value)} placeholder="{}" spellcheck={false} /></label>
        )}
        {fields.length > 0 && <p class="faint">An empty field is left out. 5, true, [1, 2] and the like are sent as JSON; everything else is text, and so is "5" in quotes.</p>}
        {state.wrong && <p class="trouble" role="alert">{state.wrong}</p>}
        <div class="tools">
          <button class="primary" disabled={state.busy}>{state.busy ? 'Running…' : 'Call'}</button>
          {state.busy && <button type="button" onClick={() => running.current.abort()}>Stop waiting</button>}
        </div>
        {!sent.wrong && <CopyLine text={sent.curl} label="the same call with curl" />}
      </form>
      <Answer state={state} fn={fn} />
    </div>
  );
}

function Request({ request, set }) {
  const change = (more) => set({ ...request, ...more });
  return (
    <>
      <p class="faint">callme takes the request as it is.</p>
      <div class="tools">
        <label>Method <select value={request.method} onChange={(e) => change({ method: e.target.value })}>{['GET', 'POST', 'PUT', 'PATCH', 'DELETE'].map((m) => <option>{m}</option>)}</select></label>
        <label>Path and query <input value={request.path} onInput={(e) => change({ path: e.target.value })} placeholder="/below?a=1" /></label>
      </div>
      {request.method !== 'GET' && (
        <>
          <label>Content-Type <input value={request.type} onInput={(e) => change({ type: e.target.value })} /></label>
          <label>Body <textarea rows={5} value={request.body} onInput={(e) => change({ body: e.target.value })} spellcheck={false} /></label>
        </>
      )}
    </>
  );
}

// made returns the request that the form stands for, {path, method, headers, body, curl},
// or {wrong}.
function made(fn, fields, values, more, request) {
  let path = '/api/call/' + ref(fn.name || fn.id), method = 'POST', headers = {}, body;
  const args = {};
  for (const p of fields) if (values[p.name]) args[p.name] = argument(values[p.name], p.type);
  if (more.trim()) {
    try {
      const rest = JSON.parse(more);
      if (typeof rest !== 'object' || rest === null || Array.isArray(rest)) throw new Error('it is not an object');
      Object.assign(args, rest);
    } catch (error) {
      return { wrong: 'The arguments are not a JSON object: ' + error.message };
    }
  }
  if (request) {
    const query = Object.keys(args).length ? new URLSearchParams(Object.entries(args).map(([k, v]) => [k, typeof v === 'string' ? v : JSON.stringify(v)])).toString() : '';
    const below = request.path && !/^[/?]/.test(request.path) ? '/' + request.path : request.path;
    path += below + (query ? (below.includes('?') ? '&' : '?') + query : '');
    method = request.method;
    if (method !== 'GET') {
      headers = request.type ? { 'Content-Type': request.type } : {};
      body = request.body;
    }
  } else if (Object.keys(args).length === 0) method = 'GET';
  else {
    headers = { 'Content-Type': 'application/json' };
    body = JSON.stringify(args);
  }
  return { path, method, headers, body, curl: curl(path, method, headers, body) };
}

function curl(path, method, headers, body) {
  const quote = (text) => "'" + text.replaceAll("'", `'\\''`) + "'";
  let line = 'curl';
  if (method !== (body === undefined ? 'GET' : 'POST')) line += ' -X ' + method;
  if (token.value) line += ' -H "Authorization: Bearer $FOB_TOKEN"';
  for (const [name, value] of Object.entries(headers)) line += ' -H ' + quote(`${name}: ${value}`);
  if (body !== undefined) line += ' --data-raw ' + quote(body);
  return line + ' ' + quote(location.origin + path);
}

// read reads an answer as it comes, and keeps so much of it as is shown.
async function read(answer, part, end) {
  if (!answer.body) return end('', 0, false);
  const reader = answer.body.getReader(), decoder = new TextDecoder();
  let text = '', size = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    size += value.length;
    if (text.length < mostShown) part((text += decoder.decode(value, { stream: true })), size);
  }
  end(text, size, text.length >= mostShown && size > text.length);
}

function Answer({ state, fn }) {
  const { head, problem } = state;
  if (!head && !problem) return <section class="card stack"><h2>Answer</h2><p class="empty">{state.busy ? 'Waiting for the answer…' : 'Call the function to see its answer here.'}</p></section>;
  let text = state.text;
  if (head?.type.startsWith('application/json') && !state.busy && !state.cut) {
    try {
      text = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // It says that it is JSON and is not; it is shown as it came.
    }
  }
  return (
    <section class="card stack answer" aria-live="polite">
      <h2>Answer</h2>
      {head && (
        <p class="summary">
          <span class={'badge ' + (problem || head.status >= 400 ? 'bad' : 'good')}>{head.status || 'a redirect'}</span>
          {head.type && <span>{head.type}</span>}
          {state.size !== undefined && <span>{bytes(state.size)}</span>}
          {head.version && <span>version {head.version}</span>}
          {head.id && <a href={to(['call', head.id])}>This call</a>}
        </p>
      )}
      {head?.timing && <p class="faint">{head.timing.replaceAll(';dur=', ' ').replaceAll(',', ' ms,')} ms</p>}
      <Failure problem={problem} />
      {problem?.error?.line && <p><a href={to(['f', fn.name || fn.id, 'code'], { line: problem.error.line, message: problem.error.message })}>Mend line {problem.error.line}</a></p>}
      {text !== undefined && <pre class="result" tabIndex={0}>{text}{state.cut ? '\n… and more' : ''}</pre>}
    </section>
  );
}
