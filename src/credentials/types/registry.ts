// The types there are. A type is added by one file and one line here; none is ever taken away.
import { sayRules } from '../../shared/refine.ts';
import { portablePattern } from '../../shared/portable-pattern.ts';
import { z } from 'zod';
import type { JsonObject } from '../../shared/json.ts';
import { anthropic } from './anthropic.ts';
import { aws } from './aws.ts';
import { bearer } from './bearer.ts';
import { bigquery } from './bigquery.ts';
import { clickhouse } from './clickhouse.ts';
import { cohere } from './cohere.ts';
import { customLlm } from './custom-llm.ts';
import { custom } from './custom.ts';
import { mongodb, mysql, postgres } from './databases.ts';
import type { CredentialType, FieldSpec } from './define.ts';
import { publicValue, secretValue } from './fields.ts';
import { discordTrigger } from './discord-trigger.ts';
import { discord } from './discord.ts';
import { elevenlabs } from './elevenlabs.ts';
import { flaresolverr } from './flaresolverr.ts';
import { github } from './github.ts';
import { googleDrive } from './google-drive.ts';
import { googleServiceAccount } from './google-service-account.ts';
import { googleSheets } from './google-sheets.ts';
import { google } from './google.ts';
import { grist } from './grist.ts';
import { header } from './header.ts';
import { httpBasic } from './http-basic.ts';
import { httpDigest } from './http-digest.ts';
import { httpQuery } from './http-query.ts';
import { imap } from './imap.ts';
import { jira } from './jira.ts';
import { jwtSigning } from './jwt-signing.ts';
import { linear } from './linear.ts';
import { notion } from './notion.ts';
import { oauth2 } from './oauth2.ts';
import { openai } from './openai.ts';
import { qdrant } from './qdrant.ts';
import { rabbitmq } from './rabbitmq.ts';
import { redis } from './redis.ts';
import { s3 } from './s3.ts';
import { sentry } from './sentry.ts';
import { slackTrigger } from './slack-trigger.ts';
import { slack } from './slack.ts';
import { smtp } from './smtp.ts';
import { sshKey } from './ssh-key.ts';
import { supabase } from './supabase.ts';
import { telegram } from './telegram.ts';
import { tlsClient } from './tls-client.ts';
import { webhook } from './webhook.ts';
import { airtable } from './airtable.ts';
import { azureOpenai } from './azure-openai.ts';
import { calTrigger } from './cal-trigger.ts';
import { decision } from './decision.ts';
import { gitlab } from './gitlab.ts';
import { hubspot } from './hubspot.ts';
import { jungleGrid } from './jungle-grid.ts';
import { kafka } from './kafka.ts';
import { modelRouter } from './model-router.ts';
import { mssql } from './mssql.ts';
import { opencode } from './opencode.ts';
import { pgvector } from './pgvector.ts';
import { salesforce } from './salesforce.ts';
import { sendgrid } from './sendgrid.ts';
import { slackBot } from './slack-bot.ts';
import { snowflake } from './snowflake.ts';
import { stripe } from './stripe.ts';
import { twilio } from './twilio.ts';

/** Every type, in the order in which lists show them. */
export const credentialTypes: readonly CredentialType[] = [
  openai,
  azureOpenai,
  google,
  anthropic,
  cohere,
  customLlm,
  bearer,
  header,
  httpBasic,
  httpQuery,
  httpDigest,
  telegram,
  aws,
  s3,
  smtp,
  imap,
  redis,
  rabbitmq,
  kafka,
  postgres,
  mysql,
  mssql,
  mongodb,
  clickhouse,
  snowflake,
  qdrant,
  pgvector,
  slack,
  slackBot,
  slackTrigger,
  discord,
  discordTrigger,
  calTrigger,
  github,
  gitlab,
  jira,
  linear,
  notion,
  grist,
  supabase,
  sentry,
  elevenlabs,
  stripe,
  hubspot,
  twilio,
  sendgrid,
  airtable,
  decision,
  modelRouter,
  opencode,
  jungleGrid,
  flaresolverr,
  oauth2,
  googleSheets,
  googleDrive,
  bigquery,
  salesforce,
  googleServiceAccount,
  jwtSigning,
  tlsClient,
  sshKey,
  webhook,
  custom,
];

const byName: ReadonlyMap<string, CredentialType> = new Map(
  credentialTypes.map((type) => [type.name, type]),
);

/** The type of a name. */
export const findType = (name: string): CredentialType | undefined => byName.get(name);

/** The types for which tokens are stored. */
export const oauthTypeNames: readonly string[] = credentialTypes
  .filter(({ oauth }) => oauth !== undefined)
  .map(({ name }) => name);

/**
 * JSON Schema (2020-12) of a type's `fields`, good to draw a form from; secret fields are
 * writeOnly.
 */
export function typeSchema(type: CredentialType): JsonObject {
  const property = (schema: z.ZodType): JsonObject => {
    const {
      $schema: _,
      pattern,
      ...rest
    } = z.toJSONSchema(schema, {
      io: 'input',
      override: ({ jsonSchema }) => sayRules(jsonSchema),
    }) as unknown as Record<string, never>;
    return pattern === undefined ? rest : { ...rest, pattern: portablePattern(pattern) };
  };
  const entries = Object.entries(type.fields);
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: `urn:credential-vault:type:${type.name}`,
    title: type.title,
    description: type.description,
    type: 'object',
    properties: Object.fromEntries(
      entries.map(([name, field]): [string, JsonObject] => [
        name,
        {
          ...property(field.schema),
          title: field.title,
          ...(field.description === undefined ? {} : { description: field.description }),
          ...(field.default === undefined ? {} : { default: field.default }),
          ...(field.class === 'secret' ? { writeOnly: true } : {}),
          ...(field.isWritten === true ? { readOnly: true } : {}),
        },
      ]),
    ),
    ...dependenciesOf(entries),
    required: entries.filter(([, field]) => field.isRequired).map(([name]) => name),
    ...(type.anyOf === undefined
      ? {}
      : { anyOf: type.anyOf.map((name) => ({ required: [name] })) }),
    ...(type.notBoth === undefined ? {} : { not: { required: [...type.notBoth] } }),
    ...(type.isOpen === true
      ? { additionalProperties: { anyOf: [secretValue, ...publicValue.options].map(property) } }
      : { additionalProperties: false }),
  };
}

/** Fields that go only with another one. */
function dependenciesOf(entries: readonly [string, FieldSpec][]): JsonObject {
  const dependent = entries.filter(([, { needs }]) => needs !== undefined);
  return dependent.length === 0
    ? {}
    : {
        dependentRequired: Object.fromEntries(
          dependent.map(([name, { needs }]) => [name, [String(needs)]]),
        ),
      };
}
