// What happened in the last ten minutes, by function: the metrics, read every few seconds,
// and for the time before the page was opened the history of calls. A token that may not
// read the metrics, because it is for some functions, has the history alone.
import { signal } from '@preact/signals';
import { askJSON, askText, query } from './api.js';
import { parse } from './metrics.js';

export const frameLength = 5000; // in milliseconds
export const frameCount = 120;
export const minutes = (frameLength * frameCount) / 60000;

// A frame is what ended within five seconds: {number, by: Map(function's ID → tally)}. A
// tally has the calls by outcome, and how many ran for at most each of the bounds.
let frames = [];
let bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]; // in seconds
let counters; // by series, as they were last read
let read; // when that was

// tick changes whenever there is something new.
export const tick = signal(0);
// metrics is what was read last, or null as long as the token may not.
export const metrics = signal(undefined);
// trouble is why there are no figures, or empty.
export const trouble = signal('');

const numberOf = (time) => Math.floor(time / frameLength);

function tallyOf(number, id) {
  let frame = frames.find((f) => f.number === number);
  if (!frame) {
    frame = { number, by: new Map() };
    frames.push(frame);
  }
  let tally = frame.by.get(id);
  if (!tally) frame.by.set(id, (tally = { outcomes: {}, within: new Array(bounds.length).fill(0), ran: 0 }));
  return tally;
}

function forget(now) {
  frames = frames.filter((f) => f.number > numberOf(now) - frameCount);
}

// addCalls counts records of the history.
export function addCalls(calls) {
  for (const call of calls) {
    const tally = tallyOf(numberOf(Date.parse(call.started) + call.timing.total), call.function);
    tally.outcomes[call.outcome] = (tally.outcomes[call.outcome] || 0) + 1;
    if (!call.version) continue; // it did not run
    tally.ran++;
    bounds.forEach((bound, i) => {
      if (call.timing.run <= bound * 1000) tally.within[i]++;
    });
  }
}

// takeBounds takes over the bounds that the metrics have. Times that were counted by
// others, because no function had run yet, begin anew.
function takeBounds(all) {
  const runs = all.get('fob_call_run_seconds_bucket') || [];
  const theirs = [...new Set(runs.map((s) => Number(s.labels.le)))].filter(Number.isFinite).sort((a, b) => a - b);
  if (theirs.length === 0 || theirs.join() === bounds.join()) return;
  bounds = theirs;
  for (const frame of frames) for (const tally of frame.by.values()) Object.assign(tally, { within: new Array(bounds.length).fill(0), ran: 0 });
}

// addMetrics counts what the counters grew by since they were last read.
export function addMetrics(all, now) {
  takeBounds(all);
  const was = counters;
  counters = new Map();
  // What grew while the page slept is spread over that time.
  const from = read === undefined ? 0 : Math.max(numberOf(read) + 1, numberOf(now) - frameCount + 1);
  const count = Math.max(1, numberOf(now) - from + 1);
  const grow = (kind, sample, add) => {
    const key = kind + '\n' + Object.values(sample.labels).join('\n');
    counters.set(key, sample.value);
    if (!was || !sample.labels.function) return;
    const old = was.get(key) || 0;
    const grown = sample.value >= old ? sample.value - old : sample.value; // it began anew
    if (grown > 0) for (let n = 0; n < count; n++) add(tallyOf(numberOf(now) - n, sample.labels.function), grown / count);
  };
  for (const s of all.get('fob_calls_total') || []) grow('calls', s, (tally, n) => (tally.outcomes[s.labels.outcome] = (tally.outcomes[s.labels.outcome] || 0) + n));
  for (const s of all.get('fob_call_run_seconds_bucket') || []) {
    const at = bounds.indexOf(Number(s.labels.le));
    grow('run', s, (tally, n) => (s.labels.le === '+Inf' ? (tally.ran += n) : (tally.within[at] += n)));
  }
  read = now;
  forget(now);
}

