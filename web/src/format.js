// How the page writes numbers, times and sizes.

// ms writes milliseconds with about three digits, in the unit that fits.
export function ms(n) {
  if (n === undefined || n === null || Number.isNaN(n)) return '–';
  if (n === 0) return '0 ms';
  if (n < 1) return (n * 1000).toFixed(0) + ' µs';
  if (n < 1000) return digits(n) + ' ms';
  if (n < 60000) return digits(n / 1000) + ' s';
  return digits(n / 60000) + ' min';
}

export function bytes(n) {
  if (n === undefined || n === null || Number.isNaN(n)) return '–';
  for (const unit of ['B', 'KB', 'MB']) {
    if (n < 1024) return digits(n) + ' ' + unit;
    n /= 1024;
  }
  return digits(n) + ' GB';
}

// digits writes a number with at most three digits that matter.
export function digits(n) {
  if (n === undefined || n === null) return '–';
  if (n >= 100 || Number.isInteger(n)) return Math.round(n).toLocaleString('en');
  return Number(n.toPrecision(n < 1 ? 2 : 3)).toString();
}

export function rate(n) {
  if (!n) return '0/s';
  return n < 0.1 ? digits(n * 60) + '/min' : digits(n) + '/s';
}

export function percent(share) {
  if (!share) return '0 %';
  return share < 0.001 ? '<0.1 %' : digits(share * 100) + ' %';
}

// clock writes the time of day, and the day unless it is today.
export function clock(text) {
  const time = new Date(text);
  const day = time.toDateString() === new Date().toDateString() ? '' : time.toLocaleDateString('sv') + ' ';
  return day + time.toLocaleTimeString('sv');
}

// ago writes how long ago a time was.
export function ago(text) {
  const seconds = (Date.now() - new Date(text)) / 1000;
  if (seconds < 5) return 'just now';
  for (const [unit, length, most] of [['s', 1, 90], ['min', 60, 90], ['h', 3600, 36]]) {
    if (seconds / length < most) return Math.round(seconds / length) + ' ' + unit + ' ago';
  }
  return Math.round(seconds / 86400) + ' days ago';
}

export function plural(n, one, many = one + 's') {
  return n.toLocaleString('en') + ' ' + (n === 1 ? one : many);
}
