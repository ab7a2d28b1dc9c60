// Where a credential's secrets may go, and how. A policy is part of a version: it is bound into the
// token as it was written, so members that are not set are absent, not null.
import type { Delivery } from '../db/tables.ts';
import { invalid } from '../shared/errors.ts';
import type { JsonObject, JsonValue } from '../shared/json.ts';
import { authorityOf, type AwsService } from './aws-services.ts';
import type { CredentialType } from './types/define.ts';

export const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;
export type Method = (typeof methods)[number];

/** Bounds of what goes through the broker; a member that is not set has its default. */
export interface Limits {
  /** Calls at the same time, on one replica. */
  readonly concurrency?: number | undefined;
  /** Calls a minute, on one replica. */
  readonly requestsPerMinute?: number | undefined;
  readonly requestBytes?: number | undefined;
  readonly responseBytes?: number | undefined;
  /** How long the upstream may be silent. */
  readonly idleSeconds?: number | undefined;
  /** How long tickets are good for, from their making, extensions included. */
  readonly ticketSeconds?: number | undefined;
}
/** What counts where a policy says nothing. */
export const limitDefaults = {
  concurrency: 32,
  requestsPerMinute: 1_200,
  requestBytes: 32 * 1024 * 1024,
  responseBytes: 1024 * 1024 * 1024,
  idleSeconds: 120,
  ticketSeconds: 3_600,
} as const satisfies Required<Limits>;
const limitNames = Object.keys(limitDefaults) as (keyof typeof limitDefaults)[];

/** Statuses of an upstream at which the broker may get another access token. */
export const renewableStatuses = [400, 401, 403] as const;
export type RenewableStatus = (typeof renewableStatuses)[number];
/** What counts where a policy does not say it. */
export const renewOnDefault: readonly RenewableStatus[] = [401];

/** `methods` and `pathPrefixes` bind the broker; without them every method and every path. */
export interface Policy {
  readonly delivery: readonly Delivery[];
  /**
   * Exact names, or `*.` and a name for exactly one label before it; with a port where that is not
   * 443.
   */
  readonly allowedHosts: readonly string[];
  readonly methods?: readonly Method[] | undefined;
  readonly pathPrefixes?: readonly string[] | undefined;
  readonly limits?: Limits | undefined;
  /** The statuses at which the broker gets another access token; 401 without it. */
  readonly renewOn?: readonly RenewableStatus[] | undefined;
  /** Only for `aws`: services whose hosts in the stored region are allowed too. */
  readonly awsServices?: readonly AwsService[] | undefined;
  /** Whether a path that is held to prefixes may have escaped slashes. */
  readonly encodedSlashes?: boolean | undefined;
  /** Answers pass in which no secret can be looked for. */
  readonly unscanned?: boolean | undefined;
  /** The broker carries WebSockets. */
  readonly webSockets?: boolean | undefined;
}

/** The policy of a credential that is stored without one. */
export const policyOf = (delivery: readonly Delivery[]): Policy => ({
  delivery: [...delivery],
  allowedHosts: [],
});

/** What a member says for its part of a policy: how it is stored, and what of it is wider. */
interface MemberRule<T> {
  /** As it is stored, bound and answered; asked only where the member is set. */
  readonly json: (value: NonNullable<T>) => JsonValue;
  /** Whether `after` lets more out than `before`; undefined is what an old policy has: off. */
  readonly isWider: (before: T, after: T) => boolean;
}

const list = {
  json: (values: readonly string[]): JsonValue => [...values],
  isWider: (before: readonly string[], after: readonly string[]): boolean => adds(after, before),
};

const permission = {
  json: (isGiven: boolean): JsonValue => isGiven,
  isWider: (before: boolean | undefined, after: boolean | undefined): boolean =>
    after === true && before !== true,
};

