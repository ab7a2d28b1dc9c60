// What looking for a secret costs a call: compiled anew for each, as where nothing is shared, and
// shared by the calls with one version. CPU time and memory, so that company on the machine counts
// less. Needs `--expose-gc`: `npm run bench:redaction`.
import { randomBytes } from 'node:crypto';
import { Redactor } from '../src/broker/redaction/redactor.ts';
import { Sought } from '../src/broker/redaction/sought.ts';

const collect = (globalThis as { gc?: () => void }).gc ?? ((): void => undefined);
const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};
const held = (): number => {
  collect();
  const { arrayBuffers, heapUsed } = process.memoryUsage();
  return arrayBuffers + heapUsed;
};

const headers = [
  'application/json; charset=utf-8',
  'max-age=3600, private',
  'Mon, 30 Nov 2026 10:00:00 GMT',
  'req_0123456789abcdef0123456789abcdef',
  '1199',
  'nosniff',
  '104ms',
];
const text = 'Hello there, this is some text\n and "more" of it, as a model writes. ';
const completion = Buffer.from(
  JSON.stringify({ choices: [{ message: { content: text.repeat(28) } }] }),
);
const bodies: Readonly<Record<string, Buffer>> = {
  completions: Buffer.from(
    JSON.stringify({ choices: [{ message: { content: text.repeat(900) } }] }),
  ),
  'escaped as ASCII': Buffer.from(`{"text":"${'\\u4f60\\u597d\\uff0c'.repeat(3_500)}"}`),
  base64: Buffer.from(randomBytes(48_000).toString('base64')),
  binary: randomBytes(65_536),
  pages: Buffer.from(
    '<div class="a"><a href="/x?y=z&amp;b=c">text &nbsp; more</a></div>\n'.repeat(1_000),
  ),
};
const secretOf = (size: number): string => randomBytes(size).toString('base64url').slice(0, size);

function answer(redactor: Redactor, body: Buffer): void {
  for (const header of headers) redactor.text(header);
  const stream = redactor.stream();
  for (let at = 0; at < body.length; at += 16_384) stream.push(body.subarray(at, at + 16_384));
  stream.end();
}

function perCall(make: () => Redactor, rounds: number): { ms: number; bytes: number } {
  for (let i = 0; i < rounds; i += 1) answer(make(), completion);
  const kept: Redactor[] = [];
  const [before, startedAt] = [held(), cpuMs()];
  for (let i = 0; i < rounds; i += 1) {
    const redactor = make();
    answer(redactor, completion);
    kept.push(redactor);
  }
  const ms = (cpuMs() - startedAt) / rounds;
  return { ms, bytes: Math.max(0, held() - before) / kept.length };
}

console.log('a call: seven headers and a completion of 2 KB');
for (const size of [51, 1_024, 8_192]) {
  const secret = secretOf(size);
  const sought = Sought.of([secret]);
  const anew = perCall(() => new Redactor([secret]), size > 1_024 ? 40 : 400);
  const shared = perCall(() => new Redactor([], [sought]), 2_000);
  const show = ({ ms, bytes }: { ms: number; bytes: number }): string =>
    `${ms.toFixed(3)} ms, ${(bytes / 1024).toFixed(1)} KiB`;
  console.log(
    `  secret of ${size} bytes: anew ${show(anew)}; shared ${show(shared)}; kept once ${(sought.byteLength / 1024).toFixed(0)} KiB`,
  );
}
console.log('a body, searched for a secret of 51 bytes');
const sought = Sought.of([secretOf(51)]);
for (const [name, body] of Object.entries(bodies)) {
  const rounds = 60;
  for (let i = 0; i < rounds; i += 1) answer(new Redactor([], [sought]), body);
  const startedAt = cpuMs();
  for (let i = 0; i < rounds; i += 1) answer(new Redactor([], [sought]), body);
  const seconds = (cpuMs() - startedAt) / 1000;
  console.log(`  ${name}: ${((body.length * rounds) / seconds / 1e6).toFixed(0)} MB/s`);
}
