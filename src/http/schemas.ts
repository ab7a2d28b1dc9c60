// The schemas that several features share: ids, names, times, text that can be stored, pages. Every
// string has a limit.
import { z } from 'zod';
import { limitNames } from '../shared/growth.ts';
import { subjectForm, subjectLengthMax } from '../shared/subjects.ts';
import { problems } from './problem.ts';
import { pageItemsDefault, pageItemsMax, cursorLengthMax, nameLengthMax } from './limits.ts';

// No control characters, no lone surrogates, nothing that turns the direction of what follows it on
// a screen.
const storable = /^[^\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]*$/u;
const storableLines = /^(?:[^\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]|[\t\n\r])*$/u;
// A name is told from another one by looking at it: nothing in it is invisible.
const trimmed =
  /^[^\p{Cc}\p{Cf}\p{Cs}\p{Z}](?:[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]*[^\p{Cc}\p{Cf}\p{Cs}\p{Z}])?$/u;

/** One line of text as people write it. */
export const line = (max: number) => z.string().max(max).regex(storable);
/** Several lines of text. */
export const lines = (max: number) => z.string().max(max).regex(storableLines);

export const id = z
  .string()
  .length(36)
  .regex(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
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
  .regex(/^[a-z0-9][a-z0-9-]{1,38}$/)
  .meta({
    id: 'TeamSlug',
    description: 'The name of a team in every path; never changes.',
    examples: ['payments'],
  });
export const name = z
  .string()
  .min(1)
  .max(nameLengthMax)
  .regex(trimmed)
  .meta({
    id: 'Name',
    description:
      'Visible characters; spaces only inside. A name that is given anew looks like no other: NFC, single spaces, nothing that a screen leaves out.',
    examples: ['openai-prod'],
  });
export const subject = z
  .string()
  .min(1)
  .max(subjectLengthMax)
  .regex(subjectForm)
  .meta({
    id: 'Subject',
    description:
      'Whom a token speaks of: its `sub`, or the claim that its issuer is configured with, behind the prefix of that issuer. Printable ASCII, blanks only inside.',
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
// Beyond these years a time would come back in another form than it went in.
const hasFourDigitYear = (text: string): boolean => {
  const year = new Date(text).getUTCFullYear();
  return year >= 1970 && year <= 9999;
};
/** A time as the caller writes it. */
export const timeInput = z.iso
  .datetime({ offset: true, abort: true })
  .max(40)
  .refine(hasFourDigitYear, 'range')
  .meta({
    id: 'TimeInput',
    description: 'RFC 3339; kept to the millisecond, what is finer is cut off.',
    examples: ['2027-01-31T00:00:00Z'],
  });
export const count = z
  .int()
  .min(0)
  .max(Number.MAX_SAFE_INTEGER)
  .meta({ format: 'int64', examples: [41] });
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
  .regex(/^[0-9a-f]{16}$/)
  .meta({
    id: 'Fingerprint',
    description: 'The first 16 hex digits of HMAC-SHA256(key, "credential-vault/fingerprint/v1").',
    examples: ['9f86d081884c7d65'],
  });
export const keyId = z
  .string()
  .length(43)
  .regex(/^[A-Za-z0-9_-]{43}$/)
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
export const deliveryList = z
  .array(z.enum(['lease', 'broker']))
  .max(2)
  .refine((items) => new Set(items).size === items.length, 'unique')
  .meta({ examples: [['lease']] });

export const teamPath = z.strictObject({ team: slug });
export const credentialPath = z.strictObject({ id });

/** The cursor of the first page, which nobody has to be given. */
export const cursorOfStart = 'start';
/** A cursor that an earlier page gave. */
export const cursor = z
  .string()
  .min(1)
  .max(cursorLengthMax)
  .regex(/^[A-Za-z0-9_-]+$/)
  .meta({
    id: 'Cursor',
    description:
      'Opaque; good for the same list with the same filters. `start` stands for the first page of every list.',
    examples: [cursorOfStart],
  });
/** The query of every list. */
export const pageQuery = {
  limit: z
    .string()
    .regex(/^[1-9][0-9]{0,2}$/)
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
export const flag = z
  .enum(['true', 'false'])
  .transform((text) => text === 'true')
  .optional()
  .meta({ override: { type: 'boolean' }, examples: [true] });
/** A page of items. */
export const pageOf = <T extends z.ZodType>(item: T) =>
  z.strictObject({
    items: z.array(item).max(pageItemsMax),
    nextCursor: cursor.nullable().meta({ description: 'null on the last page.', examples: [null] }),
  });

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
      .array(z.strictObject({ pointer: line(600), rule: line(60) }))
      .max(100)
      .optional()
      .meta({
        description:
          'What is wrong where: a JSON pointer (query, params and headers by their name first) and a rule; never a value.',
      }),
    reason: z
      .string()
      .max(60)
      .regex(/^[A-Za-z_]+$/)
      .optional()
      .meta({
        description:
          'With `oauthRefused`: why, by the closed list of `OAuthConnection`, or `issuerMismatch` and `issuerMissing` for an answer that is not of this provider.',
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
    examples: [
      {
        type: 'urn:credential-vault:problem:invalidRequest',
        title: 'The request breaks a rule',
        status: 400,
        code: 'invalidRequest',
        detail: 'The request breaks a rule.',
        requestId: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
        errors: [{ pointer: '/fields/apiKey', rule: 'mask' }],
      },
    ],
  });
