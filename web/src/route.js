// The address of a view is the part behind #, such as #/f/hello/code?version=2.
import { signal } from '@preact/signals';

export const route = signal(read());

function read() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').filter(Boolean).map(decode);
  return { parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // somebody typed it
  }
}

addEventListener('hashchange', () => {
  const before = route.value;
  route.value = read();
  if (before.parts.join('/') !== route.value.parts.join('/')) scrollTo(0, 0);
});

// to writes an address: to(['f', name], {tab: 'code'}).
export function to(parts, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== '' && value !== undefined);
  return '#/' + parts.map(encodeURIComponent).join('/') + (given.length ? '?' + new URLSearchParams(given) : '');
}

export function go(address, replace) {
  if (replace) {
    history.replaceState(null, '', address);
    route.value = read();
  } else {
    location.hash = address;
  }
}
