// The examples of openapi.yaml are what the vault answers. With VAULT_TEST_RECORD=1 they are
// written anew.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { recordedAnswers } from '../../src/http/recorded-answers.ts';
import { recordAnswers } from '../helpers/recorded-answers.ts';

const file = join(import.meta.dirname, '../../src/http/recorded-answers.ts');
const head = `// The examples of openapi.yaml by the names of their schemas: recorded from a running vault, by
// VAULT_TEST_RECORD=1 npm test -- test/contract/recorded-answers.test.ts && npm run -s format
`;

t.test('each example of an answer is what was answered', async (t) => {
  const answers = await recordAnswers(t);
  if (process.env['VAULT_TEST_RECORD'] === '1')
    writeFileSync(
      file,
      `${head}export const recordedAnswers: Readonly<Record<string, unknown>> = ${JSON.stringify(answers, null, 2)};\n`,
    );
  else t.strictSame(recordedAnswers, answers);
});
