// One sample of every type: all its fields. A type that is added says here what it takes, and every test that walks the types
// tries it.

/** The secret and the public fields that are sent, and what the type fills in by itself. */
export interface TypeSample {
  readonly secret: Readonly<Record<string, string>>;
  readonly public: Readonly<Record<string, string | number | boolean>>;
  readonly filled?: Readonly<Record<string, string | number | boolean>>;
}

export const typeSamples: Readonly<Record<string, TypeSample>> = {
  openai: { secret: { apiKey: 'sk-1' }, public: {}, filled: { baseUrl: 'https://api.openai.com' } },
  google: { secret: { apiKey: 'AIza' }, public: {} },
  anthropic: { secret: { apiKey: 'sk-ant' }, public: {} },
  customLlm: { secret: { apiKey: 'k' }, public: { baseUrl: 'http://127.0.0.1:11434/v1' } },
  bearer: { secret: { token: 'abc' }, public: {} },
  header: { secret: { value: 'v' }, public: { name: 'X-Api-Key' } },
  httpBasic: { secret: { password: 'p' }, public: { username: 'u' } },
  smtp: { secret: { password: 'p' }, public: { host: 'mail.example.com', username: 'me@example.com' }, filled: { port: 587 } },
  imap: { secret: { password: 'p' }, public: { host: '2001:db8::1', username: 'me' }, filled: { port: 993, mailbox: 'INBOX', useSsl: true } },
  redis: { secret: { password: 'p' }, public: { host: 'redis' }, filled: { port: 6379, db: 0 } },
  slack: { secret: { webhookUrl: 'https://hooks.slack.com/services/T/B/x' }, public: {} },
  custom: { secret: { anything: 'a', other: 'b' }, public: { region: 'eu', replicas: 3, isFast: false } },
};

/** The public fields whose change moves no secret: every other one is a destination. */
export const freeFields: ReadonlySet<string> = new Set(['httpBasic.username', 'smtp.username', 'imap.username', 'imap.mailbox', 'redis.db']);

/** Another value of the same kind, for a field of this value. */
export function anotherValue(value: string | number | boolean): string | number | boolean {
  if (typeof value === 'boolean') return !value;
  if (typeof value === 'number') return value + 1;
  return value.startsWith('http') ? 'https://elsewhere.example' : `${value}1`;
}
