// What stands where a secret should, and what only looks odd.
import t from 'tap';
import { standInOf } from '../../src/credentials/types/stand-ins.ts';

const n8nBlank = '__n8n_BLANK_VALUE_e5362baf-c777-4d57-a609-6eaf1f9e87f6';

t.test('a text that stands for a secret is told by its kind', async (t) => {
  const kinds: Readonly<Record<string, readonly string[]>> = {
    blank: [' ', '\r\n', '\t \t', '\u00a0', '\u200b', '\ufeff', '\u2800', '\u3164', '\u{e0020}'],
    mask: [
      '***',
      '*'.repeat(65_536),
      '•••',
      '●●●',
      '*•●*',
      '-----',
      '___',
      '....',
      '…',
      '…………',
      '????',
      '####',
      'xxxx',
      'XXXXXXXXXXXX',
      'sk-proj**',
      'sk-12345********',
      'a••',
      '****1234',
      '••••••••wxyz',
      'sk-...wxyz',
      'sk-proj-…abcd',
      '...abcd',
      '[REDACTED]',
      '<redacted>',
      '(hidden)',
      '**REDACTED**',
      'REDACTED',
      '[Filtered]',
      '[secret]',
      '(sensitive value)',
      '{MASKED}',
      '__hidden__',
    ],
    placeholder: [
      n8nBlank,
      '__n8n_EMPTY_VALUE_7b1af746-3729-4c60-9b9b-e08eb29e58da',
      '[object Object]',
      'undefined',
      '<your-api-key>',
      '<API_KEY>',
      '< insert your token here >',
    ],
    reference: [
      '={{ $secrets.vault.api.key }}',
      '{{ var.value.token }}',
      '{{resolve:secretsmanager:db:SecretString:password}}',
      '${API_KEY}',
      '${{ secrets.TOKEN }}',
      '$(cat /run/secrets/token)',
      'op://Private/OpenAI/credential',
      'vault://secret/data/app#key',
      'vault:secret/data/app#key',
      'vault:019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
      'aws-ssm:///app/key',
      'ref+awsssm://app/key',
      'gcp-secret-manager://projects/p/secrets/s',
      'arn:aws:secretsmanager:eu-west-1:123456789012:secret:app-AbCdEf',
      'arn:aws-us-gov:ssm:us-gov-west-1:123456789012:parameter/app',
      'projects/p/secrets/s/versions/latest',
      '@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/s)',
      'env://API_KEY',
    ],
    encrypted: [
      'ENC[AES256_GCM,data:p673w==,iv:YY=,tag:X==,type:str]',
      'ENC(G6N718UuyPE5bHyWKyuLQSm02auQPUtm)',
      '$ANSIBLE_VAULT;1.1;AES256\n6238',
      'vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9g==',
    ],
  };
  for (const [kind, texts] of Object.entries(kinds))
    for (const text of texts) t.equal(standInOf(text), kind, JSON.stringify(text.slice(0, 60)));
});

t.test('a text that may be a secret is none of them, however weak it is', async (t) => {
  for (const text of [
    '**',
    '••',
    '* *',
    '***\n',
    '***x',
    '...',
    '\u0001\u007f',
    '--',
    'xxx',
    'x'.repeat(65),
    'x'.repeat(65_536),
    'hunter2*',
    'pass*word',
    'changeme',
    'password',
    'secret',
    'hidden',
    'redacted',
    'null',
    '$ECRET99',
    '$2b$12$abcdefghijklmnopqrstuv',
    '%PASS%',
    'a.b.c',
    'p@ss...word!',
    'a{{b}}c',
    'x ={{ y }}',
    '=abc',
    '<script>',
    '${x}',
    'https://hooks.slack.test/services/T/B/x',
    'postgres://u:p@h/d',
    '-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n',
    '<xml attr="1">text</xml>',
    '{"type":"service_account"}',
    'gAAAAABh',
    '\u{1f511}',
    'your API key',
  ])
    t.equal(standInOf(text), undefined, JSON.stringify(text.slice(0, 60)));
});

t.test('every form sees a long text in time that grows with its length', async (t) => {
  const long = 65_536;
  for (const part of [
    '*',
    '* ',
    '{{',
    '}} ',
    '={{',
    '[',
    '<a',
    '_-',
    'vault:a/',
    '$(',
    'xX.',
    ' a',
    '***a',
  ])
    t.equal(
      standInOf(part.repeat(long / part.length)) === 'blank',
      false,
      `${part} over and over: the test ends`,
    );
});
