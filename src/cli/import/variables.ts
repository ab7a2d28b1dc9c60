// Variables of a file, one credential each; a base URL or a host that stands beside a key goes with
// it.
import { variablesOf, type Variable } from './dotenv.ts';
import type { Foreign } from './foreign.ts';
import type { TextFile } from './input.ts';

const keyEnding = new RegExp(
  '_?(?:API_KEY|APIKEY|ACCESS_KEY|SECRET_ACCESS_KEY|SECRET_KEY|KEY|API_TOKEN|' +
    'ACCESS_TOKEN|AUTH_TOKEN|BEARER_TOKEN|BOT_TOKEN|TOKEN|API_SECRET|CLIENT_SECRET|' +
    'SECRET|PASSWORD|PASSWD|PASS|PWD)$',
);
const placeEnding = new RegExp(
  '_?(?:API_BASE_URL|API_BASE_URI|API_BASE|BASE_URL|BASE_URI|BASEURL|API_URL|' +
    'API_URI|API_HOST|API_ENDPOINT|ENDPOINT_URL|ENDPOINT|SERVER_URL|SERVER|' +
    'INSTANCE_URL|HOST_URL|HOSTNAME|HOST|DOMAIN|URL|URI)$',
);
/** Their values are secrets by themselves. */
const secretNames =
  /(?:WEBHOOK|HOOK|DSN|CONNECTION|DATABASE|REDIS|POSTGRES|POSTGRESQL|MYSQL|MONGO|MONGODB|AMQP|RABBITMQ)_?(?:URL|URI)$/;
const isSecretPlace = (name: string): boolean => secretNames.test(name);

const stem = (name: string, ending: RegExp): string | undefined => {
  const upper = name.toUpperCase();
  return ending.test(upper) ? upper.replace(ending, '') : undefined;
};

/** The credentials of a file of variables; read twice, once for what stands beside what. */
export function* variableCredentials({ text }: TextFile): Generator<Foreign> {
  const keys = new Map<string, number>();
  const places = new Map<string, Variable[]>();
  for (const variable of variablesOf(text())) {
    const { name } = variable;
    if (name === undefined) continue;
    const place = isSecretPlace(name.toUpperCase()) ? undefined : stem(name, placeEnding);
    const key = place === undefined ? stem(name, keyEnding) : undefined;
    if (key !== undefined) keys.set(key, (keys.get(key) ?? 0) + 1);
    if (place !== undefined && variable.value + (variable.fault ?? '') !== '')
      places.set(place, [...(places.get(place) ?? []), variable]);
  }
  for (const variable of variablesOf(text())) {
    const { line, name, value, fault } = variable;
    const id = name ?? `line ${line}`;
    const about = { id, name: id, type: id };
    if (name === undefined || fault !== undefined) {
      yield { ...about, data: undefined, fault: `line ${line}: ${fault ?? 'unreadable'}` };
      continue;
    }
    const place = isSecretPlace(name.toUpperCase()) ? undefined : stem(name, placeEnding);
    // Taken along by the key beside it, so it is no credential of its own.
    if (place !== undefined && keys.has(place)) continue;
    const key = place === undefined ? stem(name, keyEnding) : undefined;
    const beside = key === undefined ? [] : (places.get(key) ?? []);
    const unread = beside.find((each) => each.fault !== undefined);
    // SECURITY: without its base URL, the key would be sent to the service's own host.
    yield unread === undefined
      ? {
          ...about,
          data: { value, ...Object.fromEntries(beside.map((each) => [each.name, each.value])) },
        }
      : { ...about, data: undefined, fault: `line ${unread.line}, beside it: ${unread.fault}` };
  }
}
