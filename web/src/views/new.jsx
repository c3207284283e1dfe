// Makes a function.
import { useState } from 'preact/hooks';
import { askJSON, query, ref } from '../api.js';
import { Editor } from '../code.jsx';
import { loadFunctions } from '../functions.js';
import { go, to } from '../route.js';
import { Failure } from './edit.jsx';

const samples = {
  python: 'def callme(name: str = "you"):\n    return f"Hello {name}"\n',
  node: 'export function callme({ name = \'you\' }) {\n  return `Hello ${name}`;\n}\n',
};

export function New() {
  const [name, setName] = useState(''), [lang, setLang] = useState('python'), [text, set] = useState(undefined);
  const [state, say] = useState({});
  const code = text ?? samples[lang];
  const deploy = async (event) => {
    event?.preventDefault();
    if (state.busy) return;
    if (!name) {
      say({ problem: { message: 'Give the function a name.' } });
      return;
    }
    say({ busy: true });
    try {
      await askJSON('/api/gen' + query({ name, lang }), { method: 'POST', body: code });
      loadFunctions();
      go(to(['f', name, 'call']));
    } catch (problem) {
      say({ problem, error: problem.error?.line ? problem.error : undefined });
    }
  };
  return (
    <main tabIndex={-1}>
      <h1>New function</h1>
      <form class="stack" onSubmit={deploy}>
        <div class="tools">
          <label>Name <input value={name} onInput={(e) => setName(e.target.value)} required pattern="[A-Za-z0-9][A-Za-z0-9_\-]{0,62}" title="letters, digits, - and _" autocomplete="off" /></label>
          <label>Language <select value={lang} onChange={(e) => setLang(e.target.value)}><option value="python">Python</option><option value="node">JavaScript (Node)</option></select></label>
        </div>
        <Editor code={code} lang={lang} error={state.error} onInput={(now) => { set(now); say({}); }} onDeploy={deploy} label="code" />
        <Failure problem={state.problem} />
        <div class="tools"><button class="primary" disabled={state.busy}>{state.busy ? 'Loading the code…' : 'Deploy'}</button></div>
      </form>
    </main>
  );
}
