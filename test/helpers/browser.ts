// A headless Chromium over the DevTools protocol, with nothing between: what a page asks for,
// complains of and shows.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

type Json = Record<string, any>;

/** The browser's program; undefined where there is none. */
export const findChromium = (): string | undefined =>
  ['chromium', 'chromium-browser', 'google-chrome'].find(
    (name) => spawnSync('sh', ['-c', `command -v ${name}`]).status === 0,
  );

export interface Page {
  /** Every URL that the page asked for. */
  readonly requested: readonly string[];
  /**
   * Violations of its policy, errors and warnings of its console, exceptions, loads that failed.
   */
  readonly complaints: readonly string[];
  open(url: string): Promise<void>;
  /** The value of an expression in the page. */
  evaluate(expression: string): Promise<unknown>;
  /** A picture of the page, as PNG. */
  picture(): Promise<Buffer>;
}

const answerTimeoutMs = 30_000;
const reportViolations =
  'addEventListener("securitypolicyviolation", (event) => { console.error("policy: " + event.violatedDirective + " " + event.blockedURI); }, true);';

/**
 * Starts a browser with an empty page. It can reach 127.0.0.1 and nothing else, and ends with this
 * process.
 */
export async function openPage(
  t: { teardown(action: () => unknown): unknown },
  chromium: string,
): Promise<Page> {
  const profile = mkdtempSync(join(tmpdir(), 'vault-browser-'));
  const child = spawn(
    chromium,
    [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-proxy-server',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
      '--remote-debugging-pipe',
      '--window-size=1280,1800',
      `--user-data-dir=${profile}`,
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] },
  );
  let errors = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    errors = (errors + chunk.toString()).slice(-2_000);
  });
  const [, , , input, output] = child.stdio as unknown as [
    null,
    null,
    Readable,
    Writable,
    Readable,
  ];
  const protocol = new Protocol(input, output);
  const ended = new Promise<void>((resolve) => {
    child.once('error', () => {
      resolve();
    });
    child.once('close', () => {
      resolve();
    });
  });
  void ended.then(() => {
    protocol.fail(new Error(`the browser ended: ${errors}`));
  });
  t.teardown(async () => {
    input.end(); // it ends with its pipe
    const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
    await ended;
    clearTimeout(timer);
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  const { targetInfos } = await protocol.send('Target.getTargets');
  const { targetId } = (targetInfos as Json[]).find(({ type }) => type === 'page') as Json;
  const { sessionId } = await protocol.send('Target.attachToTarget', { targetId, flatten: true });
  return drive(protocol, sessionId as string);
}

/** The DevTools protocol over a pair of pipes: JSON, each message ended by a zero byte. */
class Protocol {
  readonly #input: Writable;
  readonly #waiting = new Map<
    number,
    { resolve: (result: Json) => void; reject: (error: Error) => void }
  >();
  #last = 0;
  onEvent: (method: string, params: Json) => void = () => undefined;

  constructor(input: Writable, output: Readable) {
    this.#input = input;
    input.on('error', () => undefined); // the end of the browser says it
    let pending = '';
    output.setEncoding('utf8').on('data', (chunk: string) => {
      const messages = (pending + chunk).split('\0');
      pending = messages.pop() ?? '';
      for (const message of messages) this.#take(JSON.parse(message) as Json);
    });
  }

  send(method: string, params: Json = {}, sessionId?: string): Promise<Json> {
    this.#last += 1;
    const id = this.#last;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`the browser does not answer ${method}`));
      }, answerTimeoutMs);
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer);
          then(value);
        };
      this.#waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
      this.#input.write(
        `${JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) })}\0`,
      );
    });
  }

  fail(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #take({ id, result, error, method, params }: Json): void {
    if (id === undefined) {
      this.onEvent(method as string, params as Json);
      return;
    }
    const call = this.#waiting.get(id as number);
    this.#waiting.delete(id as number);
    if (error === undefined) call?.resolve(result as Json);
    else call?.reject(new Error(error.message));
  }
}

async function drive(protocol: Protocol, session: string): Promise<Page> {
  const requested: string[] = [];
  const complaints: string[] = [];
  const send = (method: string, params?: Json): Promise<Json> =>
    protocol.send(method, params, session);
  protocol.onEvent = (method, params) => {
    if (method === 'Network.requestWillBeSent') requested.push(params['request'].url);
    const complaint = complaintOf(method, params);
    if (complaint !== undefined) complaints.push(complaint);
  };
  for (const domain of ['Page', 'Network', 'Runtime', 'Log']) await send(`${domain}.enable`);
  await send('Page.addScriptToEvaluateOnNewDocument', { source: reportViolations });
  return {
    requested,
    complaints,
    open: async (address) => {
      const { errorText } = await send('Page.navigate', { url: address });
      if (errorText !== undefined) throw new Error(`${address}: ${errorText}`);
    },
    evaluate: async (expression) => {
      const { result, exceptionDetails } = await send('Runtime.evaluate', {
        expression,
        returnByValue: true,
        awaitPromise: true,
      });
      if (exceptionDetails !== undefined)
        throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    },
    picture: async () =>
      Buffer.from(
        (await send('Page.captureScreenshot', { format: 'png' }))['data'] as string,
        'base64',
      ),
  };
}

function complaintOf(method: string, params: Json): string | undefined {
  if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params['entry'].level))
    return `log: ${params['entry'].text} ${params['entry'].url ?? ''}`;
  if (
    method === 'Runtime.consoleAPICalled' &&
    ['error', 'warning', 'assert'].includes(params['type'])
  )
    return `console: ${(params['args'] as Json[]).map((each) => each['value'] ?? each['description']).join(' ')}`;
  if (method === 'Runtime.exceptionThrown')
    return `exception: ${params['exceptionDetails'].exception?.description ?? params['exceptionDetails'].text}`;
  if (method === 'Network.loadingFailed')
    return `failed: ${params['type']} ${params['errorText']} ${params['blockedReason'] ?? ''}`;
  if (method === 'Network.responseReceived' && params['response'].status >= 400)
    return `status: ${params['response'].status} ${params['response'].url}`;
  return undefined;
}
