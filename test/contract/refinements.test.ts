// Rules that zod's own checks cannot say have to say themselves, and what is refused says what is
// allowed.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { z } from 'zod';
import { credentialTypes } from '../../src/credentials/types/registry.ts';
import { Schemas } from '../../src/http/json-schemas.ts';
import { refined, saidChecks, unique } from '../../src/shared/refine.ts';
import { inputRules, refusalRules, rules } from '../../src/shared/rules.ts';
import { startVault } from '../helpers/vault.ts';

const source = join(import.meta.dirname, '../../src');

interface Found {
  readonly place: string;
  readonly schema: z.ZodType;
}

/** A schema and all that it is made of. */
function* parts(schema: z.ZodType, place: string, seen = new Set<unknown>()): Generator<Found> {
  if (seen.has(schema)) return;
  seen.add(schema);
  yield { place, schema };
  const { def } = schema._zod as unknown as { def: Record<string, unknown> };
  for (const [name, value] of Object.entries({
    ...def,
    ...(schema instanceof z.ZodObject ? { shape: schema.shape } : {}),
  })) {
    if (name === 'checks') continue;
    for (const each of Array.isArray(value)
      ? value
      : name === 'shape'
        ? Object.values(value as object)
        : [value])
      if (each instanceof z.ZodType) yield* parts(each, `${place}/${name}`, seen);
  }
}

const checksOf = (schema: z.ZodType) => schema._zod.def.checks ?? [];
const unsaid = (all: Iterable<Found>): string[] =>
  [...all].flatMap(({ place, schema }) =>
    checksOf(schema).some((check) => check._zod.def.check === 'custom' && !saidChecks.has(check))
      ? [place]
      : [],
  );
const wordless = (all: Iterable<Found>): string[] =>
  [...all].flatMap(({ place, schema }) =>
    checksOf(schema).some((check) => {
      const def = check._zod.def as { format?: string; error?: unknown };
      return def.format === 'regex' && def.error === undefined;
    })
      ? [place]
      : [],
  );

t.test('each refinement says itself, in whatever goes in or out', async (t) => {
  const { app } = await startVault(t);
  const all: Found[] = [];
  for (const { operationId, params, query, body, success, otherwise } of app.operations)
    for (const [part, schema] of Object.entries({
      params,
      query,
      body,
      out: success.schema,
      other: otherwise?.schema,
    }))
      if (schema !== undefined) all.push(...parts(schema, `${operationId}/${part}`));
  for (const type of credentialTypes)
    for (const [name, field] of Object.entries(type.fields))
      all.push(...parts(field.schema, `${type.name}/${name}`));
  t.ok(all.length > 1_000, 'the walk reaches them');
  t.ok(
    all.filter(({ schema }) => checksOf(schema).some((check) => saidChecks.has(check))).length > 20,
    'and finds refinements',
  );
  t.same(unsaid(all), []);
  t.same(
    wordless(all.filter(({ place }) => !/\/(?:out|other)/.test(place))),
    [],
    'every pattern that input can break is said in words',
  );
});

t.test('one that does not is found', (t) => {
  const open = z.strictObject({ a: z.array(z.string().refine(() => true, 'mask')).optional() });
  t.same(unsaid(parts(open, 'planted')), ['planted/shape/innerType/element']);
  t.same(wordless(parts(z.object({ a: z.string().regex(/a/) }), 'planted')), ['planted/shape']);
  const said = refined(z.string(), { rule: 'mask', check: () => true, says: 'None.' });
  t.same(unsaid(parts(said, 'planted')), []);
  t.end();
});

t.test('nothing but shared/refine.ts adds checks of its own', (t) => {
  // The file of issuers is no part of the document.
  const unprinted = join('config', 'issuers.ts');
  const elsewhere = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter(
      (name) => name.endsWith('.ts') && ![join('shared', 'refine.ts'), unprinted].includes(name),
    )
    .filter((name) =>
      /\.(?:refine|superRefine|overwrite)\(|z\.(?:custom|preprocess|check)\(/.test(
        readFileSync(join(source, name), 'utf8'),
      ),
    );
  t.same(elsewhere, []);
  t.end();
});

t.test('what is said is printed', (t) => {
  const printed = (schema: z.ZodType) => new Schemas().add(schema, 'input');
  t.match(printed(unique(z.array(z.string())).meta({ description: 'Some.' })), {
    description: 'Some.',
    uniqueItems: true,
  });
  t.match(
    printed(
      refined(z.string(), { rule: 'mask', check: () => true, says: 'No mask.' }).meta({
        description: 'A value.',
      }),
    ),
    { description: 'A value. No mask.' },
  );
  t.end();
});

t.test(
  'every rule that can be answered with has a sentence, and each stands in src/',
  folded((t) => {
    const text = readdirSync(source, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts') && !name.endsWith('rules.ts'))
      .map((name) => readFileSync(join(source, name), 'utf8'))
      .join('\n');
    t.equal(Object.keys(rules).length, Object.keys({ ...inputRules, ...refusalRules }).length);
    for (const [name, sentence] of Object.entries(rules)) {
      t.ok(text.includes(`'${name}'`), `${name} is used`);
      t.match(sentence, /^[A-Z`].*\.$/, name);
    }
  }),
);
