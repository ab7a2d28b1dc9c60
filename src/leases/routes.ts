// The HTTP face of leases. The one answer of the vault that holds secrets is here, and it is
// encrypted to the engine that asked.
import { shownType } from '../credentials/index.ts';
import { refined } from '../shared/refine.ts';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Keyring } from '../crypto/index.ts';
import { type Authenticator, onBehalfOf } from '../http/authentication.ts';
import { HangUp } from '../shared/hang-up.ts';
import {
  leaseCredentialsMax,
  leaseSecondsDefault,
  leaseSecondsMax,
  purposeLengthMax,
  tokenLengthMax,
} from '../shared/limits.ts';
import { addOperation } from '../http/operation.ts';
import {
  id,
  keyId,
  line,
  name,
  revision,
  slug,
  subject,
  time,
  timeOrNull,
  version,
  typeText,
} from '../http/schemas.ts';
import { sealedLengthMax } from './sealed.ts';
import type { LeaseInput, LeasesService } from './service.ts';
import { base64urlOf32Form, jwtForm } from '../shared/patterns.ts';

const knownVersion = version.optional().meta({
  description:
    'The version that you hold; if it is the current one, the answer says `notModified` in ' +
    'place of the fields.',
});
const reference = z
  .union([z.strictObject({ id, knownVersion }), z.strictObject({ team: slug, name, knownVersion })])
  .meta({
    id: 'CredentialReference',
    description: 'By id, or by team and name.',
    examples: [{ team: 'payments', name: 'openai-prod' }],
  });
const tokenId = z
  .string()
  .min(1)
  .max(40)
  .regex(/^[a-z0-9.]+$/, 'lower-case letters, digits, dots')
  .meta({
    id: 'TokenId',
    description:
      'Names an access token that was leased, and tells nothing of it: to be sent back under ' +
      '`rejected` when an upstream refuses that token.',
    examples: ['t3'],
  });
