// How many sandboxes each function has and wants, as the metrics say.
import { effect } from '@preact/signals';
import { frameCount, metrics } from './traffic.js';

let history = new Map(); // by function: the last values, the newest last
let rounds = 0;

effect(() => {
  const all = metrics.value;
  if (!all) {
    history = new Map();
    rounds = 0;
    return;
  }
  rounds++;
  const now = new Map();
  const of = (id) => now.get(id) || now.set(id, { have: 0, wanted: undefined }).get(id);
  for (const s of all.get('fob_scaler_sandboxes') || []) of(s.labels.function).have += s.value;
  for (const s of all.get('fob_scaler_wanted_sandboxes') || []) of(s.labels.function).wanted = (of(s.labels.function).wanted || 0) + s.value;
  for (const id of new Set([...history.keys(), ...now.keys()])) {
    const old = history.get(id) || new Array(Math.min(rounds - 1, frameCount - 1)).fill({ have: 0 });
    const kept = [...old, now.get(id) || { have: 0, wanted: 0 }].slice(-frameCount);
    if (kept.some((v) => v.have || v.wanted)) history.set(id, kept);
    else history.delete(id);
  }
});

// sandboxesOf returns what several functions have together: {have, wanted, history,
// wishes}; undefined if the metrics do not tell.
export function sandboxesOf(...ids) {
  if (!metrics.value?.has('fob_scaler_sandboxes')) return undefined;
  const have = new Array(frameCount).fill(null), wanted = new Array(frameCount).fill(null);
  for (const id of ids) {
    const values = history.get(id) || new Array(Math.min(rounds, frameCount)).fill({ have: 0, wanted: 0 });
    values.forEach((v, i) => {
      const at = frameCount - values.length + i;
      have[at] = (have[at] || 0) + v.have;
      if (v.wanted !== undefined) wanted[at] = (wanted[at] || 0) + v.wanted;
    });
  }
  return { have: have[frameCount - 1], wanted: wanted[frameCount - 1], history: have, wishes: wanted };
}

// reasonOf returns why the scaler wants so many sandboxes of a function, or why there are
// fewer; empty if the metrics do not tell.
export function reasonOf(id) {
  const found = (metrics.value?.get('fob_scaler_reason') || []).find((s) => s.labels.function === id);
  return found ? found.labels.reason.replaceAll('_', ' ') : '';
}
