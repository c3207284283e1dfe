// A call: what it was, its timeline, its error in its code, its lines, what it cost.
import { askJSON, askText, query, ref } from '../api.js';
import { Code } from '../code.jsx';
import { CopyLine, Empty, FunctionLink, Loading, Marked, Outcome, Time, Trouble } from '../parts.jsx';
import { bytes, ms } from '../format.js';
import { nameOf, title } from '../functions.js';
import { to } from '../route.js';
import { useLoad } from '../use.js';
import { Logs } from './logs.jsx';

// load reads a call. The history is a moment behind, so a call that just ended is asked
// for a few times.
async function load(id, signal) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await askJSON('/api/calls/' + encodeURIComponent(id), { signal });
    } catch (error) {
      if (error.code !== 'unknown_call' || attempt >= 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

export function Call({ id }) {
  const { data: call, error } = useLoad((signal) => load(id, signal), [id]);
  if (!call) return <main tabIndex={-1}><h1>Call</h1>{error ? <><p class="id">{id}</p><Trouble error={error} /><p><a href="#/calls">All calls</a></p></> : <Loading />}</main>;
  return (
    <main tabIndex={-1}>
      <div class="title">
        <h1><a class="up" href="#/calls">Calls</a> {call.function ? <FunctionLink id={call.function} name={nameOf(call.function) || call.name} version={call.version} /> : 'a call'} <Outcome outcome={call.outcome} /></h1>
        <span class="about"><Time at={call.started} /> · <span class="id">{call.id}</span></span>
      </div>
      {call.error && <ErrorOf call={call} />}
      <Timeline call={call} />
      <div class="columns">
        <section class="card">
          <h2>Its log</h2>
          <Logs about={{ call: call.id, function: call.function }} once />
        </section>
        <Facts call={call} />
      </div>
      {call.function && <p class="tools"><a class="button" href={to(['f', call.function, 'call'])}>Call the function again</a><span class="faint">The history keeps no arguments.</span></p>}
      <CopyLine text={`curl ${quote(location.origin + '/api/calls/' + encodeURIComponent(call.id))}`} label="this record with curl" />
    </main>
  );
}

const quote = (text) => `'${text}'`;

function ErrorOf({ call }) {
  const { data: about } = useLoad((signal) => askJSON('/page/about.json', { signal }), []);
  const { data: found, error: unread } = useLoad(async (signal) => {
    if (!call.error.line || !call.version) return undefined;
    const version = await askJSON('/api/functions/' + ref(call.function, call.version), { signal });
    return { lang: version.version.lang, code: await askText('/api/cs/' + ref(call.function, call.version), { signal }) };
  }, [call.function, call.version]);
  const known = about?.errors.find((e) => e.code === call.outcome);
  const { error } = call;
  return (
    <section class="card failure">
      <h2>{error.type ? `${error.type}: ` : ''}{error.message}</h2>
      {known && <p class="faint"><Marked text={`${known.title}: ${known.when}. What to do: ${known.remedy}.`} /></p>}
      {found && <>
        <Code code={found.code} lang={found.lang} line={error.line} around={5} />
        <p><a href={to(['f', call.function, 'code'], { line: error.line, message: error.message, version: call.version })}>Open the code at line {error.line}</a></p>
      </>}
      {unread && <p class="faint">Its code is not there: {unread.message}</p>}
      {error.traceback && <details open={!found}><summary>Traceback</summary><pre class="result" tabIndex={0}>{error.traceback}</pre></details>}
    </section>
  );
}

// Timeline draws when the phases of the call were, and the calls of the same trace.
function Timeline({ call }) {
  const { data } = useLoad(async (signal) => (call.trace ? (await askJSON('/api/calls' + query({ trace: call.trace, limit: 200 }), { signal })).calls : []), [call.trace]);
  const rows = tree(call, data || []);
  const begin = Math.min(...rows.map((r) => Date.parse(r.call.started)));
  const length = Math.max(...rows.map((r) => Date.parse(r.call.started) - begin + r.call.timing.total), 0.001);
  return (
    <section class="card">
      <div class="cardhead"><h2>Timeline</h2><span class="faint legend"><i class="queue" /> queue <i class="start" /> start <i class="load" /> load <i class="run" /> run <i class="rest" /> sending</span></div>
      <div class="timeline" role="list">
        {rows.map(({ call: c, depth }) => (
          <div key={c.id + c.started} role="listitem" class={c.id === call.id && c.started === call.started ? 'step this' : 'step'}>
            <span class={`name depth${Math.min(depth, 6)}`}>
              {c.id === call.id ? title(c) : <a href={to(['call', c.id])}>{title(c)}</a>}
              {c.outcome !== 'ok' && <Outcome outcome={c.outcome} />}
            </span>
            <Bar call={c} from={(Date.parse(c.started) - begin) / length} scale={1 / length} />
            <span class="number">{ms(c.timing.total)}</span>
          </div>
        ))}
      </div>
      <p class="faint">queue {ms(call.timing.queue)} · start {ms(call.timing.start)}{call.timing.load ? `, of this ${ms(call.timing.load)} to load the code` : ''} · run {ms(call.timing.run)} · to the last byte {ms(call.timing.total)}</p>
      {call.trace && rows.length > 1 && <p class="faint">{rows.length} calls of one trace. <a href={to(['calls'], { trace: call.trace })}>List them</a></p>}
    </section>
  );
}

function Bar({ call, from, scale }) {
  const { queue, start, load = 0, run, total } = call.timing;
  const parts = [['queue', queue], ['start', start - load], ['load', load], ['run', run], ['rest', Math.max(0, total - queue - start - run)]];
  let at = from;
  return (
    <svg class="bar" viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" aria-label={parts.map(([k, v]) => `${k} ${ms(v)}`).join(', ')}>
      {parts.map(([kind, length]) => {
        const x = at * 1000, width = length * scale * 1000;
        at += length * scale;
        return width > 0 && <rect class={kind} x={x} y="1" width={Math.max(width, kind === 'run' ? 3 : 0)} height="12" rx="1" />;
      })}
    </svg>
  );
}

// tree orders the calls of a trace: below each call those that it made. Without spans it
// cannot be told who made whom, and they stand in order of time.
function tree(call, all) {
  if (!all.some((c) => c.id === call.id && c.started === call.started)) all = [...all, call];
  all = [...all].sort((a, b) => Date.parse(a.started) - Date.parse(b.started));
  const spans = new Set(all.map((c) => c.span).filter(Boolean));
  const rows = [], seen = new Set();
  const add = (c, depth) => {
    if (seen.has(c)) return;
    seen.add(c);
    rows.push({ call: c, depth });
    if (c.span) for (const below of all) if (below.parent === c.span) add(below, depth + 1);
  };
  for (const c of all) if (!c.parent || !spans.has(c.parent)) add(c, 0);
  for (const c of all) add(c, 0); // whatever a forged circle left
  return rows;
}

function Facts({ call }) {
  const usage = call.usage;
  const facts = [
    ['Function', call.function && <><FunctionLink id={call.function} name={call.name} version={call.version} />{call.alias ? ` by ${call.alias}` : ''}</>],
    ['Called', call.method && <code>{call.method} {call.path}</code>],
    ['Answered', call.status && `${call.status}, ${bytes(call.bytes_out)}`],
    ['Body', call.bytes_in > 0 && bytes(call.bytes_in)],
    ['Processor time', usage?.cpu !== undefined && ms(usage.cpu) + (usage.shared ? ', shared with other calls' : '')],
    ['Peak memory', usage?.memory !== undefined && bytes(usage.memory) + (usage.shared ? ', shared with other calls' : '')],
    ['Cold start', call.cold && 'yes: it waited for a sandbox'],
    ['Caller', <a href={to(['calls'], { caller: call.caller })}>{call.caller}</a>],
    ['Address', call.address],
    ['Sandbox', call.sandbox && <span class="id">{call.sandbox}</span>],
    ['Trace', call.trace && <a class="id" href={to(['calls'], { trace: call.trace })}>{call.trace}</a>],
  ];
  return (
    <section class="card">
      <h2>What is known of it</h2>
      <dl class="facts">{facts.filter(([, v]) => v).map(([k, v]) => <><dt>{k}</dt><dd>{v}</dd></>)}</dl>
      {!usage && <Empty>What it cost was not told.</Empty>}
    </section>
  );
}