const rejected = refined(z.array(z.strictObject({ id, tokenId })).max(leaseCredentialsMax), {
  rule: 'unique',
  check: (items) => new Set(items.map((each) => each.id)).size === items.length,
  says: 'Each `id` once.',
});
const leaseCreate = z
  .strictObject({
    credentials: z.array(reference).min(1).max(leaseCredentialsMax),
    purpose: line(purposeLengthMax)
      .min(1)
      .meta({
        description: 'Stands in the audit log of every team whose credential is leased.',
        examples: ['invoice run'],
      }),
    runId: line(100)
      .min(1)
      .optional()
      .meta({ description: 'The run, as the engine calls it.', examples: ['run-2031'] }),
    onBehalfOf: subject.optional().meta({
      description:
        'For whom the workflow runs: needs `credential.use`. May be missing only where ' +
        "`actsForItself` is set on the engine's membership.",
    }),
    subjectToken: z
      .string()
      .max(tokenLengthMax)
      .regex(jwtForm, 'a JWT')
      .optional()
      .meta({
        description:
          "A token of that person for this vault: makes the engine's word proof, and stands for " +
          '`onBehalfOf` when that is missing.',
        writeOnly: true,
      }),
    keyId: keyId
      .optional()
      .meta({ description: "Which of the engine's keys; otherwise the newest." }),
    rejected: rejected.optional().meta({
      description:
        'Access tokens that an upstream refused, each of a credential of this lease. One that ' +
        'is still the stored one is made new, once for all who say so: at most one in five ' +
        'minutes, then twice as long. Otherwise the stored one is leased.',
      examples: [[{ id: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d', tokenId: 't3' }]],
    }),
    ttlSeconds: z
      .int()
      .min(1)
      .max(leaseSecondsMax)
      .optional()
      .meta({ format: 'int32', default: leaseSecondsDefault, examples: [leaseSecondsDefault] }),
  })
  .meta({
    id: 'LeaseCreate',
    examples: [
      {
        credentials: [{ team: 'payments', name: 'openai-prod' }],
        purpose: 'invoice run',
        runId: 'run-2031',
        onBehalfOf: 'alice',
      },
    ],
  });

const lease = z
  .strictObject({
    id,
    expiresAt: time,
    sealed: z
      .string()
      .max(sealedLengthMax)
      .regex(/^[A-Za-z0-9_-]+\.\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/)
      .meta({
        description:
          'A JWT signed by the vault (EdDSA) in a compact JWE (ECDH-ES, A256GCM) to the ' +
          "engine's key. Claims: `iss`, `aud`, `jti`, `iat`, `exp`, `credentials`.",
        examples: [
          'eyJhbGciOiJFQ0RILUVTIn0..48V1_ALb6US04U3b.5eym8TW_c8SuK0lt.kPrK_qmxVWaYVA9wwBF6Iu',
        ],
      }),
    credentials: z
      .array(
        z.strictObject({
          id,
          team: slug,
          name,
          type: typeText,
          version,
          revision,
          expiresAt: timeOrNull.meta({ description: 'When the credential itself expires.' }),
          notModified: z.boolean().meta({
            description:
              'Whether the version is the one that you hold, so that its fields were not sent.',
          }),
          tokenId: tokenId.optional().meta({
            description: 'Only where an access token of a provider is leased.',
          }),
        }),
      )
      .max(leaseCredentialsMax)
      .meta({ description: 'In the order of the request.' }),
  })
  .meta({ id: 'Lease' });

const leaseKeys = z
  .strictObject({
    keys: z
      .array(
        z.strictObject({
          kty: z.literal('OKP'),
          crv: z.literal('Ed25519'),
          x: z
            .string()
            .length(43)
            .regex(base64urlOf32Form, '43 characters of base64url')
            .meta({ examples: ['11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'] }),
          kid: keyId,
          alg: z.literal('EdDSA'),
          use: z.literal('sig'),
        }),
      )
      .max(100),
  })
  .meta({ id: 'LeaseKeys', description: 'A JWK set (RFC 7517).' });
const keysMaxAgeSeconds = 300;

/** Adds the operations on leases, and the public keys that verify them. */
export function registerLeases(
  app: FastifyInstance,
  {
    service,
    authenticator,
    keyring,
  }: { service: LeasesService; authenticator: Authenticator; keyring: Keyring },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/leases',
    access: { each: 'credential.lease' },
    operationId: 'createLease',
    tag: 'leases',
    summary: 'Lease credentials to the calling engine, sealed to its key',
    description:
      'All or nothing. A refusal names each reference and the rule: `notFound` (or you may not ' +
      'know of it), `deleted`, `disabled`, `expired`, `undecryptable`, ' +
      '`deliveryNotAllowed`, `notConnected`, `refreshFailed`, `refreshUnavailable` (try again ' +
      'later), `rejectedByUpstream` (three fresh access tokens in a row were refused), ' +
      '`exposed`, `onBehalfOfRequired`, `onBehalfOfRefused`, `duplicate`, `notInLease` (of ' +
      '`rejected`); for all of them together `size`: ask in parts. Takes no idempotency key: a ' +
      'repetition is another lease.',
    body: leaseCreate,
    success: {
      status: 201,
      schema: lease,
      description: 'The lease. Secrets are only inside `sealed`.',
    },
    problems: ['leaseRefused', 'subjectTokenInvalid', 'stateConflict', 'keyUnavailable'],
    handler: async ({ body, caller, request, reply }) => {
      const hangUp = new HangUp(reply.raw);
      const made = await service.createLease(
        caller,
        {
          references: body.credentials as LeaseInput['references'],
          purpose: body.purpose,
          runId: body.runId,
          keyId: body.keyId,
          ttlSeconds: body.ttlSeconds ?? leaseSecondsDefault,
          onBehalfOf: await onBehalfOf(request, authenticator, body),
          rejected: body.rejected ?? [],
        },
        hangUp,
      );
      hangUp.afterwards(made.leave);
      return {
        id: made.id,
        expiresAt: made.expiresAt,
        sealed: made.sealed,
        credentials: made.credentials.map(({ row, isKnown, tokenId: held }) => ({
          id: row.id,
          team: row.slug,
          name: row.name,
          type: shownType(row.type),
          version: row.currentVersion,
          revision: row.revision,
          expiresAt: row.expiresAt,
          notModified: isKnown,
          ...(held === undefined ? {} : { tokenId: held }),
        })),
      };
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/.well-known/jwks.json',
    access: 'public',
    operationId: 'getLeaseKeys',
    tag: 'leases',
    summary: 'Read the public keys that verify leases',
    success: {
      status: 200,
      schema: leaseKeys,
      description: 'Every key that a lease may be signed with.',
    },
    handler: async ({ reply }) => {
      void reply.header('Cache-Control', `public, max-age=${keysMaxAgeSeconds}`);
      return keyring.leaseJwks();
    },
  });
}
