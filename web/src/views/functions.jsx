// All functions: what each did in the last minutes.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { Empty, Loading, Sparkline, Trouble } from '../parts.jsx';
import { failure, functions, title } from '../functions.js';
import { ms, percent, plural, rate } from '../format.js';
import { sandboxesOf } from '../sandboxes.js';
import { go, route, to } from '../route.js';
import { figures, minutes, tick, trouble } from '../traffic.js';

const columns = [
  { key: 'name', title: 'Name' },
  { key: 'rate', title: 'Rate', doc: 'calls in the last minute' },
  { key: 'share', title: 'Errors', doc: `failed calls in the last ${minutes} minutes` },
  { key: 'p95', title: 'p95', doc: 'time that 95 % of the calls ran for at most' },
  { key: 'sandboxes', title: 'Sandboxes', doc: 'that have it loaded' },
];

// step is how many rows are added whenever the last one comes into view.
const step = 60;

export function Functions() {
  const { query } = route.value;
  const search = query.q || '', sort = query.sort || 'name', grouped = query.group === '1', down = query.down === '1';
  const change = (more) => go(to([], { ...query, ...more }), true);
  const now = tick.value, all = functions.value;
  const rows = useMemo(() => (all || []).map((fn) => ({ fn, name: title(fn), ...figures([fn.id]), sandboxes: sandboxesOf(fn.id) })), [all, now]);
  const shown = useMemo(() => {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter(({ fn }) => {
      const text = `${fn.name || ''} ${fn.id} ${fn.version.lang} ${fn.version.settings.description}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const sign = down ? -1 : 1;
    return found.sort((a, b) => sign * (sort === 'name' ? a.name.localeCompare(b.name) : figure(a, sort) - figure(b, sort)) || a.name.localeCompare(b.name));
  }, [rows, search, sort, down]);
  if (failure.value && !all) return <main><h1>Functions</h1><Trouble error={failure.value} /></main>;
  if (!all) return <main><h1>Functions</h1><Loading /></main>;
  return (
    <main tabIndex={-1}>
      <div class="title">
        <h1>Functions <span class="count">{shown.length === all.length ? all.length : `${shown.length} of ${all.length}`}</span></h1>
        <a class="button primary" href="#/new">New function</a>
      </div>
      {all.length === 0 ? <First /> : (
        <>
          <div class="tools">
            <input type="search" value={search} onInput={(e) => change({ q: e.target.value })} placeholder="Search by name, language or description" aria-label="Search functions" />
            <label class="check"><input type="checkbox" checked={grouped} onChange={(e) => change({ group: e.target.checked ? '1' : '' })} /> Group by prefix</label>
            <label class="onlysmall">Sort by <select value={sort} onChange={(e) => change({ sort: e.target.value, down: e.target.value === 'name' ? '' : '1' })}>{columns.map((c) => <option value={c.key}>{c.title}</option>)}</select></label>
          </div>
          {trouble.value && <p class="trouble">No figures: {trouble.value}</p>}
          {shown.length === 0 ? <Empty>No function matches “{search}”.</Empty> : <Table rows={shown} grouped={grouped} sort={sort} down={down} change={change} key={search + sort + down + grouped} />}
          <p class="faint">Curves show the last {minutes} minutes. <a href={to(['calls'], { outcome: 'failed', since: '1h' })}>All failures of the last hour</a></p>
        </>
      )}
    </main>
  );
}

// figure is what a row is sorted by.
function figure(row, key) {
  return (key === 'sandboxes' ? row.sandboxes?.have : row[key]) ?? -1;
}

function Table({ rows, grouped, sort, down, change }) {
  const [limit, more] = useState(step);
  const end = useRef();
  useEffect(() => {
    if (!end.current) return;
    const observer = new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && more((n) => n + step), { rootMargin: '800px' });
    observer.observe(end.current);
    return () => observer.disconnect();
  }, [limit]);
  const body = grouped ? groups(rows) : rows.map((row) => ({ row }));
  return (
    <>
      <table class="functions">
        <thead>
          <tr>
            {columns.filter((c) => c.key !== 'sandboxes' || rows[0].sandboxes).map((c) => (
              <th class={c.key === 'name' ? '' : 'figure'} aria-sort={sort === c.key ? (down ? 'descending' : 'ascending') : undefined}>
                <button type="button" title={c.doc} onClick={() => change({ sort: c.key, down: sort === c.key ? (down ? '' : '1') : c.key === 'name' ? '' : '1' })}>
                  {c.title}<span aria-hidden="true">{sort === c.key ? (down ? ' ↓' : ' ↑') : ''}</span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{body.slice(0, limit).map((item) => (item.group ? <Group key={'group ' + item.group} {...item} /> : <Row key={item.row.fn.id} row={item.row} indent={grouped && item.within} />))}</tbody>
      </table>
      {body.length > limit && <div ref={end} class="empty">{plural(body.length - limit, 'more row')}…</div>}
    </>
  );
}

function Row({ row, indent }) {
  const { fn, name } = row;
  const off = fn.version.settings.max_concurrency === 0;
  return (
    <tr>
      <th scope="row" class={indent ? 'indent' : ''}>
        <a href={to(['f', fn.name || fn.id])}>{name}</a>
        <span class="about">{fn.version.lang} · version {fn.version.version}{off ? ' · off' : ''}{fn.version.settings.description ? ' · ' + fn.version.settings.description : ''}</span>
      </th>
      <Figures row={row} />
    </tr>
  );
}

function Figures({ row }) {
  return (
    <>
      <td class="figure" data-title="Rate"><Sparkline kind="rates" values={row.rates} label={`${row.calls ? Math.round(row.calls) : 'no'} calls`} /><span>{rate(row.rate)}</span></td>
      <td class="figure" data-title="Errors"><Sparkline kind="errors" values={row.errors} label={`${Math.round(row.failed)} failed`} /><span class={row.failed ? 'bad' : ''}>{percent(row.share)}</span></td>
      <td class="figure" data-title="p95"><Sparkline kind="times" values={row.times} label="p95 over time" /><span>{row.p95 === null ? '–' : ms(row.p95)}</span></td>
      {row.sandboxes && <td class="figure" data-title="Sandboxes"><Sparkline kind="boxes" values={row.sandboxes.history} label="sandboxes over time" /><span>{row.sandboxes.have}</span></td>}
    </>
  );
}

// groups puts rows whose names have the same prefix under a row for all of them.
function groups(rows) {
  const by = new Map();
  for (const row of rows) {
    const prefix = /^[^-_.]+(?=[-_.])/.exec(row.fn.name || '')?.[0] || '';
    if (!by.has(prefix)) by.set(prefix, []);
    by.get(prefix).push(row);
  }
  const body = [];
  for (const [group, members] of by) {
    if (group && members.length > 1) body.push({ group, members }, ...members.map((row) => ({ row, within: true })));
    else body.push(...members.map((row) => ({ row })));
  }
  return body;
}

function Group({ group, members }) {
  const sum = figures(members.map((m) => m.fn.id));
  return (
    <tr class="group">
      <th scope="row">{group} <span class="count">{members.length}</span></th>
      <Figures row={{ ...sum, sandboxes: sandboxesOf(...members.map((m) => m.fn.id)) }} />
    </tr>
  );
}

function First() {
  return (
    <div class="card stack first">
      <p>There are no functions yet. Write one here, or send one with curl:</p>
      <pre>{`echo 'def callme(name="you"): return f"Hello {name}"' |\n  curl -X PUT --data-binary @- ${location.origin}/api/functions/hello`}</pre>
      <p><a class="button primary" href="#/new">Write the first function</a></p>
    </div>
  );
}
