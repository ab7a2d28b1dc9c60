// What a value must be so that the broker can put it where its type says. Asked when a value is
// stored, and again before it is used.
import type { Allowed, InputRule } from '../shared/rules.ts';
import { AppError, type InputFault } from '../shared/errors.ts';
import type { Policy } from './policy.ts';
import type { PublicValue } from './public-values.ts';
import { isRegion } from './aws-services.ts';
import type { CredentialType, Injection, PlainInjection } from './types/define.ts';
import { unknownMember } from '../shared/closed-sets.ts';

/** Public and secret fields together. */
export type AllFields = Readonly<Record<string, PublicValue>>;

/** Shorter ones could not be told from other text in an answer. */
export const brokeredBytesMin = 8;
/** Longer ones fit no header. */
export const brokeredBytesMax = 8 * 1024;

// SECURITY: bytes above 0x7f pass Node's own check as latin-1 and mean something else to whoever
// reads them.
const visible = /^[!-~]+$/;
const visibleWords = /^[!-~](?:[ -~]*[!-~])?$/;
const segmentText = /^[A-Za-z0-9._~:@!$&'()*+,;=-]+$/;
const scopeText = /^[A-Za-z0-9_.-]+$/;
const control = /[\u0000-\u001f\u007f]/;

/**
 * Headers that the connection is made of, or that would undo what the broker does; many servers
 * read `_` as `-`.
 */
const takenHeaders = new RegExp(
  '^(?:host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|' +
    'content-.*|accept-encoding|range|forwarded|via|proxy-.*|x-forwarded-.*|' +
    'x-http-method.*|x-method-override|x-original-url|x-rewrite-url|set-cookie.*)$',
  'i',
);

/** Whether the broker sets a header of this name itself. */
export const isTakenHeader = (name: string): boolean =>
  takenHeaders.test(name.replaceAll('_', '-'));

/**
 * What is wrong with fields that the policy gives to the broker, as rules without values: secrets
 * that are too short, too long or unfit for their place, a header that is not theirs, a URL that is
 * not a plain https one.
 */
export function injectionFaults(type: CredentialType, fields: AllFields): InputFault[] {
  const given = type.broker?.injection;
  const injection = given === undefined ? undefined : plainInjection(given, fields);
  switch (injection?.kind) {
    case undefined:
    case 'oauth':
      return [];
    case 'bearer':
      return secretFaults(fields, injection.field, visible);
    case 'header':
      return secretFaults(fields, injection.field, visible);
    case 'headers':
      return unique(
        injection.headers.flatMap(({ field, isOptional }) => {
          if (isOptional === true && !Object.hasOwn(fields, field)) return [];
          if (type.fields[field]?.class === 'secret') return secretFaults(fields, field, visible);
          return visibleWords.test(String(fields[field])) ? [] : [fault(field, 'headerUnsafe')];
        }),
      );
    case 'namedHeader':
      return [
        ...(isTakenHeader(String(fields[injection.nameField]))
          ? [fault(injection.nameField, 'headerTaken')]
          : []),
        ...secretFaults(fields, injection.field, visibleWords),
      ];
    case 'basic':
      return [
        ...(/:/.test(String(fields[injection.usernameField] ?? ''))
          ? [fault(injection.usernameField, 'noColon')]
          : []),
        ...secretFaults(fields, injection.passwordField, noControl),
      ];
    case 'basicKey':
      return [
        ...(/:/.test(String(fields[injection.field] ?? ''))
          ? [fault(injection.field, 'noColon')]
          : []),
        ...secretFaults(fields, injection.field, noControl),
        // Beside a key it is mostly one letter that fills the place.
        ...(noControl.test(String(fields[injection.passwordField] ?? ''))
          ? []
          : [fault(injection.passwordField, 'headerUnsafe')]),
      ];
    case 'query':
      return secretFaults(fields, injection.field, noControl);
    case 'path':
      return secretFaults(fields, injection.field, segmentText);
    case 'url':
      return urlFaults(fields, injection.field);
    case 'sigv4':
      return [
        ...['accessKeyId', 'region'].flatMap((name) =>
          Object.hasOwn(fields, name) && !scopeText.test(String(fields[name]))
            ? [fault(name, 'headerUnsafe')]
            : [],
        ),
        ...secretFaults(fields, 'secretAccessKey', visible),
        ...(Object.hasOwn(fields, 'sessionToken')
          ? secretFaults(fields, 'sessionToken', visible)
          : []),
      ];
  }
  throw unknownMember(injection satisfies never);
}

/** The injection that counts for these fields. */
export function plainInjection(injection: Injection, fields: AllFields): PlainInjection {
  if (injection.kind !== 'whenSet') return injection;
  return Object.hasOwn(fields, injection.field) ? injection.set : injection.unset;
}

/**
 * Throws invalidRequest for values that the policy gives to the broker and that the broker could
 * not use.
 */
export function checkInjectable(type: CredentialType, policy: Policy, fields: AllFields): void {
  if (!policy.delivery.includes('broker')) return;
  const errors = injectionFaults(type, fields);
  if (policy.awsServices !== undefined && !isRegion(fields['region']))
    errors.push(fault('region', 'required'));
  if (errors.length > 0)
    throw new AppError('invalidRequest', 'The broker cannot use these values.', { errors });
}

const fault = (field: string, rule: InputRule, allowed: Allowed = {}): InputFault => ({
  pointer: `/fields/${field}`,
  rule,
  ...allowed,
});
const unique = (faults: readonly InputFault[]): InputFault[] =>
  faults.filter(
    ({ pointer }, index) => faults.findIndex((each) => each.pointer === pointer) === index,
  );
const noControl = { test: (text: string): boolean => !control.test(text) };

function secretFaults(
  fields: AllFields,
  field: string,
  form: { test(text: string): boolean },
): InputFault[] {
  const value = fields[field];
  if (typeof value !== 'string') return [fault(field, 'required')];
  if (Buffer.byteLength(value) < brokeredBytesMin)
    return [fault(field, 'minBytes', { min: brokeredBytesMin })];
  if (Buffer.byteLength(value) > brokeredBytesMax)
    return [fault(field, 'maxBytes', { max: brokeredBytesMax })];
  return form.test(value)
    ? []
    : [fault(field, form === segmentText ? 'pathUnsafe' : 'headerUnsafe')];
}

/**
 * The secret of a URL is its path and query: these have to be long enough to be told from other
 * text.
 */
function urlFaults(fields: AllFields, field: string): InputFault[] {
  const wrong = secretFaults(fields, field, visible);
  if (wrong.length > 0) return wrong;
  const text = String(fields[field]);
  const url = URL.parse(text);
  // The parser drops and turns what it does not like: what is stored must be what is called.
  const isPlain =
    url !== null &&
    url.protocol === 'https:' &&
    url.username === '' &&
    url.password === '' &&
    url.hash === '' &&
    url.href === text;
  if (!isPlain) return [fault(field, 'plainHttpsUrl')];
  return Buffer.byteLength(`${url.pathname}${url.search}`) < brokeredBytesMin
    ? [fault(field, 'minBytes', { min: brokeredBytesMin })]
    : [];
}
