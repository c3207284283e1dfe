// An ES module: import, top-level await and export.
// curl "$FOB/api/call/$ID?bytes=8"
import { randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';

const started = await setTimeout(1, new Date());

export async function callme(bytes = 16) {
  return { started, random: randomBytes(Number(bytes)).toString('hex') };
}
