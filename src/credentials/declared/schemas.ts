// Declarations of types on the wire.
import { z } from 'zod';
import { line, revision, subject, time } from '../../http/schemas.ts';
import { refined, unique } from '../../shared/refine.ts';
import { declaredName, fieldName, typeDescription, typeName, typeTitle } from '../schemas.ts';
import { fieldsMax } from '../../shared/limits.ts';
import { publicValue } from '../types/fields.ts';
import type { Declaration } from './declaration.ts';
import { fieldForms, injectionKinds, upstreamKinds } from './declaration.ts';
import type { DeclaredRow } from './rows.ts';

const declaredFieldsMax = 32;
const [publicText] = publicValue.options;
const textLengthMax = 200;

/** SECURITY: these texts end up in forms and consoles of people who trust them: nothing unseen. */
const text = refined(
  z
    .string()
    .min(1)
    .max(textLengthMax)
    .regex(/^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}<>]+$/u, 'one line of visible text without < and >'),
  {
    rule: 'invisible',
    check: (value) => !/[\p{Default_Ignorable_Code_Point}\p{Cn}\p{Co}]/u.test(value),
    says: 'Nothing in it is invisible.',
  },
).meta({ id: 'DeclaredText', examples: ['Acme CRM'] });
const memberName = fieldName.meta({ examples: ['apiKey'] });
const declaredField = z
  .strictObject({
    name: fieldName,
    title: text,
    description: text.optional(),
    class: z.enum(['secret', 'public']).meta({
      description: 'A public field is stored and shown as it is, to everybody who may read.',
    }),
    isRequired: z.boolean(),
    form: z
      .enum(fieldForms)
      .optional()
      .meta({ description: 'Of a public field: what its values look like.' }),
    isDestination: z
      .boolean()
      .optional()
      .meta({
        description:
          'A change of it demands all secret fields again. Hosts, ports, URLs and names of ' +
          'headers and parameters always are.',
        examples: [false],
      }),
    default: z
      .union([publicText, z.int().meta({ format: 'int64' }), z.boolean()])
      .optional()
      .meta({ examples: ['https://api.acme.example'] }),
    choices: unique(z.array(text).min(1).max(50)).optional(),
  })
  .meta({ id: 'DeclaredField' });
const pathText = z
  .string()
  .min(1)
  .max(100)
  .regex(/^(?:\/[A-Za-z0-9._~-]*)+$/, 'a path from /, of letters, digits, . _ ~ -');
const injection = z
  .strictObject({
    kind: z.enum(injectionKinds).meta({
      description:
        '`bearer`, `header` (`name`), `namedHeader` and `query` (`nameField`), `basic` ' +
        '(`usernameField`; the secret is the password), `path` (`before`, `after`), `url` (the ' +
        'secret is the whole URL).',
    }),
    field: memberName.meta({ description: 'The secret field.', examples: ['apiKey'] }),
    name: z
      .string()
      .max(100)
      .regex(/^[A-Za-z0-9-]+$/, 'the name of a header, of letters, digits, -')
      .optional()
      .meta({ examples: ['X-Acme-Key'] }),
    nameField: memberName.optional(),
    usernameField: memberName.optional(),
    before: pathText.optional(),
    after: pathText.optional(),
  })
  .meta({ id: 'DeclaredInjection', examples: [{ kind: 'bearer', field: 'apiKey' }] });
const upstream = z
  .strictObject({
    kind: z.enum(upstreamKinds).meta({
      description:
        '`fixed` (`baseUrl`), `field` (`field` has the URL), `hostPort` (`hostField`, ' +
        '`portField`; over TLS), `secret` (of injection `url`), `policy` (the hosts of the ' +
        'policy).',
    }),
    baseUrl: z
      .string()
      .max(500)
      .regex(/^https:\/\/[A-Za-z0-9._~:/-]+$/, 'https:// and a plain address')
      .optional()
      .meta({ examples: ['https://api.acme.example'] }),
    field: memberName.optional(),
    hostField: memberName.optional(),
    portField: memberName.optional(),
  })
  .meta({
    id: 'DeclaredUpstream',
    examples: [{ kind: 'fixed', baseUrl: 'https://api.acme.example' }],
  });
