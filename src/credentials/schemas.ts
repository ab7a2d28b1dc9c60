// The shapes of credentials on the wire. What goes in under `fields` never comes out; what comes
// out has no place for a secret.
import { refined, unique } from '../shared/refine.ts';
import { z } from 'zod';
import { canShow } from '../http/answers.ts';
import {
  descriptionLengthMax,
  fieldsMax,
  labelLengthMax,
  labelsMax,
  pemLengthMax,
  publicFieldLengthMax,
  secretFieldBytesMax,
  ticketSecondsMax,
} from '../shared/limits.ts';
import { growthCeilings } from '../shared/growth.ts';
import {
  count,
  deliveryList,
  id,
  line,
  lines,
  name,
  pageOf,
  revision,
  slug,
  subject,
  time,
  timeOrNull,
  timeInput,
  typeText,
  version,
} from '../http/schemas.ts';
import { problemNames } from './health.ts';
import { awsServices, givesCredentials } from './aws-services.ts';
import { limitDefaults, methods, type Policy, policyJson, renewableStatuses } from './policy.ts';
import { healthOf } from './health.ts';
import { shownFieldsOf } from './shown.ts';
import {
  declaredNameForm,
  declaredNameLengthMax,
  isTypeName,
  shownType,
} from './declared/names.ts';
import { credentialTypes, findType } from './types/registry.ts';
import type { ResolvedResource } from '../access/index.ts';
import type { CredentialRow, VersionRow } from './rows.ts';
import { allowedHostForm } from '../shared/patterns.ts';

/** One membership and every grant. */
const grantPathsMax = 1 + growthCeilings.grants;
const ownNames = credentialTypes.map((type) => type.name);
export const declaredName = z
  .string()
  .max(declaredNameLengthMax)
  .regex(declaredNameForm, 'words of lower-case letters, digits and - with dots between')
  .meta({ id: 'DeclaredTypeName', examples: ['acme.crm'] });
export const typeName = refined(z.string(), {
  rule: 'enum',
  allowed: { allowed: ownNames },
  check: isTypeName,
  says: "One of the vault's own, or one that the platform operator declared.",
}).meta({
  id: 'TypeName',
  // A plain text: of a union of words and names, generators make a type that no literal fits.
  printedAs: typeText,
  description:
    "One of the vault's own types, or one that the platform operator declared: see GET " +
    '/v1/credential-types.',
  examples: ['openai'],
});
export const fieldName = z
  .string()
  .min(1)
  .max(64)
  .regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/, 'a letter or _, then letters, digits, _ . -')
  .meta({ id: 'FieldName', examples: ['apiKey'] });
