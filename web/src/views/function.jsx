// A function: its head, and one of its tabs.
import { useEffect } from 'preact/hooks';
import { askJSON, query as ask, ref } from '../api.js';
import { Loading, Trouble } from '../parts.jsx';
import { title } from '../functions.js';
import { to } from '../route.js';
import { useLoad } from '../use.js';
import { Overview } from './overview.jsx';
import { Edit } from './edit.jsx';
import { CallForm } from './callform.jsx';
import { Versions } from './versions.jsx';
import { Settings } from './settings.jsx';
import { Logs } from './logs.jsx';

const tabs = { '': 'Overview', call: 'Call', code: 'Code', logs: 'Log', versions: 'Versions', settings: 'Settings' };

export function Function({ name, tab = '', query }) {
  const { data: fn, error, reload } = useLoad((signal) => askJSON('/api/functions/' + ref(name), { signal }), [name], 15000);
  useEffect(() => {
    document.title = (fn ? title(fn) : name) + ' · Flock of Birds';
    return () => (document.title = 'Flock of Birds');
  }, [fn, name]);
  if (!fn) return <main tabIndex={-1}><h1>{name}</h1>{error ? <><Trouble error={error} /><p><a href="#/">All functions</a> · <a href={to(['calls'], { function: name })}>its calls in the history</a></p></> : <Loading />}</main>;
  const shared = { fn, reload, query };
  return (
    <main tabIndex={-1}>
      <div class="title">
        <h1><a class="up" href="#/">Functions</a> {title(fn)}</h1>
        <span class="about">{fn.version.lang} · version {fn.version.version} · <span class="id">{fn.id}</span></span>
      </div>
      {fn.version.settings.description && <p class="description">{fn.version.settings.description}</p>}
      {fn.version.settings.max_concurrency === 0 && <p class="trouble">The function is off: max_concurrency is 0.</p>}
      <nav class="tabs" aria-label="about the function">
        {Object.entries(tabs).map(([key, label]) => <a href={to(key ? ['f', name, key] : ['f', name])} aria-current={key === tab ? 'page' : undefined}>{label}</a>)}
      </nav>
      <Trouble error={error} />
      {tab === '' && <Overview {...shared} />}
      {tab === 'call' && <CallForm {...shared} />}
      {tab === 'code' && <Edit key={query.version} {...shared} />}
      {tab === 'logs' && <Logs about={{ function: fn.id }} />}
      {tab === 'versions' && <Versions {...shared} />}
      {tab === 'settings' && <Settings {...shared} />}
    </main>
  );
}

// allCalls reads calls of the history, up to so many pages. whole says whether those are
// all.
export async function allCalls(parameters, pages, signal) {
  const calls = [];
  let after, omitted = 0;
  for (let page = 0; page < pages; page++) {
    const answer = await askJSON('/api/calls' + ask({ limit: 1000, ...parameters, after }), { signal });
    calls.push(...answer.calls);
    omitted += answer.omitted || 0;
    after = answer.next;
    if (!after) return { calls, omitted, whole: true };
  }
  return { calls, omitted, whole: false };
}
