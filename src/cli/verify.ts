// `verify`: opens every token and checks every key, row MAC and event of a database, offline, with
// the root keys in hand. Exit status 0 when everything holds, 3 when something does not, 130 when
// it was stopped. Writes nothing to the database.
import { parseRootKeys } from '../crypto/index.ts';
import { openDatabase } from '../db/client.ts';
import { schemaState } from '../db/migrate.ts';
import { SchemaUnfit } from '../serve.ts';
import { offlineSecrets, type OperateContext, readOptions, stoppedExitCode } from './target.ts';
import { verifyAll } from '../integrity/index.ts';
import { loadKeyring } from '../keys/index.ts';

const statementTimeoutMs = 120_000;

/**
 * Runs the command; its exit status. Throws OptionsUnfit, ConfigInvalid, SchemaUnfit, and
 * KeyringRefused where nothing could be verified.
 */
export async function verify({
  args,
  environment,
  readFile,
  write,
  stop,
  now,
}: OperateContext): Promise<number> {
  const options = readOptions(args, { json: { type: 'boolean' } });
  const { databaseUrl, rootKeys } = offlineSecrets({ environment, readFile });
  const database = openDatabase({
    url: databaseUrl,
    poolMax: 2,
    statementTimeoutMs,
    onError: () => undefined,
  });
  const say = (text: string, value: object): void => {
    write(options.json === true ? `${JSON.stringify(value)}\n` : `${text}\n`);
  };
  try {
    const state = await schemaState(database.db);
    if (state !== 'current') throw new SchemaUnfit(state);
    const keyring = await loadKeyring({ db: database.db, roots: parseRootKeys(rootKeys), now });
    const verified = await verifyAll(
      { db: database.db, keyring },
      {
        onFinding: (finding) => {
          say(
            `${finding.fault}  ${finding.table}  ${finding.row}` +
              `${finding.needs === undefined ? '' : `  needs root key ${finding.needs}`}`,
            finding,
          );
        },
        // The row's key, not the name: what is odd about it may not show.
        onOddName: (odd) => {
          say(`oddName  ${odd.table}  ${odd.row}  ${odd.rule}`, { ...odd, oddName: true });
        },
        isStopping: () => stop.aborted,
      },
    );
    const { isWhole, keys, tokens, seals, events, findings, oddNames } = verified;
    const verdict =
      findings > 0
        ? `${findings} ${findings === 1 ? 'does' : 'do'} not hold`
        : isWhole
          ? 'everything holds'
          : 'these hold';
    say(
      `${keys} keys, ${tokens} tokens, ${seals} row MACs, ${events} events looked at` +
        `${isWhole ? '' : ', then stopped'}; ${verdict}` +
        `${oddNames === 0 ? '' : `; ${oddNames} ${oddNames === 1 ? 'name looks' : 'names look'} like others`}`,
      verified,
    );
    if (!isWhole) return stoppedExitCode;
    return findings === 0 ? 0 : 3;
  } finally {
    await database.close();
  }
}
