'use strict';
// What a call costs: the process's processor time and the most memory that it had resident meanwhile.

const fs = require('fs');

// Functions may replace these.
const { now } = Date;
const { resourceUsage } = process;
const { writeSync } = fs;
const MARGIN = 1 << 10; // KiB by which figures for the same memory may differ
const FRESH = 20; // milliseconds in which memory that did not grow is taken not to have shrunk either

/** Measures calls, which may run at the same time. */
class Costs {
  #running = 0;
  #begun = 0;
  #peak = -1; // the file whose writing lets the kernel forget the highest figure
  #due = 0; // when it must forget it again
  #least = Infinity; // figures up to here, in KiB, tell nothing

  /** Gets ready. kept is the set of the driver's own descriptors. */
  open(kept) {
    if (this.#peak >= 0) return;
    try {
      this.#peak = fs.openSync('/proc/self/clear_refs', 'w');
      this.#forget();
      kept.add(this.#peak);
      // The figure also counts what the process had before it became Node, which cannot be forgotten.
      const { maxRSS } = resourceUsage();
      const own = Number(/^VmHWM:\s*(\d+) kB$/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))[1]);
      if (this.#peak >= 0) this.#least = maxRSS > own + MARGIN ? maxRSS : 0;
    } catch { // the kernel does not tell
    }
  }

  #forget() {
    try {
      if (this.#peak >= 0) writeSync(this.#peak, '5');
    } catch { // the function has closed it after all
      this.#peak = -1;
      this.#least = Infinity;
    }
  }

  /** Begins to measure a call. Returns a function that ends it, and returns the text for Fob-Usage. */
  begin() {
    let shared = this.#running > 0;
    if (!shared) {
      // It costs a microsecond, and for short calls without much memory changes nothing.
      const time = now();
      if (time >= this.#due) {
        this.#forget();
        this.#due = time + FRESH;
      }
    }
    this.#running++;
    const begun = ++this.#begun;
    const before = resourceUsage();
    return () => {
      this.#running--;
      shared ||= begun !== this.#begun;
      const { userCPUTime, systemCPUTime, maxRSS } = resourceUsage();
      if (maxRSS > before.maxRSS + MARGIN) this.#due = 0;
      const cpu = userCPUTime + systemCPUTime - before.userCPUTime - before.systemCPUTime;
      return `cpu=${cpu}${maxRSS > this.#least ? `; peak=${maxRSS * 1024}` : ''}${shared ? '; shared' : ''}`;
    };
  }
}

module.exports = { Costs };