// figures returns what a function, or several, did: {rate, calls, failed, p95 in ms, and
// for sparklines rates, errors and times}.
export function figures(ids, now = Date.now()) {
  const first = numberOf(now) - frameCount + 1;
  const points = frameCount / 2;
  const spark = { rates: new Array(points).fill(0), errors: new Array(points).fill(0), times: new Array(points).fill(null) };
  const within = new Array(points);
  const whole = { outcomes: {}, within: new Array(bounds.length).fill(0), ran: 0 };
  let calls = 0, failed = 0, lately = 0;
  for (const frame of frames) {
    const at = Math.floor((frame.number - first) / 2);
    if (at < 0 || at >= points) continue;
    for (const id of ids) {
      const tally = frame.by.get(id);
      if (!tally) continue;
      for (const [outcome, n] of Object.entries(tally.outcomes)) {
        calls += n;
        spark.rates[at] += n;
        if (outcome !== 'ok') {
          failed += n;
          spark.errors[at] += n;
        }
        whole.outcomes[outcome] = (whole.outcomes[outcome] || 0) + n;
        if (at >= points - 6) lately += n;
      }
      merge(whole, tally);
      within[at] = within[at] || { within: new Array(bounds.length).fill(0), ran: 0 };
      merge(within[at], tally);
    }
  }
  within.forEach((tally, at) => (spark.times[at] = quantile(tally, 0.95)));
  return { calls, failed, rate: lately / 60, share: calls ? failed / calls : 0, p95: quantile(whole, 0.95), outcomes: whole.outcomes, ...spark };
}

function merge(to, from) {
  to.ran += from.ran;
  for (let i = 0; i < bounds.length; i++) to.within[i] += from.within[i] || 0;
}

// quantile estimates a quantile of times, in milliseconds; null if there are none.
function quantile(tally, q) {
  if (!(tally.ran > 0)) return null;
  const rank = q * tally.ran;
  for (let i = 0; i < bounds.length; i++) {
    if (tally.within[i] < rank) continue;
    const below = i ? tally.within[i - 1] : 0, low = i ? bounds[i - 1] : 0;
    return 1000 * (low + ((bounds[i] - low) * (rank - below)) / (tally.within[i] - below || 1));
  }
  return 1000 * bounds[bounds.length - 1];
}

// outcomesOf returns, for each frame of a function, its calls by outcome.
export function outcomesOf(id, now = Date.now()) {
  const first = numberOf(now) - frameCount + 1;
  const all = Array.from({ length: frameCount }, (_, i) => ({ time: (first + i) * frameLength, outcomes: {} }));
  for (const frame of frames) {
    const tally = frame.by.get(id);
    if (tally && all[frame.number - first]) all[frame.number - first].outcomes = tally.outcomes;
  }
  return all;
}

// watch reads all of it again and again until the signal aborts.
export function watch(ends) {
  frames = [];
  counters = read = undefined;
  metrics.value = undefined;
  // recent counts the calls of the last minutes that were over at a time.
  const recent = async (until) => {
    let after;
    for (let page = 0; page < 3; page++) {
      const answer = await askJSON('/api/calls' + query({ since: `${minutes}m`, limit: 1000, after }), { signal: ends });
      addCalls(answer.calls.filter((c) => Date.parse(c.started) + c.timing.total < until));
      after = answer.next;
      if (!after) return;
    }
  };
  const round = async () => {
    const begun = performance.now(), time = Date.now();
    let text;
    try {
      text = await askText('/metrics', { signal: ends });
    } catch (error) {
      if (error.status !== 403) throw error;
    }
    const first = read === undefined;
    if (text === undefined) {
      frames = [];
      await recent(Infinity);
      metrics.value = null;
    } else {
      const all = parse(text);
      if (first) {
        takeBounds(all);
        await recent(time).catch(() => {}); // there may be no history; whatever else it is, the metrics will tell
      }
      addMetrics(all, time);
      metrics.value = all;
    }
    trouble.value = '';
    return performance.now() - begun;
  };
  const run = async () => {
    let took = 0;
    try {
      took = await round();
      tick.value++;
    } catch (error) {
      if (ends.aborted) return;
      trouble.value = error.message;
    }
    // A dispatcher with very many functions is asked less often.
    setTimeout(() => ends.aborted || run(), Math.max(frameLength, took * 10) * (document.hidden ? 3 : 1));
  };
  run();
}
