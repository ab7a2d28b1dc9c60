// What was before: earlier versions brought back or destroyed, deleted credentials restored.
import { credentialTarget } from '../../audit/event.ts';
import type { Role } from '../../db/tables.ts';
import type { Caller } from '../../access/decide.ts';
import type { Claim } from '../../http/idempotency.ts';
import { AppError, notFound } from '../../shared/errors.ts';
import { changeCredential, type ChangeParts, demandManage } from '../change.ts';
import * as repository from '../repository.ts';
import type { CredentialRow } from '../repository.ts';
import { credentialSealHolds } from '../seal.ts';
import { roomOf } from '../room.ts';
import { writeVersionAgain } from '../versions.ts';

/** What is asked of the past of credentials. */
export class CredentialHistory {
  readonly #parts: ChangeParts;
  constructor(parts: ChangeParts) {
    this.#parts = parts;
  }

  /**
   * Makes a new version that is as an earlier one was. Where its public fields or policy are others
   * than the current ones this needs `credential.manage`. Throws notFound, stateConflict for the
   * current one, forbidden, undecryptable, keyBusy, limitReached.
   */
  async restoreVersion(
    caller: Caller,
    located: CredentialRow,
    role: Role,
    version: number,
    claim: Claim,
  ): Promise<CredentialRow> {
    return changeCredential(this.#parts, caller, located, 'any', async (trx, row, at, stay) => {
      await claim(trx, row.id);
      if (version === row.version)
        throw new AppError('stateConflict', 'This is the current version.');
      const written = await writeVersionAgain(
        this.#parts.keyring,
        trx,
        row,
        version,
        () => {
          demandManage(role);
        },
        { by: caller.subject, at, stay },
      );
      return {
        action: 'credential.restoreVersion',
        key: written.key,
        details: { from: version },
        write: {
          version: written.version,
          publicFields: written.publicFields,
          policy: written.policy,
          secretFieldNames: written.secretFieldNames,
        },
      };
    });
  }

  /**
   * Destroys the values of an earlier version. Throws notFound, stateConflict for the current one.
   */
  async destroyVersion(caller: Caller, located: CredentialRow, version: number): Promise<void> {
    const { audit, keyring, now } = this.#parts;
    await roomOf(this.#parts).transaction(located.team, async (trx, stay) => {
      const row = await repository.lockCredential(trx, located.team, located.id, new Date(now()));
      // SECURITY: which version is the current one is told by the row, so its seal counts now.
      if (
        row === undefined ||
        row.state === 'deleted' ||
        !credentialSealHolds(keyring, row, row.seal)
      )
        throw notFound();
      if (version === row.version)
        throw new AppError(
          'stateConflict',
          'This is the current version: replace the secrets first, or delete the credential.',
        );
      const bytes = await repository.deleteVersion(trx, row.team, row.id, version);
      if (bytes === undefined) throw notFound();
      await stay.grow({ bytes: -bytes });
      await audit.record(trx, {
        caller,
        team: { id: row.team, slug: row.slug },
        action: 'credential.destroyVersion',
        target: credentialTarget(row.id),
        credentialVersion: version,
      });
    });
  }

  /**
   * Brings a deleted credential back as it was, as long as its rows are there. Throws notFound,
   * stateConflict for a living one, nameTaken, limitReached.
   */
  async restoreCredential(
    caller: Caller,
    located: CredentialRow,
    claim: Claim,
  ): Promise<CredentialRow> {
    return changeCredential(
      this.#parts,
      caller,
      located,
      'any',
      async (trx, row) => {
        await claim(trx, row.id);
        if (row.state !== 'deleted')
          throw new AppError('stateConflict', 'The credential is not deleted.');
        return {
          action: 'credential.restore',
          write: { state: row.stateBefore ?? 'disabled', stateBefore: null },
        };
      },
      { isDeletedToo: true },
    );
  }
}
