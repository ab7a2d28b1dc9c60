// Idempotency-Key: a repeated request answers with the resource that the first one made, as it is
// now. The record is written in the operation's own transaction, so that there is a record exactly
// when there is a resource.
import { createHash } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { type RawBuilder, sql } from 'kysely';
import { canonicalJson, type Keyring } from '../crypto/index.ts';
import { type Claim, noClaim } from '../db/claims.ts';
import type { Db, Executor } from '../db/client.ts';
import { agreementMs, type DatabaseClock, vaultAgo, vaultNow } from '../db/clock.ts';
import { AppError, invalid } from '../shared/errors.ts';
import type { JsonObject } from '../shared/json.ts';
import { idempotencyHours, idempotencyKeyLengthMax } from '../shared/limits.ts';
import type { Caller } from '../access/index.ts';

/** Thrown out of the operation's transaction, so that it rolls back; never leaves this file. */
class ClaimTaken extends Error {}

/** What an Idempotency-Key is made of. */
export const keyForm = new RegExp(`^[\\x21-\\x7e]{1,${idempotencyKeyLengthMax}}$`);

export interface IdempotencyParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly clock: Pick<DatabaseClock, 'isAgreed' | 'own'>;
}

/** Runs operations at most once per caller, method, route and key. */
export class Idempotency {
  readonly #parts: IdempotencyParts;
  constructor(parts: IdempotencyParts) {
    this.#parts = parts;
  }

  /**
   * `execute` does the work and claims; `load` answers a repetition from the id that was claimed
   * (authorised afresh by the route). Throws idempotencyKeyReused when the key came with another
   * body or path.
   */
  async run<T>(input: {
    request: FastifyRequest;
    caller: Caller;
    execute: (claim: Claim) => Promise<T>;
    load: (targetId: string) => Promise<T>;
  }): Promise<T> {
    const { request, caller, execute, load } = input;
    const key = request.headers['idempotency-key'];
    if (key === undefined) return execute(noClaim);
    if (typeof key !== 'string' || !keyForm.test(key))
      throw invalid('/headers/Idempotency-Key', 'pattern');
    const slot = {
      subject: caller.subject,
      method: request.method,
      route: request.routeOptions.url ?? '',
      keyHash: createHash('sha256').update(key).digest(),
    };
    const content = canonicalJson({
      params: { ...(request.params as JsonObject) },
      body: (request.body ?? null) as JsonObject | null,
    });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const made = await this.#find(slot, content);
      if (made !== undefined) {
        // A repetition is answered when the standby has what it reports, and that costs the
        // database more than a read does.
        await request.countAgain?.();
        request.isRepeated = true;
        return load(made);
      }
      try {
        return await execute((executor, targetId) =>
          this.#claim(executor, slot, content, targetId),
        );
      } catch (error) {
        if (error instanceof ClaimTaken) continue;
        // What a twin did while this one looked stands in its way: then that is the answer.
        const twins = error instanceof AppError ? await this.#find(slot, content) : undefined;
        if (twins === undefined) throw error;
        return load(twins);
      }
    }
    throw new AppError('stateConflict', 'A request with this idempotency key is being worked on.', {
      retryAfterSeconds: 1,
    });
  }

  async #find(slot: Slot, content: string): Promise<string | undefined> {
    const { db, keyring } = this.#parts;
    const row = await db
      .selectFrom('idempotency_record')
      .select(['target_id', 'body_mac', 'body_mac_version'])
      .where('subject_id', '=', slot.subject)
      .where('method', '=', slot.method)
      .where('route', '=', slot.route)
      .where('key_hash', '=', slot.keyHash)
      .where('created_at', '>', this.#horizon())
      .executeTakeFirst();
    if (row === undefined) return undefined;
    if (
      !keyring.verifyMac('idempotency', content, {
        version: row.body_mac_version,
        mac: row.body_mac,
      })
    ) {
      throw new AppError('idempotencyKeyReused', 'This idempotency key came with another request.');
    }
    return row.target_id;
  }

  /**
   * A twin that has not committed makes this wait; one that has makes it throw. A record past its
   * time is taken over.
   */
  async #claim(executor: Executor, slot: Slot, content: string, targetId: string): Promise<void> {
    const { version, mac } = this.#parts.keyring.mac('idempotency', content);
    const { rows } = await sql`
      insert into idempotency_record (subject_id, method, route, key_hash, body_mac_version,
        body_mac, target_id, created_at)
      values (${slot.subject}, ${slot.method}, ${slot.route}, ${slot.keyHash}, ${version}, ${mac},
        ${targetId}, ${vaultNow})
      on conflict on constraint idempotency_record_pkey do update
        set body_mac_version = excluded.body_mac_version, body_mac = excluded.body_mac,
          target_id = excluded.target_id, created_at = excluded.created_at
        where idempotency_record.created_at <= ${this.#horizon()}
      returning 1`.execute(executor);
    if (rows.length === 0) throw new ClaimTaken();
  }

  /**
   * Records of before are forgotten: those that are past their time by the database's clock, and by
   * this replica's own. Where the two differ, none is.
   */
  #horizon(): RawBuilder<Date> {
    const { clock } = this.#parts;
    if (!clock.isAgreed) return sql<Date>`'-infinity'::timestamptz`;
    const latest = new Date(clock.own() + agreementMs);
    return sql<Date>`least(${vaultAgo({ hours: idempotencyHours })},
      ${latest}::timestamptz - make_interval(hours => ${idempotencyHours}::int))`;
  }
}

interface Slot {
  readonly subject: Caller['subject'];
  readonly method: string;
  readonly route: string;
  readonly keyHash: Buffer;
}
