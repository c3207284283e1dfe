// The code of a function, to be changed and deployed.
import { useEffect, useState } from 'preact/hooks';
import { askJSON, askText, query as write, ref } from '../api.js';
import { Editor } from '../code.jsx';
import { Loading, Trouble } from '../parts.jsx';
import { to } from '../route.js';
import { loadFunctions } from '../functions.js';
import { useLoad } from '../use.js';

export function Edit({ fn, reload, query }) {
  const version = Number(query.version) || undefined;
  const { data: stored, error: unread } = useLoad((signal) => askText('/api/cs/' + ref(fn.id, version), { signal }), [fn.id, version || fn.version.version]);
  const [text, set] = useState(undefined);
  const [state, say] = useState({});
  useEffect(() => {
    if (!query.line || stored === undefined) return;
    say({ error: { line: Number(query.line), message: query.message || '' } });
  }, [stored]);
  if (stored === undefined && text === undefined) return unread ? <Trouble error={unread} /> : <Loading />;
  const code = text ?? stored;
  const deploy = async () => {
    if (state.busy) return;
    say({ busy: true });
    try {
      const answer = await askJSON('/api/functions/' + ref(fn.id) + write({ lang: fn.version.lang }), { method: 'PUT', body: code });
      say({ done: answer.changed ? `Version ${answer.version.version} is live.` : 'Nothing had changed.' });
      reload();
      loadFunctions();
    } catch (problem) {
      say({ problem, error: problem.error?.line ? problem.error : undefined });
    }
  };
  const changed = stored !== undefined && code !== stored;
  return (
    <section class="stack">
      {version && version !== fn.version.version && <p class="trouble">This is version {version}. The live one is <a href={to(['f', fn.name || fn.id, 'code'])}>version {fn.version.version}</a>. Deploying makes a new version of this code.</p>}
      <Editor code={code} lang={fn.version.lang} error={state.error} label={`code of ${fn.name || fn.id}`} onDeploy={deploy}
        onInput={(now) => { set(now); say({}); }} />
      <Failure problem={state.problem} />
      <div class="tools">
        <button class="primary" type="button" onClick={deploy} disabled={state.busy || (!changed && !version)}>{state.busy ? 'Loading the code…' : 'Deploy'}</button>
        {changed && <button type="button" onClick={() => { set(undefined); say({}); }}>Undo all changes</button>}
        <span role="status" class="good">{state.done}</span>
        {state.done && <a href={to(['f', fn.name || fn.id, 'call'])}>Call it</a>}
        <span class="faint hint"><kbd>Ctrl</kbd>+<kbd>Enter</kbd> deploys, <kbd>Esc</kbd> then <kbd>Tab</kbd> leaves the field</span>
      </div>
    </section>
  );
}

// Failure shows why code was refused.
export function Failure({ problem }) {
  if (!problem) return null;
  return (
    <div class="card failure" role="alert">
      <p><b>{problem.code || 'failed'}</b> {problem.message}</p>
      {problem.error?.traceback && <pre>{problem.error.traceback}</pre>}
    </div>
  );
}
