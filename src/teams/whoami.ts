// Who the caller is to the vault.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { roles } from '../access/decide.ts';
import { pageItemsMax } from '../http/limits.ts';
import { addOperation } from '../http/operation.ts';
import { slug, subject } from '../http/schemas.ts';
import type { TeamsService } from './service.ts';

const whoami = z
  .strictObject({
    subject,
    isOperator: z.boolean(),
    teams: z
      .array(z.strictObject({ team: slug, role: z.enum(roles) }))
      .max(pageItemsMax)
      .meta({ description: 'The first 200 by slug; all of them by GET /v1/teams.' }),
  })
  .meta({
    id: 'Whoami',
    examples: [
      { subject: 'alice', isOperator: false, teams: [{ team: 'payments', role: 'admin' }] },
    ],
  });

/** Adds GET /v1/whoami. */
export function registerWhoami(app: FastifyInstance, { service }: { service: TeamsService }): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/whoami',
    access: 'authenticated',
    operationId: 'whoami',
    tag: 'account',
    summary: 'Say who you are to the vault',
    success: { status: 200, schema: whoami, description: 'Your subject and your roles.' },
    handler: async ({ caller }) => {
      const listed = await service.listTeams(caller, { limit: pageItemsMax - 1, after: undefined });
      return {
        subject: caller.sub,
        isOperator: caller.isOperator,
        teams: listed.map(({ team, role }) => ({ team: team.slug, role })),
      };
    },
  });
}
