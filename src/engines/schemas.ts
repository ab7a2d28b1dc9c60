// What engines look like on the wire.
import { superRefined } from '../shared/refine.ts';
import { z } from 'zod';
import { engineKeysMax } from '../shared/limits.ts';
import { canShow } from '../http/answers.ts';
import { id, keyId, name, revision, subject, time } from '../http/schemas.ts';
import type { SeenEngine } from './service.ts';
import type { EngineRow } from './types.ts';

// 32 bytes as base64url; the last character has two bits to spare, which must be zero.
const coordinate = z
  .string()
  .length(43)
  .regex(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/, '43 characters of canonical base64url: 32 bytes')
  .meta({
    id: 'JwkCoordinate',
    description: '32 bytes as base64url.',
    examples: ['hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo'],
  });
const okp = { kty: z.literal('OKP'), crv: z.literal('X25519'), x: coordinate };
const ec = { kty: z.literal('EC'), crv: z.literal('P-256'), x: coordinate, y: coordinate };
const asSent = {
  kid: keyId.optional().meta({ description: 'If given, the RFC 7638 thumbprint.' }),
  use: z.literal('enc').optional(),
  alg: z.literal('ECDH-ES').optional(),
};
const publicJwk = z
  .strictObject({
    kty: z.enum(['OKP', 'EC']),
    crv: z.enum(['X25519', 'P-256']),
    x: coordinate,
    y: coordinate.optional(),
  })
  .meta({
    id: 'PublicJwk',
    description: 'RFC 7517; only public members.',
    printedAs: z.discriminatedUnion('kty', [
      z.strictObject(okp).meta({ id: 'OkpJwk' }),
      z.strictObject(ec).meta({ id: 'EcJwk' }),
    ]),
  });

const jwkMembers = ['kty', 'crv', 'x', 'y', 'kid', 'use', 'alg'];
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];
// Loose and checked by hand: a private member has a rule of its own, so that whoever sent it learns
// that the key is to be thrown away.
const publicJwkInput = superRefined(
  z.looseObject({
    kty: z.enum(['OKP', 'EC']),
    crv: z.enum(['X25519', 'P-256']),
    x: coordinate,
    y: coordinate.optional(),
    ...asSent,
  }),
  (jwk, context) => {
    for (const member of Object.keys(jwk)) {
      if (jwkMembers.includes(member)) continue;
      // SECURITY: a private key must not enter the vault; neither its value nor a stranger's name
      // is said back.
      if (privateMembers.includes(member))
        context.addIssue({ code: 'custom', path: [member], message: 'privateKey' });
      else context.addIssue({ code: 'unrecognized_keys', keys: [member] });
    }
  },
  'Members that are private, or that nobody knows, are refused.',
).meta({
  id: 'PublicJwkInput',
  printedAs: z.discriminatedUnion('kty', [
    z.strictObject({ ...okp, ...asSent }).meta({ id: 'OkpJwkInput' }),
    z.strictObject({ ...ec, ...asSent }).meta({ id: 'EcJwkInput' }),
  ]),
  description:
    'X25519 (`OKP`) or P-256 (`EC`, with `y`), public members only. Make a pair on the engine; ' +
    'the private half never leaves it.',
  examples: [{ kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' }],
});

const state = z
  .enum(['enabled', 'disabled'])
  .meta({ id: 'EngineState', description: 'A disabled engine is refused at its next request.' });
const engineName = name.meta({ examples: ['n8n production'] });
const engineSubject = subject.meta({ examples: ['n8n'] });
export const engine = z
  .strictObject({
    id,
    name: engineName,
    subject: engineSubject,
    state,
    keys: z
      .array(z.strictObject({ kid: keyId, jwk: publicJwk, createdAt: time, createdBy: subject }))
      .max(engineKeysMax)
      .meta({ description: 'Oldest first.' }),
    intact: z.boolean().meta({
      examples: [true],
      description:
        'Whether the registration is as the vault wrote it. One that is not counts for ' +
        'nothing: delete it, and register the engine again.',
    }),
    revision,
    createdAt: time,
    createdBy: subject,
    updatedAt: time,
    updatedBy: subject,
  })
  .meta({ id: 'Engine' });
export const engineCreate = z
  .strictObject({
    name: engineName,
    subject: engineSubject,
    keys: z.array(publicJwkInput).min(1).max(engineKeysMax),
  })
  .meta({
    id: 'EngineCreate',
    examples: [
      {
        name: 'n8n production',
        subject: 'n8n',
        keys: [{ kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' }],
      },
    ],
  });
export const engineUpdate = z
  .strictObject({ name: engineName.optional(), state: state.optional() })
  .meta({ id: 'EngineUpdate', examples: [{ state: 'disabled' }] });
export const engineKeyCreate = z.strictObject({ key: publicJwkInput }).meta({
  id: 'EngineKeyCreate',
  examples: [
    { key: { kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' } },
  ],
});
export const enginePath = z.strictObject({ engine: id });
export const engineKeyPath = z.strictObject({ engine: id, kid: keyId });

export const showEngine = (row: SeenEngine): z.output<typeof engine> => ({
  id: row.id,
  name: row.name,
  subject: row.sub,
  state: row.state,
  keys: row.keys.map(({ kid, jwk, createdAt, createdBy }) => ({
    kid,
    jwk: { ...jwk },
    createdAt,
    createdBy,
  })),
  intact: row.intact,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

/** Whether an engine can be answered with. */
export const canShowEngine = canShow<EngineRow>(engine, (row) =>
  showEngine({ ...row, intact: true }),
);
