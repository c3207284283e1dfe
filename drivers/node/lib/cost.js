'use strict';
// What a call costs: the process's processor time and the most memory that it had resident meanwhile.

const fs = require('fs');

// Functions may replace these.
const now = performance.now.bind(performance);
const { resourceUsage } = process;
const { writeSync } = fs;
// A system call more is a tenth of a short call's time.
const SHORT = 0.1; // milliseconds: a call that took less is said to have used the processor all the time
const RECENT = 1; // milliseconds for which figures stand for those at the next call's beginning
const MARGIN = 1 << 10; // KiB by which figures for the same memory may differ
const FRESH = 20; // milliseconds in which memory that did not grow is taken not to have shrunk either

/** Measures calls, which may run at the same time. */
class Costs {
  #running = 0;
  #begun = 0;
  #peak = -1; // the file whose writing lets the kernel forget the highest figure
  #due = 0; // when it must forget it again
  #base = Infinity; // KiB of the highest figure when it was forgotten
  #grown = false; // much was added to it since
  #least = Infinity; // figures up to here, in KiB, tell nothing
  #seen = -Infinity; // when the figures were looked up
  #cpu = 0; // microseconds that the process had used by then
  #memory = ''; // the text that says the highest figure

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
      if (this.#peak < 0) return;
      writeSync(this.#peak, '5');
      this.#base = resourceUsage().maxRSS;
    } catch { // the function has closed it after all
      this.#peak = -1;
      this.#base = this.#least = Infinity;
    }
  }

  #look(time) {
    const { userCPUTime, systemCPUTime, maxRSS } = resourceUsage();
    this.#seen = time;
    this.#cpu = userCPUTime + systemCPUTime;
    this.#grown = maxRSS > this.#base + MARGIN;
    this.#memory = maxRSS > this.#least ? `; peak=${maxRSS * 1024}` : '';
  }

  /** Begins to measure a call. Returns a function that ends it, and returns the text for Fob-Usage. */
  begin() {
    const time = now();
    const shared = this.#running > 0;
    if (time > this.#seen + RECENT || (this.#grown && !shared)) {
      if (!shared && (this.#grown || time >= this.#due)) {
        this.#forget();
        this.#due = time + FRESH;
      }
      this.#look(time);
    }
    this.#running++;
    const begun = ++this.#begun;
    const before = this.#cpu;
    return () => {
      this.#running--;
      const end = now();
      const short = end < time + SHORT;
      if (!short) this.#look(end);
      const cpu = short ? Math.floor((end - time) * 1000) : this.#cpu - before;
      return `cpu=${cpu}${this.#memory}${shared || begun !== this.#begun ? '; shared' : ''}`;
    };
  }
}

module.exports = { Costs };
