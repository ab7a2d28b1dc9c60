// Which service and region a host of AWS stands for, in the names that a signature says.
import { awsRegionForm } from '../shared/patterns.ts';
import { BrokerRefusal } from './refusal.ts';

/** The scope of a signature. */
export interface Scope {
  readonly service: string;
  readonly region: string;
}

const suffix = /\.(?:amazonaws\.com(?:\.cn)?|api\.aws|on\.aws)$/;
/** Services whose endpoint has another name than their signatures. */
const signingNames: Readonly<Record<string, string>> = {
  email: 'ses',
  'bedrock-runtime': 'bedrock',
  'bedrock-agent': 'bedrock',
  'bedrock-agent-runtime': 'bedrock',
  'lambda-url': 'lambda',
  dualstack: 's3',
  's3-fips': 's3',
  's3-accelerate': 's3',
  marketplace: 'aws-marketplace',
  'models-v2-lex': 'lex',
  'runtime-v2-lex': 'lex',
  'sso-oauth': 'sso-oauth',
};

/**
 * The scope for a host of AWS; `region` counts where the host names none and its service has none
 * of its own. Throws BrokerRefusal `unsupported`.
 */
export function awsScope(host: string, region: string | undefined): Scope {
  if (!suffix.test(host)) throw new BrokerRefusal('unsupported');
  const labels = host.replace(suffix, '').split('.');
  const at = labels.findIndex((label) => awsRegionForm.test(label));
  // service.region, name.service.region; but name.region.es and its like.
  const label = at < 0 || at < labels.length - 1 ? labels.at(-1)! : labels[at - 1];
  if (label === undefined) throw new BrokerRefusal('unsupported');
  const service =
    label === 'iot' && labels.length > 2
      ? 'iotdata'
      : (signingNames[label] ?? label.replace(/-fips$/, ''));
  if (at >= 0) return { service, region: labels[at]! };
  // what has no region in its host is global
  return { service, region: service === 's3' ? (region ?? 'us-east-1') : 'us-east-1' };
}

export const isAwsHost = (host: string): boolean => suffix.test(host);

/** The region that the host of AWS names. */
export const awsRegion = (host: string): string | undefined =>
  suffix.test(host) ? host.split('.').find((label) => awsRegionForm.test(label)) : undefined;
