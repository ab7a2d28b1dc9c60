// Which rows without a MAC are such as the release before wrote: nothing else is taken over.
import t from 'tap';
import { isOfBefore, type TeamSettingsRow } from '../../src/access/team-settings.ts';
import { folded } from '../helpers/folded.ts';

const row: TeamSettingsRow = {
  id: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' as never,
  slug: 'payments',
  tokenFormat: 'fernet',
  rotateEveryDays: null,
  refuseExposedLeases: false,
  defaultDelivery: ['lease'],
  versionsKept: 10,
  revision: 1,
  rowMac: null,
  rowMacVersion: 0,
};

t.test(
  'a row that the release before could have written is one of its rows',
  folded((t) => {
    for (const change of [
      {},
      { tokenFormat: 'fernet-256' },
      { rotateEveryDays: 1 },
      { rotateEveryDays: 3650 },
      { refuseExposedLeases: true },
      { defaultDelivery: [] },
      { defaultDelivery: ['broker', 'lease'] },
      { versionsKept: 1 },
      { versionsKept: 1000 },
      { revision: 2_147_483_647 },
    ])
      t.ok(isOfBefore({ ...row, ...change } as TeamSettingsRow), JSON.stringify(change));
  }),
);

t.test(
  'any other row is none',
  folded((t) => {
    for (const change of [
      { rowMacVersion: 1 },
      { rowMac: Buffer.alloc(32) },
      { tokenFormat: 'plain' },
      { tokenFormat: null },
      { rotateEveryDays: 0 },
      { rotateEveryDays: 3651 },
      { rotateEveryDays: 1.5 },
      { rotateEveryDays: '30' },
      { refuseExposedLeases: null },
      { refuseExposedLeases: 'false' },
      { defaultDelivery: null },
      { defaultDelivery: 'lease' },
      { defaultDelivery: ['lease', 'mail'] },
      { defaultDelivery: ['lease', 'lease'] },
      { versionsKept: 0 },
      { versionsKept: 1001 },
      { versionsKept: null },
      { revision: 0 },
      { revision: 2_147_483_648 },
      { revision: 0.5 },
    ])
      t.notOk(isOfBefore({ ...row, ...change } as TeamSettingsRow), JSON.stringify(change));
  }),
);
