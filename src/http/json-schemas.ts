// zod's schemas as the schemas of one OpenAPI document: named parts become components, and each
// shape can show an example.
import { z } from 'zod';
import { portablePattern } from '../shared/portable-pattern.ts';
import { sayRules } from '../shared/refine.ts';

export type Json = Record<string, unknown>;

const prefix = '#/components/schemas/';

/** A reference into the document's components. */
export const ref = (
  kind: 'schemas' | 'headers' | 'parameters' | 'responses' | 'examples',
  name: string,
): Json => ({ $ref: `#/components/${kind}/${name}` });

/** Collects what is named; a name used for two shapes is a fault of ours. */
export class Schemas {
  readonly #named = new Map<string, Json>();
  readonly #recorded: Readonly<Record<string, unknown>>;

  /** `recorded` are examples by the names of schemas; they come before those that a schema has. */
  constructor(recorded: Readonly<Record<string, unknown>> = {}) {
    this.#recorded = recorded;
  }

  /**
   * The schema, or a reference when it has a name. `input` is what callers send, `output` what they
   * get.
   */
  add(schema: z.ZodType, io: 'input' | 'output'): Json {
    const { $defs = {}, ...json } = this.#toJsonSchema(schema, io) as Json & {
      $defs?: Record<string, Json>;
    };
    for (const [name, part] of Object.entries($defs)) this.#name(name, tidy(part) as Json);
    return tidy(json) as Json;
  }

  /** The members of an object schema, one by one: what parameters are made of. */
  membersOf(schema: z.ZodType): { name: string; schema: Json; isRequired: boolean }[] {
    const { properties = {}, required = [] } = this.resolve(this.add(schema, 'input')) as {
      properties?: Record<string, Json>;
      required?: string[];
    };
    return Object.entries(properties).map(([name, member]) => ({
      name,
      schema: member,
      isRequired: required.includes(name),
    }));
  }

  /** What a reference stands for. */
  resolve(schema: Json): Json {
    const { $ref } = schema;
    if (typeof $ref !== 'string') return schema;
    const named = this.#named.get($ref.slice(prefix.length));
    if (named === undefined) throw new Error(`nothing is named ${$ref}`);
    return named;
  }

  /**
   * An example put together from the examples of the parts. Throws, naming the place, where a part
   * has none.
   */
  exampleOf(schema: Json, place: string): unknown {
    const { examples } = schema;
    if (Array.isArray(examples)) return examples[0];
    if (schema['$ref'] !== undefined) return this.exampleOf(this.resolve(schema), place);
    if (schema['const'] !== undefined) return schema['const'];
    if (schema['default'] !== undefined) return schema['default'];
    if (Array.isArray(schema['enum'])) return schema['enum'][0];
    const options = schema['anyOf'] ?? schema['oneOf'];
    if (Array.isArray(options)) return this.#exampleOfAny(options as Json[], place);
    switch (schema['type']) {
      case 'null':
        return null;
      case 'boolean':
        return false;
      case 'array':
        return [this.exampleOf(schema['items'] as Json, `${place}/0`)];
      case 'object':
        return this.#exampleOfObject(schema, place);
      default:
        throw new Error(`say an example for ${place}`);
    }
  }

  /** What of a member beside a reference says something else than what is named. */
  trimmed(node: unknown): unknown {
    if (Array.isArray(node)) return node.map((each) => this.trimmed(each));
    if (typeof node !== 'object' || node === null) return node;
    const { $ref } = node as Json;
    const named =
      typeof $ref === 'string' && $ref.startsWith(prefix) ? this.resolve(node as Json) : {};
    return Object.fromEntries(
      Object.entries(node)
        .filter(([key, value]) => JSON.stringify(named[key]) !== JSON.stringify(value))
        .map(([key, value]) => [key, this.trimmed(value)]),
    );
  }

  /** By name, in the order of their names. */
  sorted(): Record<string, Json> {
    return Object.fromEntries([...this.#named].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** The first that has an example: null stands in for what may be absent. */
  #exampleOfAny(options: readonly Json[], place: string): unknown {
    const isNullable = options.some((option) => option['type'] === 'null');
    for (const option of options) {
      try {
        return this.exampleOf(option, place);
      } catch (error) {
        if (!isNullable) throw error;
      }
    }
    throw new Error(`say an example for ${place}`);
  }

  #exampleOfObject(schema: Json, place: string): Json {
    const { properties = {}, required = [] } = schema as {
      properties?: Record<string, Json>;
      required?: string[];
    };
    return Object.fromEntries(
      required.map((name) => [name, this.exampleOf(properties[name] ?? {}, `${place}/${name}`)]),
    );
  }

  /**
   * `.meta({ override })` on a zod schema is what is printed in its stead, where a transformation
   * hides the shape on the wire; `printedAs` is the same as a zod schema.
   */
  #toJsonSchema(schema: z.ZodType, io: 'input' | 'output'): unknown {
    return z.toJSONSchema(schema, {
      io,
      target: 'draft-2020-12',
      reused: 'inline',
      unrepresentable: 'any',
      override: ({ zodSchema, jsonSchema }) => {
        const json = jsonSchema as Json;
        const { override, printedAs, examples } = ((zodSchema as unknown as z.ZodType).meta() ??
          {}) as { override?: object; printedAs?: z.ZodType; examples?: readonly unknown[] };
        // zod leaves them out of input that is transformed; ours are of what is sent.
        if (examples !== undefined) json['examples'] = examples;
        delete json['override'];
        delete json['printedAs'];
        if (zodSchema instanceof z.ZodDiscriminatedUnion)
          json['discriminator'] = discriminatorOf(zodSchema);
        sayRules(json);
        const instead = override ?? (printedAs === undefined ? undefined : this.add(printedAs, io));
        if (instead === undefined) return;
        for (const key of Object.keys(json))
          if (!['id', 'description', 'examples', 'default'].includes(key)) delete json[key];
        Object.assign(json, instead);
      },
    });
  }

  #name(name: string, unnamed: Json): void {
    const schema =
      name in this.#recorded ? { ...unnamed, examples: [this.#recorded[name]] } : unnamed;
    const known = this.#named.get(name);
    if (known !== undefined && JSON.stringify(known) !== JSON.stringify(schema))
      throw new Error(`two schemas are named ${name}`);
    this.#named.set(name, schema);
  }
}