/** `a` and `a:443` are one. */
const inOneSpelling = (entry: string): string => {
  const { host, port } = authorityOf(entry) ?? { host: entry, port: 0 };
  return `${host}:${port}`;
};

/**
 * One rule a member. SECURITY: a member without one would be neither bound nor judged; here it does
 * not compile.
 */
const memberRules: { readonly [K in keyof Required<Policy>]: MemberRule<Policy[K]> } = {
  delivery: list,
  allowedHosts: {
    json: list.json,
    isWider: (before, after) => adds(after.map(inOneSpelling), before.map(inOneSpelling)),
  },
  methods: {
    json: (values) => [...values],
    isWider: (before, after) => before !== undefined && adds(after ?? methods, before),
  },
  pathPrefixes: {
    json: (values) => [...values],
    isWider: (before, after) =>
      before !== undefined &&
      !(after ?? ['/']).every((path) => before.some((prefix) => isUnder(path, prefix))),
  },
  limits: {
    json: (limits) =>
      Object.fromEntries(
        limitNames.flatMap((name) => (limits[name] === undefined ? [] : [[name, limits[name]]])),
      ),
    isWider: (before, after) =>
      limitNames.some(
        (name) => (after?.[name] ?? limitDefaults[name]) > (before?.[name] ?? limitDefaults[name]),
      ),
  },
  renewOn: {
    json: (statuses) => [...statuses],
    isWider: (before, after) => adds(after ?? renewOnDefault, before ?? renewOnDefault),
  },
  awsServices: {
    json: (services) => [...services],
    isWider: (before, after) => adds(after ?? [], before ?? []),
  },
  encodedSlashes: permission,
  unscanned: permission,
  webSockets: permission,
};
/** The names of a policy's members, in the order in which they are written. */
export const policyMembers = Object.keys(memberRules) as readonly (keyof Policy)[];

/** The policy as JSON: what is stored, bound and answered. Only what is set stands in it. */
export function policyJson(policy: Policy): JsonObject {
  return Object.fromEntries(
    policyMembers.flatMap((name) => {
      const value = policy[name];
      const { json } = memberRules[name] as MemberRule<typeof value>;
      return value === undefined ? [] : [[name, json(value)]];
    }),
  );
}

/**
 * Throws invalidRequest for a policy that no credential of the type can keep: through the broker
 * goes only what it can put into a request, and only access tokens are renewed.
 */
export function checkPolicy(
  type: CredentialType,
  { delivery, renewOn, awsServices }: Policy,
): void {
  if (type.broker === undefined && delivery.includes('broker'))
    throw invalid(`/policy/delivery/${delivery.indexOf('broker')}`, 'notForType');
  if (type.oauth === undefined && renewOn !== undefined)
    throw invalid('/policy/renewOn', 'notForType');
  if (awsServices !== undefined && !takesAwsServices(type))
    throw invalid('/policy/awsServices', 'notForType');
}

/** Whether the hosts of a type are those of the service that it signs for. */
export const takesAwsServices = ({ broker }: CredentialType): boolean =>
  broker?.injection.kind === 'sigv4' && broker.injection.service === undefined;

/** Fields that say where secrets go because the policy says so. */
export const destinationsBy = ({ awsServices }: Policy): readonly string[] =>
  awsServices === undefined ? [] : ['region'];

/**
 * Whether the policy lets a secret go anywhere or any way that it could not go before. Narrowing,
 * and the same said again, is not wider.
 */
export function isWiderPolicy(before: Policy, after: Policy): boolean {
  return policyMembers.some((name) => {
    const { isWider } = memberRules[name] as MemberRule<unknown>;
    return isWider(before[name], after[name]);
  });
}

/** Whether the path is the prefix or below it, on the border of a segment. */
export function isUnder(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(prefix.endsWith('/') ? prefix : `${prefix}/`);
}

const adds = <T>(more: readonly T[], than: readonly T[]): boolean =>
  more.some((each) => !than.includes(each));
