// What every program here shares: its one argument is JSON, it ends when its standard input does, and it speaks on
// standard output: a server says `ready {...}` once it listens, a client reports each case as one TAP line and the plan last.

import process from "node:process";

export const asked = JSON.parse(process.argv[2] ?? "{}");

// The one who started us holds the other end; it may be gone without having said so.
process.stdin.on("end", () => process.exit(0));
process.stdin.on("error", () => process.exit(0));
process.stdin.resume();

export function ready(facts) {
  process.stdout.write(`ready ${JSON.stringify(facts)}\n`);
}

/** Runs the cases one after the other, each within `patience` milliseconds. */
export async function report(cases, patience = 20_000) {
  let number = 0;
  for (const [name, run] of Object.entries(cases)) {
    number += 1;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`nothing within ${patience} ms`)), patience);
    });
    try {
      await Promise.race([run(), late]);
      process.stdout.write(`ok ${number} - ${name}\n`);
    } catch (error) {
      const why = `${error?.message ?? error}`.replaceAll("\n", " | ");
      process.stdout.write(`not ok ${number} - ${name}: ${why}\n`);
      if (error?.stack) process.stderr.write(`${error.stack}\n`);
    } finally {
      clearTimeout(timer);
    }
  }
  process.stdout.write(`1..${number}\n`, () => process.exit(0));
}