const labelKey = z
  .string()
  .min(1)
  .max(63)
  .regex(/^[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?$/, 'lower-case letters, digits, . _ / - inside');
const labelValue = line(labelLengthMax);
const fewLabels = (labels: object): boolean => Object.keys(labels).length <= labelsMax;
const labelsInput = refined(z.record(labelKey, labelValue), {
  rule: 'max',
  allowed: { max: labelsMax },
  check: fewLabels,
  says: { maxProperties: labelsMax },
}).meta({ id: 'LabelsInput', examples: [{ env: 'prod' }] });
const fieldsInput = refined(
  z.record(
    fieldName,
    z.union([
      z.string().max(secretFieldBytesMax).meta({ pattern: '^[^\\u0000]*$' }),
      z.int().meta({ format: 'int64' }),
      z.boolean(),
      z.null(),
    ]),
  ),
  {
    rule: 'max',
    allowed: { max: fieldsMax },
    check: (fields) => Object.keys(fields).length <= fieldsMax,
    says: { maxProperties: fieldsMax },
  },
).meta({
  id: 'FieldsInput',
  writeOnly: true,
  description:
    'Public and secret fields together, as the type says; secret ones are never returned. What ' +
    'stands for a secret (`blank`, `mask`, `placeholder`, `reference`, `encrypted`) is refused ' +
    'as one.',
});
const allowedHostsMax = 50;
const hostName = z
  .string()
  .max(253)
  .regex(allowedHostForm, 'a lower-case host name, or *. and one; perhaps with a port');
const pathPrefix = refined(
  z
    .string()
    .max(200)
    .regex(
      /^(?:\/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+\/?$|^\/$/,
      'a path from /, without empty segments, encoding and query',
    ),
  {
    rule: 'dotSegment',
    check: (path) => !/\/\.{1,2}(?:\/|$)/.test(path),
    says: 'No segment is `.` or `..`.',
  },
);
const bound = (max: number, name: keyof typeof limitDefaults) =>
  z
    .int()
    .min(1)
    .max(max)
    .meta({
      format: 'int64',
      examples: [limitDefaults[name]],
      description: `${limitDefaults[name]} when left out.`,
    })
    .optional();
const permission = (description: string) =>
  z
    .boolean()
    .meta({ description, examples: [true] })
    .optional();
/** A credential's policy. Its members are those of `Policy`, which has a rule for each. */
export const policy = z
  .strictObject({
    delivery: deliveryList.meta({
      description:
        'How the secret may be used: `lease` hands it to an engine, `broker` lets the vault ' +
        'make the calls. Empty means not at all.',
    }),
    allowedHosts: unique(z.array(hostName).max(allowedHostsMax)).meta({
      id: 'AllowedHosts',
      description:
        "Hosts beyond the type's own destination that the secret may be sent to, over TLS; " +
        'with a port where that is not 443.',
      examples: [['api.example.com', 'minio.corp.example:9000']],
    }),
    methods: unique(z.array(z.enum(methods)).min(1).max(methods.length))
      .meta({
        id: 'PolicyMethods',
        description:
          'Methods that the broker lets through, however a request says them; all when left out.',
      })
      .optional(),
    pathPrefixes: unique(z.array(pathPrefix).min(1).max(50))
      .meta({
        id: 'PathPrefixes',
        description:
          'Paths below the base URL that the broker lets through, each with what is under it; ' +
          'headers that name a resource are held to them too. All when left out.',
      })
      .optional(),
    limits: z
      .strictObject({
        concurrency: bound(1_000, 'concurrency'),
        requestsPerMinute: bound(1_000_000, 'requestsPerMinute'),
        requestBytes: bound(2 ** 40, 'requestBytes'),
        responseBytes: bound(2 ** 40, 'responseBytes'),
        idleSeconds: bound(3_600, 'idleSeconds'),
        ticketSeconds: bound(ticketSecondsMax, 'ticketSeconds'),
      })
      .meta({
        id: 'PolicyLimits',
        description:
          'Bounds of what goes through the broker, on each replica; a bound that is left out ' +
          'has its default.',
      })
      .optional(),
    renewOn: unique(
      z
        .array(
          refined(z.int().min(400).max(499), {
            rule: 'enum',
            allowed: { allowed: renewableStatuses.map(String) },
            check: (status) => renewableStatuses.some((each) => each === status),
            says: { enum: [...renewableStatuses] },
          }).meta({ format: 'int32' }),
        )
        .max(renewableStatuses.length),
    )
      .meta({
        id: 'RenewOn',
        description:
          'Only where OAuth tokens are stored: at which statuses of the upstream the broker ' +
          'gets another access token; `[401]` when left out.',
        examples: [[401]],
      })
      .optional(),
    awsServices: unique(z.array(z.enum(awsServices)).min(1).max(awsServices.length))
      .meta({
        id: 'AwsServices',
        description:
          'Only for `aws`: services whose hosts in the stored region are allowed beside ' +
          '`allowedHosts`, S3 with its buckets. The region then is a destination. A service ' +
          'that gives out credentials goes into `allowedHosts`.',
        examples: [['s3', 'sqs']],
      })
      .optional(),
    encodedSlashes: z
      .boolean()
      .meta({
        description:
          'Whether escaped slashes pass where paths are held to prefixes or to a base path: ' +
          'the call has to lie under a prefix in both readings. Without such bounds paths pass ' +
          'to the byte anyway.',
      })
      .optional(),
    unscanned: permission(
      'Answers pass through the broker in which no secret can be looked for: in several ' +
        'content codings over each other, in one that nobody here reads, or in an unreadable ' +
        'charset. The event of such a call says so.',
    ),
    webSockets: permission('The broker carries WebSockets to the upstream.'),
  } satisfies Readonly<Record<keyof Policy, z.ZodType>>)
  .meta({
    id: 'Policy',
    examples: [
      { delivery: ['broker'], allowedHosts: [], methods: ['POST'], pathPrefixes: ['/v1/chat'] },
    ],
  });

/** A policy as callers send it; stored and answered it always names its hosts. */
const policyInput = z
  .strictObject({
    ...policy.shape,
    allowedHosts: policy.shape.allowedHosts.optional().transform((hosts) => hosts ?? []),
  })
  .meta({ id: 'PolicyInput', examples: [{ delivery: ['broker'], methods: ['POST'] }] });

/** The public fields of an answer. */
export const publicFields = z
  .record(
    fieldName,
    z.union([
      z
        .string()
        .max(pemLengthMax)
        .regex(/^(?:[^\p{Cc}\p{Cs}]|[\r\n])*$/u, 'text without control characters'),
      z.int().meta({ format: 'int64' }),
      z.boolean(),
    ]),
  )
  .meta({
    id: 'PublicFields',
    maxProperties: fieldsMax,
    description: 'The fields that the type calls public.',
    examples: [{ baseUrl: 'https://api.openai.com' }],
  });
const secretFields = z
  .array(fieldName)
  .max(fieldsMax)
  .meta({
    id: 'SecretFieldNames',
    description: 'The names of the secret fields that are set.',
    examples: [['apiKey']],
  });
export const problemName = z.enum(problemNames).meta({ id: 'CredentialProblem' });

const description = lines(descriptionLengthMax)
  .nullable()
  .meta({ id: 'DescriptionOrNull', examples: [null] });
const times = {
  expiresAt: timeInput
    .nullable()
    .meta({ id: 'ExpiresAtInput', description: 'From then on nobody can use it.' })
    .optional(),
  rotateAfter: timeInput
    .nullable()
    .meta({
      id: 'RotateAfterInput',
      description: 'When its secret should be replaced: a reminder, which stops nothing.',
    })
    .optional(),
};
export const credentialCreate = z
  .strictObject({
    name,
    type: typeName,
    fields: fieldsInput,
    publicFieldNames: unique(z.array(fieldName).max(fieldsMax))
      .optional()
      .meta({ description: 'Only for `custom`: which fields are public.' }),
    description: description.optional(),
    labels: labelsInput.nullable().optional(),
    ...times,
    policy: policyInput.optional(),
  })
  .meta({
    id: 'CredentialCreate',
    examples: [
      {
        name: 'openai-prod',
        type: 'openai',
        fields: { apiKey: 'your API key', baseUrl: 'https://api.openai.com' },
        labels: { env: 'prod' },
      },
    ],
  });
const { name: _name, ...createdWith } = credentialCreate.shape;
export const credentialPut = z.strictObject(createdWith).meta({
  id: 'CredentialPut',
  examples: [{ type: 'openai', fields: { apiKey: 'your API key' }, labels: { env: 'prod' } }],
});
export const credentialUpdate = z
  .strictObject({
    name: name.optional(),
    fields: fieldsInput.optional(),
    description: description.optional(),
    labels: labelsInput.nullable().optional(),
    ...times,
    policy: policyInput.optional(),
  })
  .meta({
    id: 'CredentialUpdate',
    description: 'Omitted = keep, null = clear.',
    examples: [{ fields: { apiKey: 'your new API key' } }],
  });

const labels = z
  .record(labelKey, labelValue)
  .meta({ id: 'Labels', maxProperties: labelsMax, examples: [{ env: 'prod' }] });
export const credential = z
  .strictObject({
    id,
    team: slug,
    name,
    type: typeName,
    description,
    labels,
    publicFields,
    secretFields,
    policy,
    health: z.enum(['ok', ...problemNames]).meta({ description: 'The worst of `problems`.' }),
    problems: z
      .array(problemName)
      .max(problemNames.length)
      .meta({ examples: [[]] }),
    warnings: z
      .array(
        z.strictObject({
          pointer: line(100).meta({ examples: ['/policy/allowedHosts/0'] }),
          rule: z.enum(['givesCredentials']),
        }),
      )
      .max(allowedHostsMax)
      .meta({
        id: 'CredentialWarnings',
        description:
          'What is allowed and rarely meant: `givesCredentials`, a host of AWS at which ' +
          'whoever holds a ticket gets credentials that outlive it.',
      })
      .optional(),
    version,
    revision,
    expiresAt: timeOrNull,
    rotateAfter: timeOrNull,
    lastUsedAt: timeOrNull,
    useCount: count,
    deletedAt: timeOrNull,
    createdAt: time,
    createdBy: subject,
    updatedAt: time,
    updatedBy: subject,
  })
  .meta({
    id: 'Credential',
    description: 'Metadata. No secret value, nor any part of one, stands in it.',
  });
const through = z
  .array(
    z.strictObject({
      kind: z.enum(['membership', 'grant']),
      team: slug.nullable().meta({
        description:
          'The team in which you hold a role; null where it was granted to you yourself.',
      }),
      access: z
        .enum(['read', 'use'])
        .nullable()
        .meta({
          description: 'What the grant lets through; null for a membership.',
          examples: [null],
        }),
    }),
  )
  .min(1)
  .max(grantPathsMax)
  .meta({
    description:
      'By which ways you may know of it: as a member of the team that owns it, by grants, or both.',
  });
export const credentialSeen = z.strictObject({ ...credential.shape, through }).meta({
  id: 'CredentialSeen',
  description: 'A credential, and by which ways you may know of it.',
});
export const credentialUpsert = z
  .strictObject({
    action: z
      .enum(['created', 'changed', 'unchanged'])
      .meta({ description: 'What was done, or would have been.' }),
    isDryRun: z.boolean().meta({ examples: [false] }),
    credential,
  })
  .meta({ id: 'CredentialUpsert' });
export const credentialNamePath = z.strictObject({ team: slug, name });

export const credentialVersion = z
  .strictObject({
    version,
    isCurrent: z.boolean(),
    publicFields,
    secretFields,
    policy,
    isUndecryptable: z.boolean(),
    createdAt: time,
    createdBy: subject,
  })
  .meta({ id: 'CredentialVersion' });
export const credentialVersionPage = pageOf(credentialVersion).meta({
  id: 'CredentialVersionPage',
});

export const typeTitle = line(200).meta({ examples: ['OpenAI'] });
export const typeDescription = line(300).meta({
  examples: ['An API key of OpenAI or of a service that speaks its API.'],
});
export const versionPath = z.strictObject({
  id,
  version: z
    .string()
    .regex(/^[1-9][0-9]{0,8}$/, 'a whole number from 1')
    .meta({
      override: { type: 'integer', format: 'int32', minimum: 1, maximum: 999_999_999 },
      examples: [1],
    }),
});
export const typePath = z.strictObject({
  type: typeText,
});

const limit = z.int().meta({ format: 'int64' });
const scalarSchema = z
  .strictObject({
    type: z.enum(['string', 'integer', 'boolean']),
    title: line(200).optional(),
    description: line(600).optional(),
    default: z.union([line(publicFieldLengthMax), limit, z.boolean()]).optional(),
    format: z.enum(['uri']).optional(),
    enum: z.array(line(200)).max(500).optional(),
    pattern: line(300).optional(),
    minLength: limit.optional(),
    maxLength: limit.optional(),
    minimum: limit.optional(),
    maximum: limit.optional(),
    writeOnly: z.literal(true).optional(),
    readOnly: z.literal(true).optional(),
  })
  .meta({ id: 'FieldRule' });
/**
 * The JSON Schema of a type's fields, itself bounded: it has a place for rules and none for values.
 */
export const fieldsSchema = z
  .strictObject({
    $schema: z.literal('https://json-schema.org/draft/2020-12/schema'),
    $id: z
      .string()
      .max(100)
      .regex(/^urn:credential-vault:type:[A-Za-z0-9.-]+$/)
      .meta({ examples: ['urn:credential-vault:type:openai'] }),
    title: typeTitle,
    description: typeDescription,
    type: z.literal('object'),
    properties: z.record(fieldName, scalarSchema).meta({ maxProperties: fieldsMax }),
    required: z.array(fieldName).max(fieldsMax),
    dependentRequired: z
      .record(fieldName, z.array(fieldName).max(1))
      .optional()
      .meta({ maxProperties: fieldsMax }),
    not: z.strictObject({ required: z.array(fieldName).length(2) }).optional(),
    anyOf: z
      .array(z.strictObject({ required: z.array(fieldName).max(1) }))
      .max(10)
      .optional(),
    additionalProperties: z.union([
      z.literal(false),
      z.strictObject({ anyOf: z.array(scalarSchema).max(10) }),
    ]),
  })
  .meta({
    id: 'FieldsSchema',
    description: 'JSON Schema 2020-12, good to draw a form from; secret fields are writeOnly.',
  });

function warningsOf({
  type,
  policy: { allowedHosts },
}: Pick<CredentialRow, 'type' | 'policy'>): Pick<z.output<typeof credential>, 'warnings'> {
  if (findType(type)?.broker?.injection.kind !== 'sigv4' || !Array.isArray(allowedHosts)) return {};
  const warnings = allowedHosts.flatMap((host, at) =>
    givesCredentials(String(host))
      ? [{ pointer: `/policy/allowedHosts/${at}`, rule: 'givesCredentials' as const }]
      : [],
  );
  return warnings.length === 0 ? {} : { warnings };
}

/**
 * A credential as clients see it. What the row MAC does not cover is left out where it does not
 * fit: one tampered row breaks no list.
 */
export const showCredential = (row: CredentialRow): z.output<typeof credential> => ({
  id: row.id,
  team: row.slug,
  name: row.name,
  type: shownType(row.type),
  description: description.safeParse(row.description).data ?? null,
  labels: labels.safeParse(row.labels).data ?? {},
  publicFields: shownFieldsOf(row.type, row.publicFields),
  secretFields: [...row.secretFieldNames],
  policy: policyJson(row.policy) as z.output<typeof policy>,
  health: healthOf(row.problems),
  problems: row.problems,
  ...warningsOf(row),
  version: row.version,
  revision: row.revision,
  expiresAt: row.expiresAt,
  rotateAfter: row.rotateAfter,
  lastUsedAt: row.lastUsedAt,
  useCount: row.useCount ?? 0,
  deletedAt: row.deletedAt,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

/** Whether a credential can be answered with. */
export const canShowCredential = canShow(credential, showCredential);

/** The same with the ways by which the caller may know of it. */
export const showSeen = (
  row: CredentialRow,
  { role, grantPaths }: Pick<ResolvedResource, 'role' | 'grantPaths'>,
): z.output<typeof credentialSeen> => ({
  ...showCredential(row),
  through: [
    ...(role === undefined ? [] : [{ kind: 'membership' as const, team: row.slug, access: null }]),
    ...(grantPaths?.grantPaths ?? []).map(({ team, access }) => ({
      kind: 'grant' as const,
      team: team?.slug ?? null,
      access,
    })),
  ].slice(0, grantPathsMax),
});

/** A version as clients see it. */
export const showVersion = (
  row: VersionRow,
  of: Pick<CredentialRow, 'type' | 'version'>,
): z.output<typeof credentialVersion> => ({
  version: row.version,
  isCurrent: row.version === of.version,
  publicFields: shownFieldsOf(of.type, row.publicFields),
  secretFields: row.secretFieldNames,
  policy: policyJson(row.policy) as z.output<typeof policy>,
  isUndecryptable: row.isUndecryptable,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
});
