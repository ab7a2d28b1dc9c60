// Documents whose addresses stand in the configuration: fetched as everything is that is dialled,
// but from wherever the configuration says, private addresses included.
import type { Answer } from './exchange.ts';
import { Egress } from './egress.ts';

/** For how long an answer is waited, and how large it may be. */
export interface DocumentBounds {
  readonly timeoutMs: number;
  readonly bytesMax: number;
}

/** Fetches documents; each set of authorities has connections of its own. */
export class ConfiguredDocuments {
  readonly #ca: string | undefined;
  readonly #bounds: DocumentBounds;
  readonly #doors = new Map<string | undefined, Egress>();

  /** `ca`: authorities that count for every document beside the usual ones. */
  constructor(ca: string | undefined, bounds: DocumentBounds) {
    this.#ca = ca;
    this.#bounds = bounds;
  }

  /** What fetches documents for which these authorities count too. */
  for(ca: string | undefined): (url: string) => Promise<Answer> {
    const { timeoutMs, bytesMax } = this.#bounds;
    const door = this.#doors.get(ca) ?? this.#open(ca);
    this.#doors.set(ca, door);
    return (url) =>
      door.request({
        url,
        method: 'GET',
        headers: { accept: 'application/json' },
        team: '',
        timeoutMs,
        // What is a little too large is told from what breaks off.
        responseBytesMax: 2 * bytesMax,
      });
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    await Promise.all([...this.#doors.values()].map((door) => door.close()));
  }

  #open(ca: string | undefined): Egress {
    const all = [this.#ca, ca].filter((each) => each !== undefined).join('\n');
    return new Egress({
      allow: [],
      own: () => [],
      isConfigured: true,
      ca: all === '' ? undefined : all,
    });
  }
}
