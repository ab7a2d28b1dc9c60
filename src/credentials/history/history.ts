// What was before: earlier versions brought back or destroyed, deleted credentials restored.
import type { Role } from '../../db/tables.ts';
import { AppError, notFound } from '../../shared/errors.ts';
import { changeCredential, type ChangeParts, demandManage } from '../change.ts';
import * as repository from '../repository.ts';
import { verifyCredentialRowMac } from '../row-mac.ts';
import { roomOf } from '../room.ts';
import { writeVersionAgain } from '../versions.ts';
import type { Claim } from '../../db/claims.ts';
import type { Caller } from '../../access/index.ts';
import { credentialTarget } from '../../audit/index.ts';
import type { CredentialRow } from '../rows.ts';

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
    resolved: CredentialRow,
    role: Role,
    version: number,
    claim: Claim,
  ): Promise<CredentialRow> {
    return changeCredential(this.#parts, caller, resolved, 'any', async (trx, row, at, stay) => {
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
  async destroyVersion(caller: Caller, resolved: CredentialRow, version: number): Promise<void> {
    const { audit, keyring, now } = this.#parts;
    await roomOf(this.#parts).transaction(resolved.team, async (trx, stay) => {
      const row = await repository.lockCredential(trx, resolved.team, resolved.id, new Date(now()));
      // SECURITY: which version is the current one is told by the row, so its row MAC counts now.
      if (
        row === undefined ||
        row.state === 'deleted' ||
        !verifyCredentialRowMac(keyring, row, row.seal)
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
    resolved: CredentialRow,
    claim: Claim,
  ): Promise<CredentialRow> {
    return changeCredential(
      this.#parts,
      caller,
      resolved,
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
