// Services of AWS that a policy can name in place of hosts, and those that give out credentials.
// What is not in the list has to be named as a host. Pure.

import { awsRegionForm } from '../shared/patterns.ts';

/**
 * Services at `{service}.{region}.amazonaws.com`. SECURITY: none of them gives out credentials or
 * other secrets; none has hosts that customers name, but for the buckets of S3.
 */
export const awsServices = [
  'athena',
  'bedrock-agent-runtime',
  'bedrock-runtime',
  'comprehend',
  'dynamodb',
  'email',
  'events',
  'firehose',
  'kinesis',
  'logs',
  'monitoring',
  'polly',
  'rekognition',
  's3',
  'sns',
  'sqs',
  'states',
  'textract',
  'transcribe',
  'translate',
] as const;
export type AwsService = (typeof awsServices)[number];

/** A target as policies name it. */
export interface Authority {
  readonly host: string;
  readonly port: number;
}

const authorityForm = /^([^:]+)(?::([1-9]\d{0,4}))?$/;

/** Host and port of an entry of a policy or of a ticket: 443 where it says none. */
export function authorityOf(text: string): Authority | undefined {
  const [, host, port = '443'] = authorityForm.exec(text) ?? [];
  return host === undefined || Number(port) > 65_535 ? undefined : { host, port: Number(port) };
}

const bucketForm = /^[a-z0-9](?:[a-z0-9-]{1,61}[a-z0-9])$/;

/** Whether a region is one that a host name can have. */
export const isRegion = (region: unknown): region is string =>
  typeof region === 'string' && awsRegionForm.test(region);

const domainOf = (region: string): string =>
  `${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`;

/** The hosts of the services in a region; none without one. */
export const awsHosts = (services: readonly string[], region: unknown): string[] =>
  isRegion(region) ? services.map((service) => `${service}.${domainOf(region)}`) : [];

/** Whether the target is one of these services in the region, or a bucket of S3 there. */
export function isAwsTarget(
  services: readonly string[],
  region: unknown,
  { host, port }: Authority,
): boolean {
  if (!isRegion(region) || port !== 443) return false;
  if (awsHosts(services, region).includes(host)) return true;
  const bucket = host.slice(0, Math.max(0, host.indexOf('.')));
  return (
    services.includes('s3') &&
    bucketForm.test(bucket) &&
    host.slice(bucket.length + 1) === `s3.${domainOf(region)}`
  );
}

/** Names, in hosts of AWS, of services that give out credentials. */
const givers: ReadonlySet<string> = new Set([
  'codeartifact',
  'cognito-identity',
  'cognito-idp',
  'credential-provider',
  'credentials',
  'ecr',
  'ecr-public',
  'eks-auth',
  'iam',
  'identitystore',
  'oidc',
  'organizations',
  'portal',
  'rolesanywhere',
  'signin',
  'sso',
  'sso-oauth',
  'sts',
]);
const awsDomain = /\.(?:amazonaws\.com(?:\.cn)?|api\.aws|aws\.amazon\.com|amazoncognito\.com)$/;

/**
 * Whether a host that a policy names is, or may be, a service of AWS that gives out credentials.
 */
export function givesCredentials(entry: string): boolean {
  const host = authorityOf(entry)?.host ?? '';
  if (host.endsWith('.amazoncognito.com')) return true;
  if (!awsDomain.test(host)) return false;
  return host
    .replace(awsDomain, '')
    .split('.')
    .some((label) => label === '*' || givers.has(label.replace(/-fips$/, '')));
}
