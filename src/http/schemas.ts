// The schemas that several features share: ids, names, times, text that can be stored, pages. Every
// string has a limit.
import { refined, unique } from '../shared/refine.ts';
import { z } from 'zod';
import { type RuleName, rules } from '../shared/rules.ts';
import { limitNames } from '../shared/growth.ts';
import { subjectForm, subjectLengthMax } from '../shared/subjects.ts';
import { problems } from './problem.ts';
import {
  pageItemsDefault,
  pageItemsMax,
  cursorLengthMax,
  nameLengthMax,
} from '../shared/limits.ts';
import { base64urlOf32Form, idForm, slugForm, storableForm } from '../shared/patterns.ts';

// No control characters, no lone surrogates, nothing that turns the direction of what follows it on
// a screen.
const storableLines = /^(?:[^\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]|[\t\n\r])*$/u;
// A name is told from another one by looking at it: nothing in it is invisible.
const trimmed = /^(?!\p{Z})[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]+(?<!\p{Z})$/u;

/** The same schema for the same bound, so that the document names it once. */
function remembered<T>(make: (max: number) => T): (max: number) => T {
  const made = new Map<number, T>();
  return (max) => {
    const schema = made.get(max) ?? make(max);
    made.set(max, schema);
    return schema;
  };
}

/** One line of text as people write it. */
export const line = remembered((max: number) =>
  z
    .string()
    .max(max)
    .regex(storableForm, 'one line without control characters and changes of direction')
    .meta({ id: `Line${max}` }),
);
/** Several lines of text. */
export const lines = remembered((max: number) =>
  z
    .string()
    .max(max)
    .regex(storableLines, 'text without control characters and changes of direction')
    .meta({ id: `Lines${max}` }),
);

/** The request that examples speak of. */
export const exampleRequestId = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d';

export const id = z
  .string()
  .length(36)
  .regex(idForm, 'a UUIDv7 in lower case')
  .meta({
    id: 'Id',
    description: 'A UUIDv7.',
    format: 'uuid',
    examples: ['019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d'],
  });
export const slug = z
  .string()
  .min(2)
  .max(39)
  .regex(slugForm, 'lower-case letters, digits, - inside')
  .meta({
    id: 'TeamSlug',
    description: 'The name of a team in every path; never changes.',
    examples: ['payments'],
  });
export const name = z
  .string()
  .min(1)
  .max(nameLengthMax)
  .regex(trimmed, 'visible characters, spaces only inside')
  .meta({
    id: 'Name',
    description:
      'Visible characters; spaces only inside. A name that is given anew looks like no other: ' +
      'NFC, single spaces, nothing that a screen leaves out.',
    examples: ['openai-prod'],
  });
export const subject = z
  .string()
  .min(1)
  .max(subjectLengthMax)
  .regex(subjectForm, 'printable ASCII, blanks only inside')
  .meta({
    id: 'Subject',
    description:
      'Whom a token speaks of: its `sub`, or the claim that its issuer is configured with, ' +
      'behind the prefix of that issuer. Printable ASCII, blanks only inside.',
    examples: ['alice'],
  });
export const time = z.date().meta({
  id: 'Time',
  type: 'string',
  format: 'date-time',
  maxLength: 24,
  description: 'RFC 3339, UTC, to the millisecond.',
  examples: ['2026-11-22T10:00:00.000Z'],
});
/** A time that may not be there. */
export const timeOrNull = time.nullable().meta({ id: 'TimeOrNull', examples: [null] });
// Beyond these years a time would come back in another form than it went in.
const hasFourDigitYear = (text: string): boolean => {
  const year = new Date(text).getUTCFullYear();
  return year >= 1970 && year <= 9999;
};
/** A time as the caller writes it. */
export const timeInput = refined(
  z.iso.datetime({ offset: true, abort: true, error: 'RFC 3339 with an offset' }).max(40),
  {
    rule: 'range',
    check: hasFourDigitYear,
    says: 'From the year 1970 to the year 9999, in UTC.',
  },
).meta({
  id: 'TimeInput',
  description: 'RFC 3339; kept to the millisecond, what is finer is cut off.',
  examples: ['2027-01-31T00:00:00Z'],
});
export const count = z
  .int()
  .min(0)
  .max(Number.MAX_SAFE_INTEGER)
  .meta({ id: 'Count', format: 'int64', examples: [41] });
/** The name of a type of credentials, as answers have it. */
export const typeText = z
  .string()
  .max(60)
  .regex(/^[A-Za-z0-9.-]+$/, 'letters, digits, . -')
  .meta({ examples: ['openai'] });
export const revision = z
  .int()
  .min(1)
  .max(2_147_483_647)
  .meta({
    id: 'Revision',
    format: 'int32',
    description: 'Grows with every change a caller makes; its quoted form is the ETag.',
    examples: [7],
  });
export const version = z
  .int()
  .min(1)
  .max(2_147_483_647)
  .meta({ id: 'Version', format: 'int32', examples: [3] });