/** By which member the alternatives of a union are told, and by which of its values each. */
function discriminatorOf(union: z.ZodDiscriminatedUnion): Json {
  const { discriminator: propertyName } = union.def;
  const mapping = (union.options as readonly z.ZodObject[]).map((option) => {
    const { id } = option.meta() ?? {};
    const value = option.shape[propertyName];
    if (id === undefined || !(value instanceof z.ZodLiteral))
      throw new Error(`an alternative by ${propertyName} has no name`);
    return [String(value.value), `${prefix}${id}`] as const;
  });
  return { propertyName, mapping: Object.fromEntries(mapping) };
}

/** References into components, no $schema and no repeated ids. */
function tidy(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(tidy);
  if (typeof node !== 'object' || node === null) return node;
  return Object.fromEntries(
    Object.entries(node)
      .filter(([key]) => key !== '$schema' && key !== 'id')
      .map(([key, value]) => [key, tidyMember(key, value)]),
  );
}

function tidyMember(key: string, value: unknown): unknown {
  if (key === '$ref' && typeof value === 'string') return value.replace('#/$defs/', prefix);
  if (key === 'pattern' && typeof value === 'string') return portablePattern(value);
  if (['examples', 'default', 'const', 'enum', 'discriminator'].includes(key)) return value; // values, not schemas
  // Here the names are the product's own: a property may be called id.
  if (key === 'properties')
    return Object.fromEntries(
      Object.entries(value as Json).map(([name, schema]) => [name, tidy(schema)]),
    );
  return tidy(value);
}
