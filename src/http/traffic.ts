// Whether requests come in at this moment: what runs in the background gives way to them.
import type { FastifyInstance } from 'fastify';

/** After a request the next is on its way: its sender waits for the answer before it goes on. */
const momentMs = 250;

/** What listeners tell of their requests. */
export class Traffic {
  readonly #now: () => number;
  #inFlight = 0;
  #lastAt = -Infinity;
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** One is being answered, or one began or ended a moment ago. */
  isBusy(): boolean {
    return this.#inFlight > 0 || this.#now() - this.#lastAt < momentMs;
  }

  /** Counts a listener's requests for as long as they take. Register it before every other hook. */
  watch(app: FastifyInstance): void {
    app.addHook('onRequest', (_request, reply, done) => {
      this.#inFlight += 1;
      reply.raw.once('close', () => {
        this.#inFlight -= 1;
        this.note();
      });
      done();
    });
  }

  /**
   * Something began or ended; for a listener whose answers may stay open for hours and mostly wait.
   */
  note(): void {
    this.#lastAt = this.#now();
  }
}
