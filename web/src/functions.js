// All functions that the token may read, kept up to date.
import { signal } from '@preact/signals';
import { askJSON, query } from './api.js';

// functions is the list in order of creation, or undefined before it is there.
export const functions = signal(undefined);
// failure is why the list could not be read, or undefined.
export const failure = signal(undefined);

export async function loadFunctions(ends) {
  try {
    const all = [];
    let after;
    do {
      const page = await askJSON('/api/functions' + query({ limit: 1000, after }), { signal: ends });
      all.push(...page.functions);
      after = page.next;
    } while (after);
    functions.value = all;
    failure.value = undefined;
  } catch (error) {
    if (error.name !== 'AbortError') failure.value = error;
  }
}

// watchFunctions reads the list again and again until the signal aborts.
export function watchFunctions(ends) {
  const run = async () => {
    await loadFunctions(ends);
    setTimeout(() => ends.aborted || run(), 15000);
  };
  run();
}

// title is a function's name, or the beginning of its ID.
export function title(fn) {
  return fn.name || (fn.id || fn.function || '').slice(0, 8) || '?';
}

// nameOf returns what a function with that ID is called now.
export function nameOf(id) {
  const fn = (functions.value || []).find((f) => f.id === id);
  return fn ? title(fn) : '';
}