export const fingerprint = z
  .string()
  .length(16)
  .regex(/^[0-9a-f]{16}$/, '16 lower-case hex digits')
  .meta({
    id: 'Fingerprint',
    description: 'The first 16 hex digits of HMAC-SHA256(key, "credential-vault/fingerprint/v1").',
    examples: ['9f86d081884c7d65'],
  });
export const keyId = z
  .string()
  .length(43)
  .regex(base64urlOf32Form, '43 characters of base64url')
  .meta({
    id: 'EngineKeyId',
    description: 'The RFC 7638 thumbprint of a public key.',
    examples: ['kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k'],
  });
export const tokenFormat = z.enum(['fernet', 'fernet-256']).meta({
  id: 'TokenFormat',
  description: '`fernet` is AES-128-CBC as specified; `fernet-256` is its AES-256-CBC extension.',
});

/** Ways in which a secret may be used. */
export const deliveryList = unique(z.array(z.enum(['lease', 'broker'])).max(2)).meta({
  id: 'DeliveryList',
  examples: [['lease']],
});

export const teamPath = z.strictObject({ team: slug });
export const credentialPath = z.strictObject({ id });

/** The cursor of the first page, which nobody has to be given. */
export const cursorOfStart = 'start';
/** A cursor that an earlier page gave. */
export const cursor = z
  .string()
  .min(1)
  .max(cursorLengthMax)
  .regex(/^[A-Za-z0-9_-]+$/, 'base64url')
  .meta({
    id: 'Cursor',
    description:
      'Opaque; good for the same list with the same filters. `start` stands for the first page ' +
      'of every list.',
    examples: [cursorOfStart],
  });
/** The query of every list. */
export const pageQuery = {
  limit: z
    .string()
    .regex(/^[1-9][0-9]{0,2}$/, 'a whole number from 1')
    .transform(Number)
    .pipe(z.int().min(1).max(pageItemsMax))
    .optional()
    .meta({
      override: {
        type: 'integer',
        format: 'int32',
        minimum: 1,
        maximum: pageItemsMax,
        default: pageItemsDefault,
      },
      examples: [50],
    }),
  cursor: cursor.optional(),
};
/** `true` or `false` in a query. */
export const queryFlag = z
  .enum(['true', 'false'])
  .transform((text) => text === 'true')
  .optional()
  .meta({ override: { type: 'boolean' }, examples: [true] });
const nextCursor = cursor
  .nullable()
  .meta({ id: 'NextCursor', description: 'null on the last page.', examples: [null] });
/** A page of items. */
export const pageOf = <T extends z.ZodType>(item: T) =>
  z.strictObject({
    items: z.array(item).max(pageItemsMax),
    nextCursor,
  });

const wordOf = line(200);
const inputFault = z
  .strictObject({
    pointer: line(600).meta({ examples: ['/fields/apiKey'] }),
    rule: z.enum(Object.keys(rules) as [RuleName, ...RuleName[]]).meta({
      id: 'Rule',
      description: Object.entries(rules)
        .map(([name, sentence]) => `- \`${name}\`: ${sentence}`)
        .join('\n'),
      examples: ['max'],
    }),
    allowed: z
      .array(wordOf)
      .max(500)
      .optional()
      .meta({ description: 'Words, types, or names of members.', examples: [['string']] }),
    pattern: wordOf
      .optional()
      .meta({ description: 'In words, for people.', examples: ['base64url'] }),
    min: count.optional(),
    max: count.optional(),
  })
  .meta({ id: 'InputFault' });

export const problem = z
  .strictObject({
    type: z
      .string()
      .max(100)
      .regex(/^urn:credential-vault:problem:[A-Za-z]+$/),
    title: line(200),
    status: z.int().min(400).max(599).meta({ format: 'int32' }),
    code: z
      .enum(Object.keys(problems))
      .meta({ description: 'What a program decides by; titles and details are for people.' }),
    detail: line(300),
    requestId: z
      .string()
      .max(36)
      .regex(/^[0-9a-f-]+$/),
    errors: z
      .array(inputFault)
      .max(100)
      .optional()
      .meta({
        description:
          'What is wrong where: a JSON pointer (query, params and headers by their name first) ' +
          'and a rule; never a value.',
      }),
    reason: z
      .string()
      .max(60)
      .regex(/^[A-Za-z_]+$/)
      .optional()
      .meta({
        description:
          'With `oauthRefused`: why, by the closed list of `OAuthConnection`, or ' +
          '`issuerMismatch` and `issuerMissing` for an answer that is not of this provider.',
        examples: ['access_denied'],
      }),
    rotationId: id.optional().meta({ description: 'With `rotationRunning`.' }),
    rows: z
      .record(
        z
          .string()
          .max(60)
          .regex(/^[a-z_]+$/),
        count,
      )
      .optional()
      .meta({ maxProperties: 20, description: 'With `keyInUse`: tokens left, by table.' }),
    limit: z.enum(limitNames).optional().meta({ description: 'With `limitReached`: which limit.' }),
    max: count.optional().meta({ description: 'With `limitReached`: how many there may be.' }),
  })
  .meta({
    id: 'Problem',
    description: 'RFC 9457.',
  });
