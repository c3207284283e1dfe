// Calls of all functions that match.
import { useEffect, useState } from 'preact/hooks';
import { askJSON, query as write } from '../api.js';
import { CallTable, Empty, Loading, Trouble } from '../parts.jsx';
import { functions, title } from '../functions.js';
import { go, to } from '../route.js';
import { useLoad } from '../use.js';

export function Calls({ query }) {
  const [draft, set] = useState(query);
  const key = JSON.stringify(query);
  useEffect(() => set(query), [key]);
  useEffect(() => {
    if (JSON.stringify(draft) === key) return;
    const timer = setTimeout(() => go(to(['calls'], draft), true), 300);
    return () => clearTimeout(timer);
  }, [draft]);
  const [pages, setPages] = useState([]); // the older ones
  useEffect(() => setPages([]), [key]);
  const { data, error } = useLoad((signal) => askJSON('/api/calls' + write({ limit: 100, ...query }), { signal }), [key], pages.length ? 0 : 5000);
  const [trouble, say] = useState();
  const next = pages.length ? pages[pages.length - 1].next : data?.next;
  const older = async () => {
    try {
      const page = await askJSON('/api/calls' + write({ limit: 100, ...query, after: next }));
      setPages((all) => [...all, page]);
    } catch (problem) {
      say(problem);
    }
  };
  const field = (name) => ({ value: draft[name] || '', onInput: (e) => set({ ...draft, [name]: e.target.value }) });
  const calls = data ? [...data.calls, ...pages.flatMap((p) => p.calls)] : [];
  return (
    <main tabIndex={-1}>
      <h1>Calls</h1>
      <div class="tools filters">
        <label>Function <input list="names" {...field('function')} placeholder="all" autocomplete="off" /></label>
        <datalist id="names">{(functions.value || []).map((fn) => <option value={fn.name || fn.id}>{title(fn)}</option>)}</datalist>
        <label>Outcome <select {...field('outcome')}><option value="">all</option><option value="failed">failed</option>{['ok', 'function_raised', 'timeout', 'bad_result', 'bad_arguments', 'sandbox_died', 'over_limit', 'no_capacity', 'cancelled'].map((o) => <option>{o}</option>)}
          {draft.outcome && !['failed', 'ok'].includes(draft.outcome) && <option hidden>{draft.outcome}</option>}</select></label>
        <label>Since <select {...field('since')}><option value="">ever</option><option value="10m">10 minutes</option><option value="1h">1 hour</option><option value="24h">24 hours</option><option value="168h">7 days</option></select></label>
        <label>Ran at least <input {...field('min_run')} placeholder="500ms" size={8} /></label>
        <label class="wide">Text <input type="search" {...field('text')} placeholder="anywhere in the record: an error, a path, an ID" /></label>
      </div>
      {(query.trace || query.caller || query.version) && <p class="faint">Only {['trace', 'caller', 'version'].filter((k) => query[k]).map((k) => `${k} ${query[k]}`).join(', ')}. <a href="#/calls">Show all</a></p>}
      <Trouble error={error || trouble} />
      {!data && !error && <Loading />}
      {data && calls.length === 0 && <Empty>No call matches. The history is a moment behind.</Empty>}
      {calls.length > 0 && <CallTable calls={calls} />}
      {data?.omitted > 0 && <p class="faint">{data.omitted} calls among these were sampled out.</p>}
      {next && <button type="button" onClick={older}>Older calls</button>}
    </main>
  );
}
