// The versions of a function, and what changed between two of them.
import { useState } from 'preact/hooks';
import { askJSON, askText, query as write, ref } from '../api.js';
import { Pieces } from '../code.jsx';
import { diff } from '../diff.js';
import { highlight } from '../highlight.js';
import { Loading, Time, Trouble } from '../parts.jsx';
import { bytes } from '../format.js';
import { go, to } from '../route.js';
import { useLoad } from '../use.js';

export function Versions({ fn, query, reload }) {
  const { data, error } = useLoad((signal) => askJSON(`/api/functions/${ref(fn.id)}/versions` + write({ limit: 200 }), { signal }), [fn.id, fn.version.version]);
  const [state, say] = useState({});
  if (!data) return error ? <Trouble error={error} /> : <Loading />;
  const all = data.versions;
  const right = Number(query.right) || all[0].version, left = Number(query.left) || (all.find((v) => v.version < right) || all[0]).version;
  const choose = (side, version) => go(to(['f', fn.name || fn.id, 'versions'], { left, right, [side]: version }), true);
  const restore = async (version) => {
    say({ busy: true });
    try {
      const code = await askText('/api/cs/' + ref(fn.id, version.version));
      // Every setting is named, so that those of the live version do not stay.
      const answer = await askJSON('/api/functions/' + ref(fn.id), { method: 'PUT', body: JSON.stringify({ code, lang: version.lang, ...version.settings }) });
      say({ done: answer.changed ? `Version ${answer.version.version} is live; it is what version ${version.version} was.` : `The live version is the same as version ${version.version}.` });
      reload();
    } catch (problem) {
      say({ problem });
    }
  };
  return (
    <>
      <div class="scroll card">
        <table>
          <thead><tr><th>Left</th><th>Right</th><th>Version</th><th>Made</th><th class="number">Code</th><th /></tr></thead>
          <tbody>
            {all.map((v) => (
              <tr key={v.version}>
                <td><input type="radio" name="left" checked={v.version === left} onChange={() => choose('left', v.version)} aria-label={`version ${v.version} on the left`} /></td>
                <td><input type="radio" name="right" checked={v.version === right} onChange={() => choose('right', v.version)} aria-label={`version ${v.version} on the right`} /></td>
                <td>{v.version} {v.version === fn.aliases.live && <span class="badge good">live</span>}</td>
                <td class="nowrap"><Time at={v.created} /></td>
                <td class="number nowrap">{bytes(v.size)}</td>
                <td class="nowrap"><a href={to(['f', fn.name || fn.id, 'code'], { version: v.version })}>Code</a> · <a href={to(['calls'], { function: fn.name || fn.id, version: v.version, outcome: 'failed' })}>Failures</a>
                  {v.version !== fn.aliases.live && <> · <button type="button" class="link" disabled={state.busy} onClick={() => restore(v)}>Make live again</button></>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p role="status" class="good">{state.done}</p>
      <Trouble error={state.problem} />
      {data.next && <p class="faint">There are older ones, too.</p>}
      {left !== right && <Difference fn={fn} left={all.find((v) => v.version === left)} right={all.find((v) => v.version === right)} />}
    </>
  );
}

function Difference({ fn, left, right }) {
  const { data, error } = useLoad(async (signal) => (left && right ? Promise.all([left, right].map((v) => askText('/api/cs/' + ref(fn.id, v.version), { signal }))) : undefined), [left?.version, right?.version]);
  if (!left || !right) return null;
  const settings = Object.keys(right.settings).filter((name) => JSON.stringify(left.settings[name]) !== JSON.stringify(right.settings[name]));
  return (
    <section class="card">
      <h2>From version {left.version} to version {right.version}</h2>
      <Trouble error={error} />
      {settings.length > 0 && (
        <table class="settingsdiff">
          <thead><tr><th>Setting</th><th>Version {left.version}</th><th>Version {right.version}</th></tr></thead>
          <tbody>{settings.map((name) => <tr><td><code>{name}</code></td><td class="gone">{show(left.settings[name])}</td><td class="come">{show(right.settings[name])}</td></tr>)}</tbody>
        </table>
      )}
      {settings.length === 0 && <p class="faint">The settings are the same.</p>}
      {data && (data[0] === data[1] ? <p class="faint">The code is the same.</p> : <Sides rows={diff(data[0], data[1])} langs={[left.lang, right.lang]} codes={data} />)}
    </section>
  );
}

export function show(value) {
  return typeof value === 'string' ? value || '–' : JSON.stringify(value);
}

// context is how many lines are shown around a change.
const context = 3;

function Sides({ rows, langs, codes }) {
  const near = rows.map((_, i) => rows.slice(Math.max(0, i - context), i + context + 1).some((r) => !r.same));
  const painted = codes.map((code, i) => highlight(code, langs[i]));
  const side = (line, i, kind) => [<td class="gutter">{line?.number}</td>, <td class={'text ' + (line ? kind : 'nothing')}>{line && <Pieces pieces={painted[i][line.number - 1] || []} />}</td>];
  return (
    <div class="scroll">
      <table class="sides">
        <tbody>
          {rows.map((row, i) => (near[i] ? <tr>{side(row.left, 0, row.same ? '' : 'gone')}{side(row.right, 1, row.same ? '' : 'come')}</tr> : (i === 0 || near[i - 1]) && <tr class="fold"><td colSpan={4}>⋯</td></tr>))}
        </tbody>
      </table>
    </div>
  );
}
