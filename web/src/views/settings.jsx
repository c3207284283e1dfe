// The settings of a function, each with what it does.
import { useState } from 'preact/hooks';
import { ask, askJSON, ref } from '../api.js';
import { Loading, Marked, Trouble } from '../parts.jsx';
import { loadFunctions } from '../functions.js';
import { go, to } from '../route.js';
import { useLoad } from '../use.js';

export function Settings({ fn, reload }) {
  const { data, error } = useLoad((signal) => askJSON('/page/about.json', { signal }), []);
  const [changed, set] = useState({});
  const [state, say] = useState({});
  const [search, find] = useState('');
  if (!data) return error ? <Trouble error={error} /> : <Loading />;
  const now = fn.version.settings;
  const save = async (event) => {
    event.preventDefault();
    say({ busy: true });
    try {
      const answer = await askJSON('/api/functions/' + ref(fn.id) + '?' + new URLSearchParams(changed), { method: 'PATCH' });
      say({ done: answer.changed ? `Version ${answer.version.version} is live.` : 'Nothing had changed.' });
      set({});
      if (changed.name) {
        loadFunctions();
        go(to(['f', changed.name, 'settings']), true);
      } else reload();
    } catch (problem) {
      say({ problem });
    }
  };
  const remove = async () => {
    if (!confirm(`Delete ${fn.name || fn.id} with all its versions?`)) return;
    try {

      await ask('/api/functions/' + ref(fn.id), { method: 'DELETE' });
      loadFunctions();
      go('#/');
    } catch (problem) {
      say({ problem });
    }
  };
  const fits = (s) => `${s.name} ${s.doc} ${s.more}`.toLowerCase().includes(search.toLowerCase());
  const rows = (everyday) => data.settings.filter((s) => s.everyday === everyday && fits(s)).map((s) => (
    <Setting key={s.name} setting={s} value={text(now[s.name])} draft={changed[s.name]} onChange={(value) => {
      const next = { ...changed, [s.name]: value };
      if (value === text(now[s.name])) delete next[s.name];
      set(next);
    }} />
  ));
  const count = Object.keys(changed).length;
  return (
    <form onSubmit={save} class="stack">
      <div class="tools"><input type="search" value={search} onInput={(e) => find(e.target.value)} placeholder="Search the settings" aria-label="Search the settings" /></div>
      <section class="card settings"><h2>Everyday</h2>
        {fits(named) && <Setting setting={named} value={fn.name || ''} draft={changed.name} onChange={(value) => {
          const { name, ...others } = changed;
          set(value === (fn.name || '') ? others : { ...others, name: value });
        }} />}
        {rows(true)}</section>
      <section class="card settings"><h2>Tuning</h2>{rows(false)}</section>
      <div class="tools sticky">
        <button class="primary" disabled={count === 0 || state.busy}>{state.busy ? 'Saving…' : count ? `Save ${count === 1 ? 'one change' : count + ' changes'}` : 'No changes'}</button>
        {count > 0 && <button type="button" onClick={() => set({})}>Undo</button>}
        <span role="status" class="good">{state.done}</span>
        <Trouble error={state.problem} />
      </div>
      <p><button type="button" class="danger" onClick={remove}>Delete the function…</button></p>
    </form>
  );
}

// named is the function's name, which is changed like a setting.
const named = { name: 'name', doc: 'what the function is called', range: '1 to 63 letters, digits, - and _', more: 'Another name makes no version. The former one leads nowhere then.', default: '' };

function Setting({ setting: s, value, draft, onChange }) {
  const shown = draft ?? value;
  return (
    <div class={draft === undefined ? 'setting' : 'setting drafted'}>
      <label for={'setting-' + s.name}><code>{s.name}</code>{s !== named && value !== plain(s.default) && <span class="badge plain">not the default</span>}</label>
      {s.range === 'true or false'
        ? <select id={'setting-' + s.name} value={shown} onChange={(e) => onChange(e.target.value)}><option>false</option><option>true</option></select>
        : <input id={'setting-' + s.name} value={shown} placeholder={plain(s.default)} onInput={(e) => onChange(e.target.value)} autocomplete="off" spellcheck={false} aria-describedby={'about-' + s.name} />}
      <p id={'about-' + s.name} class="faint"><Marked text={`${s.doc[0].toUpperCase()}${s.doc.slice(1)}, ${s.range}. ${s.more}`} /> {plain(s.default) && <>Default: <code>{s.default}</code>.</>}</p>
    </div>
  );
}

// plain is a default as text has it.
function plain(preset) {
  return preset === '{}' || preset === '[]' ? '' : preset;
}

// text writes a setting's value as a query has it.
function text(value) {
  if (Array.isArray(value)) return value.join(',');
  if (value !== null && typeof value === 'object') return Object.entries(value).map(([k, v]) => `${k}=${v}`).join(',');
  return String(value ?? '');
}
