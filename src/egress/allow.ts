// The operator's rules for private targets: `host:port=cidr[@team]`. A rule is for one host and
// port; it opens no address to other names.
import { type Address, isInRange, isRangeNever, parseRange, type Range } from './addresses.ts';
import { hostName } from './names.ts';

export interface AllowRule {
  readonly host: string;
  readonly port: number;
  readonly range: Range;
  /** The slug of the one team that may; undefined is every team. */
  readonly team: string | undefined;
}

/** The rules cannot be used; `rule` says why without repeating any of it. */
export class AllowRuleInvalid extends Error {
  readonly rule: string;
  constructor(rule: string) {
    super(`the list of allowed targets ${rule}`);
    this.name = 'AllowRuleInvalid';
    this.rule = rule;
  }
}

const rulesMax = 1_000;
const prefixMin = 8;

/** Reads the comma-separated list. Throws AllowRuleInvalid. */
export function parseAllowRules(text: string): readonly AllowRule[] {
  const entries = text.split(',');
  if (entries.length > rulesMax) throw new AllowRuleInvalid(`may have at most ${rulesMax} rules`);
  return Object.freeze(
    entries.map((entry, index) => Object.freeze(parseRule(entry.trim(), index + 1))),
  );
}

function parseRule(entry: string, position: number): AllowRule {
  const refuse = (rule: string): never => {
    throw new AllowRuleInvalid(`has a rule at position ${position} that ${rule}`);
  };
  const match =
    /^([^:=@]+):(\d{1,5})=([0-9A-Fa-f:.]+(?:\/\d{1,3})?)(?:@([a-z0-9][a-z0-9-]{1,38}))?$/.exec(
      entry,
    );
  if (match === null) return refuse('is not host:port=cidr or host:port=cidr@team');
  const host = hostName(match[1]!);
  const port = Number(match[2]);
  const range = parseRange(match[3]!);
  if (host === undefined) return refuse('names no DNS name');
  if (port < 1 || port > 65_535) return refuse('has a port outside 1 to 65535');
  if (range === undefined)
    return refuse('has no address block, or one with bits set behind its prefix');
  if (range.prefix < prefixMin) return refuse(`has a block of fewer than ${prefixMin} bits`);
  // SECURITY: said at the start, where it is read, and checked again for each address.
  if (isRangeNever(range))
    return refuse('is for link-local, metadata or multicast addresses, which are never reached');
  return { host, port, range, team: match[4] };
}

/** The rules that name this host and port for the team. */
export const rulesFor = (
  rules: readonly AllowRule[],
  target: { host: string; port: number; team: string },
): readonly AllowRule[] =>
  rules.filter(
    (rule) =>
      rule.host === target.host &&
      rule.port === target.port &&
      (rule.team === undefined || rule.team === target.team),
  );

/** Whether one of the rules has the address. */
export const isAllowedBy = (rules: readonly AllowRule[], address: Address): boolean =>
  rules.some(({ range }) => isInRange(address, range));