const statuses = unique(
  z
    .array(z.int().min(400).max(499).meta({ format: 'int32' }))
    .min(1)
    .max(20),
);
const test = z
  .strictObject({
    method: z.enum(['GET', 'POST']),
    path: z
      .string()
      .max(300)
      .regex(
        /^\/[A-Za-z0-9._~/-]*(?:\{[A-Za-z0-9_]+\}[A-Za-z0-9._~/-]*)*(?:\?[A-Za-z0-9._~=&%{}-]*)?$/,
        'a path from /, with {names} of public fields',
      )
      .meta({ examples: ['/v1/me'] }),
    accepted: statuses.optional().meta({
      description: 'Beside 2xx: the log-in counts, though it may do less.',
      examples: [[403]],
    }),
    refused: statuses.optional().meta({
      description: 'Beside 400, 401 and 403: the log-in does not count.',
      examples: [[404]],
    }),
    refusal: z
      .strictObject({ member: memberName, by: z.enum(['false', 'presence']) })
      .optional()
      .meta({ description: 'A member of a 2xx answer in JSON that says that it does not.' }),
  })
  .meta({ id: 'DeclaredTest', examples: [{ method: 'GET', path: '/v1/me' }] });

/** A type as a platform declares it. */
export const declaration = z
  .strictObject({
    title: text,
    description: text,
    fields: z.array(declaredField).min(1).max(declaredFieldsMax),
    injection: injection.optional(),
    upstream: upstream.optional(),
    test: test.optional(),
  })
  .meta({
    id: 'TypeDeclaration',
    examples: [
      {
        title: 'Acme CRM',
        description: 'An API key of Acme.',
        fields: [{ name: 'apiKey', title: 'API key', class: 'secret', isRequired: true }],
        injection: { kind: 'bearer', field: 'apiKey' },
        upstream: { kind: 'fixed', baseUrl: 'https://api.acme.example' },
        test: { method: 'GET', path: '/v1/me' },
      },
    ],
  });
export const declaredType = z
  .strictObject({
    name: declaredName,
    declaration,
    publicFields: z
      .array(fieldName)
      .max(declaredFieldsMax)
      .meta({
        description: 'The fields whose values everybody sees who may read a credential of it.',
        examples: [[]],
      }),
    revision,
    createdAt: time,
    createdBy: subject,
    updatedAt: time,
    updatedBy: subject,
  })
  .meta({ id: 'DeclaredType' });
const field = z.strictObject({
  name: fieldName,
  title: line(200).meta({ examples: ['API key'] }),
  class: z.enum(['secret', 'public']),
  isRequired: z.boolean(),
  isDestination: z
    .boolean()
    .meta({ description: 'A change of it demands all secret fields again.' }),
});
export const credentialTypeInfo = z
  .strictObject({
    name: typeName,
    title: typeTitle,
    description: typeDescription,
    isOpen: z
      .boolean()
      .meta({ description: 'Takes fields of any name; each is secret unless declared public.' }),
    isTestable: z.boolean().meta({ description: 'Whether a connection of it can be tested.' }),
    noTest: line(300)
      .nullable()
      .meta({ description: 'Why there is no test.', examples: [null] }),
    isInjectable: z
      .boolean()
      .meta({ description: 'Whether it can be used through the broker; see `policy.delivery`.' }),
    noBroker: line(300)
      .nullable()
      .meta({ description: 'Why nothing of it goes through the broker.', examples: [null] }),
    target: z
      .enum(['fixed', 'fields', 'secret', 'policy'])
      .nullable()
      .meta({
        description:
          'Where the requests of the broker go: to the one service of the type, to where its ' +
          'fields say, to the URL that is the secret, or to a host that the policy names.',
        examples: ['fixed'],
      }),
    declaration: declaration.nullable().meta({
      description: "Of one of the platform's own: as it was declared.",
      examples: [null],
    }),
    revision: revision.nullable().meta({
      description: 'Of a declared type: what it is named by when it is changed.',
      examples: [null],
    }),
    fields: z.array(field).max(fieldsMax),
  })
  .meta({ id: 'CredentialType' });
export const credentialTypeList = z
  .strictObject({ items: z.array(credentialTypeInfo).max(400) })
  .meta({ id: 'CredentialTypeList' });
export const declaredPath = z.strictObject({
  type: declaredName,
});

/** A declared type as the platform operator sees it. */
export const showDeclared = (row: DeclaredRow): z.output<typeof declaredType> => ({
  name: row.name,
  declaration: row.declaration as z.output<typeof declaration>,
  publicFields: publicNamesOf(row.declaration),
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

const publicNamesOf = ({ fields }: Declaration): string[] =>
  fields.filter((field) => field.class === 'public').map(({ name }) => name);
